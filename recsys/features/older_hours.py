"""Live counts of hours that are over for long: exact for the newest of them, as many as fit.

A history may hold an event of some days ago, and its count features are those of its hour. Most
rows have no event in most hours, so the hours are held as sorted pairs of a row and an hour. Of
more pairs than `CAPACITY` the oldest hours are dropped, whole ones: of what happened in them only
the sum is known.

Shapes: n pairs, W counted numbers, R rows asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import IntArray

CAPACITY = 1_000_000
"""Pairs of a row and an hour, 8 · (1 + W) bytes each: some days of a busy server."""
ADDED_AT_ONCE = 10_000
"""Pairs that are sorted in together, and half as many as are held."""
_HOURS_A_SLOT = 1 << 24


class OlderHours:
    """Counts of pairs of a slot and an hour; one thread at a time.

    Which are held follows from what was added alone, not from the order.

    Args:
        width: W.
        capacity: Most pairs that are held.
    """

    def __init__(self, width: int, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._keys = np.zeros(0, np.int64)
        self._sums = np.zeros((1, width), np.int64)
        self._added: list[tuple[IntArray, IntArray]] = []
        self._num_added = 0
        self._first = 0

    @property
    def first(self) -> int:
        """The first hour that is held; those before it are dropped. 0 where none ever was."""
        self._tidy()
        return self._first

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        added = sum(keys.nbytes + counts.nbytes for keys, counts in self._added)
        return self._keys.nbytes + self._sums.nbytes + added

    def add(self, slots: IntArray, hours: IntArray, counts: IntArray) -> None:
        """Adds counts (n, W) of slots in hours; pairs may repeat."""
        if len(slots):
            self._added.append((slots * _HOURS_A_SLOT + hours, counts))
            self._num_added += len(slots)
            if self._num_added > ADDED_AT_ONCE + len(self._keys) // 2:
                self._tidy()

    def since(self, slots: IntArray, hours: IntArray) -> IntArray:
        """Counts (R, W) in the hours from one (R,) on, of slots (R,)."""
        self._tidy()
        start = np.searchsorted(self._keys, slots * _HOURS_A_SLOT + hours)
        stop = np.searchsorted(self._keys, (slots + 1) * _HOURS_A_SLOT)
        counts: IntArray = self._sums[stop] - self._sums[start]
        return counts

    def _tidy(self) -> None:
        """Sorts in what was added, and drops the oldest hours of what is too much."""
        if not self._added:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._added)])
        counts = np.concatenate([np.diff(self._sums, axis=0), *(part for _, part in self._added)])
        self._added, self._num_added = [], 0
        hours = keys % _HOURS_A_SLOT
        keys, counts = _summed(keys[hours >= self._first], counts[hours >= self._first])
        if len(keys) > self._capacity:
            hours = keys % _HOURS_A_SLOT
            newest_first = np.sort(hours)[::-1]
            # The hour of the first pair too many goes whole.
            self._first = int(newest_first[self._capacity]) + 1
            keys, counts = keys[hours >= self._first], counts[hours >= self._first]
        self._keys = keys
        self._sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), counts.cumsum(0)])


def _summed(keys: IntArray, counts: IntArray) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """Sorted keys that differ, and the sums of their counts."""
    order = np.argsort(keys, kind="stable")
    unique, starts = np.unique(keys[order], return_index=True)
    if not len(unique):
        return unique, counts
    return unique, np.add.reduceat(counts[order], starts)
