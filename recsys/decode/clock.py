"""Times of frames made whole where a file's clock is broken.

The order in which frames are shown is known (the decoder gives it); their times may be missing,
wild or equal, or start again where recordings were joined. A time that cannot be is one bad time:
its frame gets a place between its neighbours, and all others keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JUMP_S = 10.0
"""A longer step is a jump of the clock and no pause, in containers whose clocks do jump; FFmpeg's
own programs draw the line there as well (`dts_delta_threshold`)."""

MAX_WILD = 2
"""More frames in a row than this whose times agree with each other have a clock of their own."""

_NEW_CLOCK_COST = MAX_WILD + 0.5  # in wild frames


@dataclass(frozen=True)
class Doubts:
    """What was wrong with a file's frame times.

    `num_wild` frames had a time that cannot be, `num_filled` none or the one of the frame before,
    and `num_jumps` times the clock started anew.

    >>> str(Doubts(num_wild=1, num_jumps=2))
    'frame times: 1 wild, 2 jumps of the clock'
    """

    num_wild: int = 0
    num_filled: int = 0
    num_jumps: int = 0

    def __bool__(self) -> bool:
        return bool(self.num_wild or self.num_filled or self.num_jumps)

    @property
    def is_broken(self) -> bool:
        """Whether a time is wrong; a missing one, or two frames of one time, are common."""
        return bool(self.num_wild or self.num_jumps)

    def with_wild(self, num: int) -> Doubts:
        """The same, where `num` times had been taken away as wild before."""
        filled = max(0, self.num_filled - num)
        return Doubts(self.num_wild + num, filled, self.num_jumps)

    def __str__(self) -> str:
        said = [
            (self.num_wild, "wild"),
            (self.num_filled, "missing or equal"),
            (self.num_jumps, "jumps of the clock"),
        ]
        what_was = ", ".join(f"{num} {what}" for num, what in said if num)
        return what_was and f"frame times: {what_was}"


@dataclass(frozen=True)
class Mended:
    """Rising times of N frames, in ticks from the first one on, and what was wrong with them."""

    ticks: NDArray[np.float64]
    doubts: Doubts


def mend(ticks: Sequence[int | None], *, jump: float, pauses: bool) -> Mended | None:
    """The times of frames in the order in which they are shown.

    Args:
        ticks: Their times as the file has them; None where it has none.
        jump: A longer step may be a jump of the clock, in ticks.
        pauses: Whether such a step is a pause all the same, as long as the clock never goes back.

    Returns:
        None where only one of several frames has a time of its own: there is no clock then.

    >>> mend([0, 10, 900, 30], jump=1e4, pauses=True).ticks.tolist()
    [0.0, 10.0, 20.0, 30.0]
    >>> mend([50, 60, 70, 0, 10, 20], jump=1e4, pauses=True).ticks.tolist()
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    places = np.flatnonzero([tick is not None for tick in ticks]).astype(np.int64)
    times = np.array([tick for tick in ticks if tick is not None], np.float64)
    steps = np.diff(times)
    jump = max(jump, 10 * float(np.median(np.abs(steps)))) if len(steps) else jump  # slides
    max_step = np.inf if pauses else jump
    if len(times) == len(ticks) > 0 and ((steps > 0) & (steps <= max_step)).all():
        return Mended(times - times[0], Doubts())
    own = _own(times)
    places, times = places[own], times[own]
    believed = _believed(places, times, max_step)
    if pauses and _joints(times[believed], max_step).any():
        max_step = jump  # a clock that goes back is not believed in its long steps either
        believed = _believed(places, times, max_step)
    if len(believed) < 2:
        return None
    joints = _joints(times[believed], max_step)
    return Mended(
        _joined(len(ticks), places[believed], times[believed], joints),
        Doubts(
            num_wild=len(times) - len(believed),
            num_filled=len(ticks) - len(times),
            num_jumps=int(joints.sum()),
        ),
    )


def _own(times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which of the times are their frames' own: of equal ones in a row the first or the last.

    The others' true times lie where the longer step is.

    >>> _own(np.array([0.0, 10, 10, 30])).tolist(), _own(np.array([0.0, 20, 20, 30])).tolist()
    ([True, True, False, True], [True, False, True, True])
    """
    firsts = np.flatnonzero(np.diff(times, prepend=np.nan))
    lasts = np.append(firsts, len(times))[1:] - 1
    before = np.diff(times[firsts], prepend=np.nan)
    after = np.diff(times[firsts], append=np.nan)
    own = np.zeros(len(times), bool)
    own[np.where((before > after) & (after > 0), lasts, firsts)] = True
    return own


def _joints(times: NDArray[np.float64], max_step: float) -> NDArray[np.bool_]:
    """(N - 1,) whether the clock jumps between two times."""
    steps = np.diff(times)
    return np.asarray((steps <= 0) | (steps > max_step), bool)


def _believed(
    places: NDArray[np.int64], times: NDArray[np.float64], max_step: float
) -> NDArray[np.int64]:
    """Which of the times, of frames at these places, are kept: the cheapest way through.

    A time left out costs one, a jump between kept ones a little more than `MAX_WILD`. Of ways that
    cost the same it is the evenest, by the sum of squared steps a frame.
    """
    values, numbers = times.tolist(), places.tolist()
    costs: list[tuple[float, float]] = []
    before: list[int] = []
    for i, value in enumerate(values):
        ways = [((float(i), 0.0), -1)] if i <= MAX_WILD else []
        for j in range(max(0, i - 1 - MAX_WILD), i):
            step, (cost, unevenness) = value - values[j], costs[j]
            cost += i - j - 1
            if 0 < step <= max_step:
                ways.append(((cost, unevenness + step * step / (numbers[i] - numbers[j])), j))
            else:
                ways.append(((cost + _NEW_CLOCK_COST, unevenness), j))
        best, place = min(ways)
        costs.append(best)
        before.append(place)
    tails = range(max(0, len(values) - 1 - MAX_WILD), len(values))
    place = min(tails, key=lambda i: (costs[i][0] + len(values) - 1 - i, costs[i][1]), default=-1)
    kept: list[int] = []
    while place >= 0:
        kept.append(place)
        place = before[place]
    return np.array(kept[::-1], np.int64)


def _joined(
    num: int, places: NDArray[np.int64], times: NDArray[np.float64], joints: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(num,) times: the usual step at a joint, and the rest of the frames between neighbours."""
    steps, gaps = np.diff(times), np.diff(places)
    usual = float(np.median((steps / gaps)[~joints])) if not joints.all() else 1.0
    ticks = np.concatenate([[0.0], np.cumsum(np.where(joints, usual * gaps, steps))])
    ends = [places[0] * usual, (num - 1 - places[-1]) * usual]
    all_places = np.concatenate([[-1], places, [num]])
    all_ticks = np.concatenate([[-ends[0] - usual], ticks, [ticks[-1] + ends[1] + usual]])
    whole = np.interp(np.arange(num), all_places, all_ticks)
    return np.asarray(whole - whole[0], np.float64)
