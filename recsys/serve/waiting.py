"""What events do to the counts of videos that a server does not know yet, until these come."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

MOST = 50_000
"""Changes that are kept, about 300 bytes each."""
BITS = 1 << 23
"""Of what is remembered of ids alone."""


class Counted(NamedTuple):
    """What an event changes in the counts of its video."""

    time_ms: int
    """Of the showing that it belongs to."""
    context_rows: tuple[int, ...]
    """(C,)."""
    counts: tuple[int, ...]
    """(2 + T,) events, positives and labels that are gained."""


class NamedIds:
    """Ids of which it is known whether they may have been named; in a mebibyte, however many.

    A Bloom filter: none that was added is missed, and of those that were not, two in a hundred
    are taken for one after a million (Bloom 1970, "Space/time trade-offs in hash coding").
    """

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, name: str) -> None:
        """Remembers an id."""
        for place in _places(name):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, name: str) -> bool:
        """Whether an id may have been added."""
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(name))


def _places(name: str) -> Iterator[int]:
    """Four of the bits, each four bytes of a digest."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return (place % BITS for (place,) in struct.iter_unpack("<I", digest))


class Waiting:
    """The changes of videos that are not known, all of a video's or none.

    Args:
        most: Changes that are kept; where more come, the videos that have been named least lately
            lose theirs, and can only be counted from the log.
    """

    def __init__(self, *, most: int = MOST) -> None:
        self._most, self._num = most, 0
        self._kept: OrderedDict[str, list[Counted]] = OrderedDict()
        self._lost, self._named = NamedIds(), NamedIds()

    def __len__(self) -> int:
        """Changes that are kept."""
        return self._num

    def name(self, video_id: str) -> None:
        """Remembers that an event named a video, whether or not it changes what is counted."""
        self._named.add(video_id)

    def was_named(self, video_id: str) -> bool:
        """Whether an event may have named a video."""
        return video_id in self._named

    def put(self, video_id: str, counted: Counted) -> None:
        """Keeps a change until `take`."""
        if video_id in self._lost:
            return
        self._kept.setdefault(video_id, []).append(counted)
        self._kept.move_to_end(video_id)
        self._num += 1
        while self._num > self._most:
            lost, changes = self._kept.popitem(last=False)
            self._lost.add(lost)
            self._num -= len(changes)

    def take(self, video_id: str) -> list[Counted] | None:
        """A video's changes, in their order; None where they may not all be here."""
        if video_id in self._lost:
            return None
        changes = self._kept.pop(video_id, [])
        self._num -= len(changes)
        return changes
