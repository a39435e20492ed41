"""The compressed packets of a video, read once, and the times of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.decode.sampling import Timeline

MAX_KEPT_BYTES = 128 * 2**20
"""Packets of a larger video are not kept in memory but read from the file again."""

WHOLE = ((0, 2**62),)
"""The ranges of a walk over all packets."""


@dataclass(frozen=True)
class Entry:
    """When a packet's or a frame's picture is on show, in ticks; None where the file is silent."""

    tick: int | None
    is_key: bool
    duration: int


class PacketList:
    """The packets of one video, in decoding order.

    Args:
        demux: Opens the file at its start and gives its packets; called again for another walk
            where the packets are too many to keep.
    """

    def __init__(self, demux: Callable[[], Iterator[Any]]):
        self._demux = demux
        self._source = demux()
        self._kept: list[Any] | None = []
        self._kept_bytes = 0
        self.entries: list[Entry] = []
        self._hidden: list[bool] = []  # packets that are decoded but not shown (edit lists)

    def scan(self) -> None:
        """Reads all packets that have not been read."""
        while self._extend():
            pass

    def _extend(self) -> bool:
        packet = next(self._source, None)
        if packet is None:
            return False
        self.entries.append(Entry(packet.pts, packet.is_keyframe, packet.duration or 0))
        self._hidden.append(bool(packet.is_discard))
        if self._kept is not None:
            self._kept.append(packet)
            self._kept_bytes += packet.size
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
        return True

    def head(self) -> Iterator[Any]:
        """The packets from the first on, read as they are asked for."""
        place = 0
        while self._kept is not None and (place < len(self._kept) or self._extend()):
            if self._kept is not None:
                yield self._kept[place]
            place += 1

    def walk(self, ranges: Sequence[tuple[int, int]] = WHOLE) -> Iterator[tuple[int, Any]]:
        """(place, packet) of all packets in sorted ranges, and (stop, None) behind each range."""
        self.scan()
        packets = iter(self._kept) if self._kept is not None else self._demux()
        place = 0
        for start, stop in ranges:
            if self._kept is not None:
                packets, place = iter(self._kept[start:stop]), start
            for packet in packets:
                if place >= start:
                    yield place, packet
                place += 1
                if place >= stop:
                    break
            yield place, None

    def key_places(self) -> NDArray[np.int64]:
        """Places of the key packets."""
        return np.flatnonzero([entry.is_key for entry in self.entries]).astype(np.int64)

    def ticks(self) -> NDArray[np.int64]:
        """(N,) times by place; all packets must have one."""
        return np.array([entry.tick for entry in self.entries], np.int64)

    def timeline(self, tick_s: float) -> tuple[Timeline, NDArray[np.int64]] | None:
        """The frames in time order, and the place of each one's packet.

        None where packets have no times, or two have the same.
        """
        self.scan()
        shown = np.flatnonzero(~np.array(self._hidden, bool)).astype(np.int64)
        planned = in_time_order([self.entries[place] for place in shown.tolist()], tick_s)
        return planned and (planned[0], shown[planned[1]])


def steady_timeline(index: Sequence[Any], tick_s: float) -> Timeline | None:
    """A timeline from a container's index alone, without reading its packets.

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
    return Timeline(starts_s, float(starts_s[-1] + steps[0] * tick_s), keys)


def in_time_order(
    entries: Sequence[Entry], tick_s: float
) -> tuple[Timeline, NDArray[np.int64]] | None:
    """A timeline, and the place in `entries` of each of its frames.

    None where there are no entries, one has no time, or two have the same.
    """
    if not entries or any(entry.tick is None for entry in entries):
        return None
    ticks = np.array([entry.tick for entry in entries], np.int64)
    order = np.argsort(ticks, kind="stable")
    ticks = ticks[order]
    steps = np.diff(ticks)
    if (steps <= 0).any():
        return None
    last = entries[int(order[-1])].duration or (int(np.median(steps)) if len(steps) else 1)
    keys = np.flatnonzero([entries[place].is_key for place in order.tolist()]).astype(np.int64)
    starts_s = (ticks - ticks[0]) * tick_s
    return Timeline(starts_s, float(starts_s[-1] + last * tick_s), keys), order


def by_rate(entries: Sequence[Entry], rate: float) -> tuple[Timeline, NDArray[np.int64]]:
    """A timeline of frames that come at a constant rate, for files without usable times."""
    order = np.arange(len(entries))
    keys = np.flatnonzero([entry.is_key for entry in entries]).astype(np.int64)
    return Timeline(order / rate, len(entries) / rate, keys), order
