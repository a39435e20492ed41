"""Events and flags of many rows, counted by the hour.

The counts of all events are mapped files that the processes of a node share.

Shapes: R rows of a counted thing, T tasks, n pairs of a row and an hour. Counted are the event
itself and its 1 + T flags: the positive flag and the tasks' labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from recsys.data.arrays import open_array, write_array
from recsys.data.ragged import IntArray, Ragged
from recsys.data.storage import join
from recsys.features.live_counts import LiveCounts
from recsys.features.timelines import MS_PER_HOUR
from recsys.schema import UNKNOWN_ROW

_HOURS_A_ROW = 1 << 24
LAST_HOUR = _HOURS_A_ROW - 1
_FILES = _KEYS, _TOTALS, _STARTS = ("keys.npy", "totals.npy", "starts.npy")
_MOST_ROWS = 1 << 38
_FIRST_KNOWN = np.array([UNKNOWN_ROW + 1])
_AT_ONCE = 1 << 20
"""Keys that are looked at together."""
_FEW = 512
"""Keys up to which a search through all of them costs less than the steps of one by row."""


def hour_of(time_ms: npt.ArrayLike) -> IntArray:
    """Number of the hour since 1970; times before it count as its start."""
    hour = np.asarray(time_ms, dtype=np.int64) // MS_PER_HOUR
    # For one number an eighth of what `np.clip` takes; a server asks for many of them.
    return np.minimum(np.maximum(hour, 0), LAST_HOUR)


def _sort_keys(rows: npt.NDArray[np.integer], hours: npt.ArrayLike) -> IntArray:
    """One number for each pair of row and hour, sorted by row first."""
    return rows.astype(np.int64) * _HOURS_A_ROW + np.asarray(hours, np.int64)


def _places(keys: IntArray, asked: IntArray, first: IntArray, last: IntArray) -> IntArray:
    """Where each of some sorted keys (n,) belongs among all, which is within [first, last].

    `np.searchsorted` halves what is left of all keys, of millions at places far from each other; of
    thousands of keys that is up to seven times as slow as halving the few of each one's row.
    """
    if len(asked) <= _FEW:
        return np.searchsorted(keys, asked)
    # The last key that is known to be less, and the last one that may be.
    place, end = first - 1, last - 1
    step = 1 << int((last - first).max()).bit_length()
    while step := step >> 1:
        ahead = place + step
        within = ahead <= end
        within &= keys.take(np.minimum(ahead, end)) < asked
        place += within * step
    return place + 1


class HourlyCounts:
    """Events and flags of each row in each hour, as running totals; none of the unknown row.

    What it is made of stays as it is; live events are counted beside it.

    Args:
        rows: (n,) int64.
        hours: (n,) hours since 1970; pairs of row and hour may repeat.
        counts: (n, 2 + T) events and flags.
    """

    def __init__(self, rows: npt.NDArray[np.integer], hours: IntArray, counts: IntArray) -> None:
        keys = _sort_keys(rows, hours)
        order = np.argsort(keys)
        keys = keys.take(order)
        order = order[np.searchsorted(keys, _sort_keys(_FIRST_KNOWN, 0)[0]) :]
        keys = keys[len(keys) - len(order) :]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = counts.take(order, axis=0)
        summed = np.add.reduceat(counts, starts) if len(starts) else counts
        keys, totals = keys[starts], np.pad(summed.cumsum(0), ((1, 0), (0, 0)))
        num_rows = int(keys[-1]) // _HOURS_A_ROW + 2 if len(keys) else 1
        self._hold(keys, totals, np.searchsorted(keys, _sort_keys(np.arange(num_rows + 1), 0)))

    def _hold(self, keys: IntArray, totals: IntArray, starts: IntArray) -> None:
        """Row r has the keys of places [r] to [r + 1]; the last row stands for all without any."""
        self._keys, self._totals, self._starts = keys, totals, starts
        parts = (keys[at : at + _AT_ONCE] for at in range(0, len(keys), _AT_ONCE))
        self._end = 1 + max((int((part % _HOURS_A_ROW).max()) for part in parts), default=-1)
        self._live: LiveCounts | None = None

    @property
    def exact_from(self) -> int:
        """The hour from which on `before` is exact; see `LiveCounts.before` for those before it."""
        live = self._live
        return 0 if live is None else live.exact_from

    @property
    def live_bytes(self) -> int:
        """Bytes that live events take."""
        live = self._live
        return 0 if live is None else live.nbytes

    def before(self, rows: npt.NDArray[np.integer], hours: IntArray) -> IntArray:
        """Totals (R, 2 + T) of the hours before one (R,), for rows (R,)."""
        place = np.minimum(rows, len(self._starts) - 2)
        asked = _sort_keys(place, np.minimum(np.maximum(hours, 0), self._end))
        order = np.argsort(asked)  # what is asked for then lies side by side in the mapped files
        place = place[order]
        first, last = self._starts[place], self._starts[place + 1]
        within = np.flatnonzero(hours[order] < self._end)
        last[within] = _places(self._keys, asked[order[within]], first[within], last[within])
        totals: IntArray = np.empty((len(order), self._totals.shape[1]), np.int64)
        totals[order] = self._totals.take(last, axis=0) - self._totals.take(first, axis=0)
        live = self._live  # which another thread may put another one in the place of
        if live is not None:
            totals += live.before(rows, hours)
        return totals

    def add(self, rows: npt.NDArray[np.integer], hours: IntArray, counts: IntArray) -> None:
        """Counts live events; see `LiveCounts`. Many threads may read meanwhile, one may write.

        Args:
            rows: (n,), which may repeat.
            hours: (n,) since 1970.
            counts: (n, 2 + T).
        """
        if self._live is None:
            self._live = LiveCounts(self._totals.shape[1], self._end)
        self._live.add(rows, hours, counts)

    def without_live(self) -> HourlyCounts:
        """The same without live events; those that either counts later are its own."""
        apart = copy.copy(self)
        apart._live = None
        return apart

    def take_live(self, other: HourlyCounts) -> None:
        """Has the live events of another one, which counts no more, in place of its own."""
        self._live = other._live

    def entries(self) -> tuple[IntArray, IntArray, IntArray]:
        """Rows (n,), hours (n,) and counts (n, 2 + T), sorted, without live events."""
        counts = np.diff(self._totals, axis=0)
        return self._keys // _HOURS_A_ROW, self._keys % _HOURS_A_ROW, counts

    def mapped(self, rows: Ragged) -> HourlyCounts:
        """The counts of what our rows belong to: row i to those of list i."""
        own, hours, counts = self.entries()
        targets = rows.select(own)
        entry = targets.list_of_value
        return HourlyCounts(targets.values, hours[entry], counts[entry])

    def write(self, folder: str) -> None:
        """Writes a folder that `open` maps, without live events."""
        for name, array in self.arrays().items():
            write_array([array], join(folder, name), shape=array.shape)

    def arrays(self) -> dict[str, IntArray]:
        """What it is made of, without live events, by the names of the files that it is kept in."""
        return dict(zip(_FILES, (self._keys, self._totals, self._starts), strict=True))

    def write_part(self, folder: str) -> None:
        """Writes what `sum_rows` and `join_sorted` read, until the stage is over."""
        keys, totals = self._keys, self._totals
        write_array([keys], join(folder, _KEYS), shape=keys.shape, sync=False)
        write_array([totals], join(folder, _TOTALS), shape=totals.shape, sync=False)

    @classmethod
    def open(cls, folder: str) -> HourlyCounts:
        """Maps what `write` or `join_sorted` wrote: nothing of it is read before it is asked."""
        return cls.read(lambda name: open_array(join(folder, name), np.int64))

    @classmethod
    def read(cls, array: Callable[[str], IntArray]) -> HourlyCounts:
        """Reads it out of its `arrays`, whoever opens them."""
        nothing = np.zeros(0, np.int64)
        counts = cls(nothing, nothing, np.zeros((0, 1), np.int64))
        counts._hold(*(array(name) for name in _FILES))
        return counts


def sampled_rows(part: str, step: int) -> list[tuple[int, int]]:
    """Of every `step` entries of a part the last row and their number, fewer at its end."""
    keys = open_array(join(part, _KEYS), np.int64)
    ends = [min(start + step, len(keys)) for start in range(0, len(keys), step)]
    last = keys[np.array(ends, np.int64) - 1] // _HOURS_A_ROW
    return list(zip(last.tolist(), np.diff([0, *ends]).tolist(), strict=True))


def sum_rows(parts: Sequence[str], first: int, end: int) -> HourlyCounts:
    """The sum of the counts of the rows [first, end) of several parts; no more of them is read."""
    bounds = _sort_keys(np.array([first, min(end, _MOST_ROWS)]), 0)
    keys, counts = [], []
    for part in parts:
        mine, totals = (open_array(join(part, name), np.int64) for name in (_KEYS, _TOTALS))
        start, stop = np.searchsorted(mine, bounds).tolist()
        keys.append(mine[start:stop])
        counts.append(np.diff(totals[start : stop + 1], axis=0))
    joined = np.concatenate(keys)
    return HourlyCounts(joined // _HOURS_A_ROW, joined % _HOURS_A_ROW, np.concatenate(counts))


def join_sorted(parts: Sequence[str], folder: str) -> None:
    """Joins parts into one folder, never holding more than one of them.

    Args:
        parts: At least one; the rows of each come after those of the one before it.
        folder: What `HourlyCounts.open` then maps.
    """

    def arrays(name: str) -> Iterator[IntArray]:
        return (open_array(join(part, name), np.int64) for part in parts)

    num_keys = sum(len(keys) for keys in arrays(_KEYS))
    width = next(arrays(_TOTALS)).shape[1]
    write_array(arrays(_KEYS), join(folder, _KEYS), shape=(num_keys,))
    totals = _running(arrays(_TOTALS), width)
    write_array(totals, join(folder, _TOTALS), shape=(num_keys + 1, width))
    lengths = np.zeros(1, np.int64)
    for keys in arrays(_KEYS):
        rows = keys // _HOURS_A_ROW
        lengths = np.pad(lengths, (0, max(0, int(rows.max(initial=-1)) + 2 - len(lengths))))
        lengths += np.bincount(rows, minlength=len(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    write_array([starts], join(folder, _STARTS), shape=starts.shape)


def _running(parts: Iterable[IntArray], width: int) -> Iterator[IntArray]:
    """Running totals that each begin at 0, as those of all, one part after the other."""
    so_far = np.zeros((1, width), np.int64)
    yield so_far
    for totals in parts:
        yield totals[1:] + so_far
        so_far = so_far + totals[-1:]
