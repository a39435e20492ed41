"""The compressed packets of a video, read once, and the times of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.decode.clock import JUMP_S, MAX_WILD, mend
from recsys.decode.sampling import FrameTimes

if TYPE_CHECKING:
    import av

MAX_KEPT_BYTES = 128 * 2**20
"""Packets of a larger video are not kept in memory but read from the file again."""

MAX_HELD_BACK = 16
"""Frames that a decoder may hold back until their turn comes (H.264, A.3.1)."""

WHOLE = ((0, 2**62),)
"""The ranges of a walk over all packets."""


@dataclass(frozen=True)
class PacketEntry:
    """When a packet's picture is on show and when it is decoded, in ticks.

    None where the file is silent.
    """

    tick: int | None
    is_key: bool
    duration: int
    decode_tick: int | None = None


@dataclass(frozen=True)
class ClockRules:
    """What is known of a container's clock.

    `tick_s` is its unit; `jumps` says whether a long step is a jump of the clock, for the container
    was made for broadcasts that are joined, or a pause.
    """

    tick_s: float
    jumps: bool = False

    @property
    def jump(self) -> float:
        """The step that may be a jump, in ticks."""
        return JUMP_S / self.tick_s


@dataclass(frozen=True)
class Plan:
    """What the packets alone say.

    The frame times, the place of each frame's packet, each packet's rank in time, and how many
    frames at the start are left out because their key frame is missing.
    """

    frame_times: FrameTimes
    places: NDArray[np.int64]
    ranks: NDArray[np.int64]
    num_without_key: int


class PacketList:
    """The packets of one video, in decoding order.

    Args:
        demux: Opens the file at its start and gives its packets; called again for another walk
            where the packets are too many to keep.
    """

    def __init__(self, demux: Callable[[], Iterator[av.Packet]]):
        self._demux = demux
        self._source = demux()
        self._kept: list[av.Packet] | None = []
        self._kept_bytes = 0
        self.entries: list[PacketEntry] = []
        self._hidden: list[bool] = []  # packets that are decoded but not shown (edit lists)

    def scan(self) -> None:
        """Reads all packets that have not been read."""
        while self._extend():
            pass

    def _extend(self) -> bool:
        packet = next(self._source, None)
        if packet is None:
            return False
        self.entries.append(
            PacketEntry(packet.pts, packet.is_keyframe, packet.duration or 0, packet.dts)
        )
        self._hidden.append(bool(packet.is_discard))
        if self._kept is not None:
            self._kept.append(packet)
            self._kept_bytes += packet.size
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
        return True

    def head(self) -> Iterator[av.Packet]:
        """The packets from the first on, read as they are asked for."""
        place = 0
        while self._kept is not None and (place < len(self._kept) or self._extend()):
            if self._kept is not None:
                yield _placed(self._kept[place], place)
            place += 1

    def walk(
        self, ranges: Sequence[tuple[int, int]] = WHOLE
    ) -> Iterator[tuple[int, av.Packet | None]]:
        """(place, packet) of all packets in sorted ranges, and (stop, None) behind each range."""
        self.scan()
        packets = iter(self._kept) if self._kept is not None else self._demux()
        place = 0
        for start, stop in ranges:
            if self._kept is not None:
                packets, place = iter(self._kept[start:stop]), start
            for packet in packets:
                if place >= start:
                    yield place, _placed(packet, place)
                place += 1
                if place >= stop:
                    break
            yield place, None

    def hides_first(self) -> bool:
        """Whether the first packet is decoded for others only; its frame is never seen."""
        return any(self._hidden[:1])

    def hides_all(self) -> bool:
        """Whether no packet's frame is ever seen, of some that there are."""
        self.scan()
        return bool(self._hidden) and all(self._hidden)

    def key_places(self) -> NDArray[np.int64]:
        """Places of the key packets."""
        return np.flatnonzero([entry.is_key for entry in self.entries]).astype(np.int64)

    def frame_times(self, rules: ClockRules) -> Plan | None:
        """The frames in the order in which they are shown, by the packets' times alone.

        None where these do not tell the order.
        """
        self.scan()
        entries, num_wild = without_wild(self.entries, rules)
        order = None if num_wild else _order(entries, rules)
        if order is None:
            return None
        shown = order[~np.array(self._hidden, bool)[order]]
        keys = self.key_places()
        places = shown[shown >= keys[0]] if len(keys) else shown
        frame_times = frame_times_of([entries[place] for place in places.tolist()], rules)
        if frame_times is None:
            return None
        return Plan(frame_times, places, np.argsort(order), len(shown) - len(places))


def _placed(packet: av.Packet, place: int) -> av.Packet:
    """The packet with its place for a time, which its frame will bear: times may be missing."""
    packet.pts, packet.dts = place, None
    return packet


def steady_frame_times(index: Sequence[av.index.IndexEntry], tick_s: float) -> FrameTimes | None:
    """The frame times by a container's index alone, without reading its packets.

    An index has decoding times, which are the frames' own where none is reordered, and does not say
    how long the last frame lasts.

    Args:
        index: Its entries, one a packet, in decoding order.
        tick_s: The unit of their times.

    Returns:
        None where a frame is hidden or the rate changes: the packets must then say it.
    """
    ticks = np.array([entry.timestamp for entry in index], np.int64)
    steps = np.diff(ticks)
    if len(ticks) < 2 or (steps != steps[0]).any() or steps[0] <= 0:
        return None
    if any(entry.is_discard for entry in index):
        return None
    keys = np.flatnonzero([entry.is_keyframe for entry in index]).astype(np.int64)
    starts_s = (ticks - ticks[0]) * tick_s
    return FrameTimes(starts_s, float(starts_s[-1] + steps[0] * tick_s), keys)


def without_wild(
    entries: Sequence[PacketEntry], rules: ClockRules
) -> tuple[list[PacketEntry], int]:
    """Entries, given as they are decoded, without the times that the times of decoding belie.

    A frame is shown no sooner than decoded, and soon after: decoders hold back 16 frames at most.
    Where more than a few times break that, it is the times of decoding that are wrong.

    Returns:
        The entries, and how many times were taken away.
    """
    ticks = np.array([_or_nan(entry.tick) for entry in entries])
    decode = np.array([_or_nan(entry.decode_tick) for entry in entries])
    steps = np.abs(np.diff(decode))
    if not len(steps) or np.isnan(steps).all():
        return list(entries), 0
    usual = float(np.nanmedian(steps))
    ahead = decode[np.minimum(np.arange(len(decode)) + MAX_HELD_BACK, len(decode) - 1)]
    latest = np.fmax(decode, ahead) + MAX_HELD_BACK * usual + 1 / rules.tick_s
    wild = (ticks > latest) | (ticks < decode - usual)
    if not 0 < wild.sum() <= max(MAX_WILD, len(entries) // 20):
        return list(entries), 0
    pairs = zip(entries, wild.tolist(), strict=True)
    return [replace(e, tick=None) if is_wild else e for e, is_wild in pairs], int(wild.sum())


def _order(entries: Sequence[PacketEntry], rules: ClockRules) -> NDArray[np.int64] | None:
    """The places of entries, given as they are decoded, in the order in which they are shown.

    Where the clock of decoding starts anew a recording ends, and all its frames are shown before
    the next one's. None where a time is missing, wild or twice there: only the decoder then knows.
    """
    if not entries or any(entry.tick is None for entry in entries):
        return None
    ticks = np.array([entry.tick for entry in entries], np.float64)
    decode = np.array([_or_nan(entry.decode_tick) for entry in entries])
    known = np.flatnonzero(~np.isnan(decode))
    steps = np.diff(decode[known])
    breaks = (steps < 0) | (rules.jumps & (steps > rules.jump))
    runs = np.split(np.arange(len(ticks)), known[1:][breaks])
    orders = [run[np.argsort(ticks[run], kind="stable")] for run in runs]
    for order, run in zip(orders, runs, strict=True):
        # Of equal times either may come first, where frames are not decoded in their order.
        is_open = (order != run).any() and not np.diff(ticks[order]).all()
        if is_open or _is_uneven(ticks[order], decode[run]):
            return None
    return np.concatenate(orders).astype(np.int64)


def _is_uneven(ticks: NDArray[np.float64], decode: NDArray[np.float64]) -> bool:
    """Whether rising times have a step that has no like among those of decoding.

    Frames are decoded at the steps that they are shown at, but for a delay.
    """
    decode_steps = np.diff(decode[~np.isnan(decode)])
    if len(ticks) < 2 or not len(decode_steps) or not decode_steps.max():
        return False
    return bool(np.diff(ticks).max() > 1.5 * decode_steps.max() + 1)


def _or_nan(tick: int | None) -> float:
    return np.nan if tick is None else float(tick)


def frame_times_of(entries: Sequence[PacketEntry], rules: ClockRules) -> FrameTimes | None:
    """The times of frames that are given in the order in which they are shown.

    None where too few of them have a time of their own.
    """
    mended = mend([entry.tick for entry in entries], jump=rules.jump, pauses=not rules.jumps)
    if mended is None:
        return None
    steps = np.diff(mended.ticks)
    # Containers whose clocks jump hold no durations: FFmpeg makes them up, and often too short.
    last = (0 if rules.jumps else entries[-1].duration) or float(np.median([*steps] or [1]))
    keys = np.flatnonzero([entry.is_key for entry in entries]).astype(np.int64)
    starts_s = mended.ticks * rules.tick_s
    return FrameTimes(starts_s, float(starts_s[-1] + last * rules.tick_s), keys, mended.doubts)


def by_rate(entries: Sequence[PacketEntry], rate: float) -> FrameTimes:
    """The times of frames that come at a constant rate, for files without usable times."""
    keys = np.flatnonzero([entry.is_key for entry in entries]).astype(np.int64)
    return FrameTimes(np.arange(len(entries)) / rate, len(entries) / rate, keys)
