"""Counts of what happens while a server runs, at a cost that does not grow with its uptime.

Of each row that had live events there is one running total, and for each of the last 48 hours the
number of events in that hour and later: a total before an hour is one number less another. An hour
that leaves these 48 goes to `OlderHours`, which holds as many as fit.

What is held follows from the events alone, neither from the clock nor from the order in which they
come: a server that starts again and reads the log has the counts that it had before.

Shapes: S slots of rows that had events, R rows asked for, n events, H hours of the ring, W = 2 + T
counted numbers.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import IntArray
from recsys.features.older_hours import CAPACITY, OlderHours
from recsys.schema import UNKNOWN_ROW

Number = TypeVar("Number", bound=np.integer)

RING_HOURS = 48
"""Hours that are known one by one; a day's counts a day ago need all of them."""
NO_SLOT = 0
"""The slot of rows without events; nothing is ever counted in it."""


class LiveCounts:
    """Live events and flags of each row, before each hour; none of the unknown row.

    Any thread may read and write: each call sees and leaves whole calls of the others. The lock is
    held while arrays are read or written, some microseconds for a hundred rows.

    Args:
        width: W, the number of what is counted.
        base_end: The hour up to which counts are known otherwise.
        capacity: Of the `OlderHours`.
    """

    def __init__(self, width: int, base_end: int, *, capacity: int = CAPACITY) -> None:
        self._base_end, self._lock = base_end, threading.Lock()
        self._older = OlderHours(width, capacity=capacity)
        self._slot_of_row = np.zeros(1, np.int32)
        self._num_slots = 1
        self._total_SW = np.zeros((1, width), np.int64)
        # [slot, hour % 48]: events in that hour or later. 32 bits are enough for 12,000 a second.
        self._from_hour_SHW = np.zeros((1, RING_HOURS, width), np.int32)
        self._first, self._newest = np.iinfo(np.int64).max, -1

    @property
    def oldest(self) -> int:
        """The first of the last 48 hours."""
        return max(0, self._newest - RING_HOURS + 1)

    @property
    def exact_from(self) -> int:
        """The first hour before which the counts are exact; they are after it, too."""
        with self._lock:
            return self._older.first

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        ring = self._slot_of_row.nbytes + self._total_SW.nbytes + self._from_hour_SHW.nbytes
        return ring + self._older.nbytes

    def add(self, rows: npt.NDArray[np.integer], hours: IntArray, counts: IntArray) -> None:
        """Counts events, of whatever hours.

        Args:
            rows: (n,), which may repeat.
            hours: (n,) since 1970.
            counts: (n, W).
        """
        known = rows != UNKNOWN_ROW
        if not known.any():
            return
        rows, hours, counts = rows[known], hours[known], counts[known]
        unique, place = np.unique(rows, return_inverse=True)
        with self._lock:
            self._advance(int(hours.max()))
            self._first = min(self._first, int(hours.min()))
            slots = self._slots_for(unique)
            self._total_SW[slots] += _summed(place, counts, len(unique))
            recent = hours >= self.oldest
            self._older.add(slots[place[~recent]], hours[~recent], counts[~recent])
            ages = self._newest - hours[recent]
            span = int(ages.max(initial=0)) + 1
            # By age, so that the sum over younger hours runs from left to right; older hours than
            # all of these events have them all.
            by_age = _summed(place[recent] * span + ages, counts[recent], len(unique) * span)
            from_age = by_age.reshape(len(unique), span, -1).cumsum(1).astype(np.int32)
            age_of_column = (self._newest - np.arange(RING_HOURS)) % RING_HOURS
            self._from_hour_SHW[slots] += from_age[:, np.minimum(age_of_column, span - 1)]

    def before(self, rows: npt.NDArray[np.integer], hours: IntArray) -> IntArray:
        """Totals (R, W) of the hours before one (R,), for rows (R,).

        They are exact from the first hour on that `OlderHours` holds. Before it, two points are
        known: nothing up to the first live hour or the end of the base, whichever is later, and the
        total at that hour; in between it is taken to have grown evenly, rounded down. So totals
        never fall with the hour.
        """
        with self._lock:
            # The slot past the last row stands for all rows without events.
            slots = self._slot_of_row.take(rows, mode="clip").astype(np.int64)
            totals: IntArray = self._total_SW.take(slots, axis=0)
            oldest, newest = self.oldest, self._newest
            start = max(self._first, self._base_end)
            asked = np.clip(hours, oldest, newest)
            flat = self._from_hour_SHW.reshape(-1, totals.shape[1])
            later = flat.take(slots * RING_HOURS + asked % RING_HOURS, axis=0)
            later[hours > newest] = 0
            totals -= later
            old = np.flatnonzero(hours < oldest)
            first = self._older.first if len(old) else 0
            if len(old):
                totals[old] -= self._older.since(slots[old], np.maximum(hours[old], first))
        lost = old[hours[old] < first]
        if len(lost):
            passed = np.clip(hours[lost] - start, 0, None) if first > start else 0 * hours[lost]
            totals[lost] = totals[lost] * passed[:, None] // max(first - start, 1)
        return totals

    def _advance(self, hour: int) -> None:
        """Makes an hour the newest one, if it is newer; what it takes the place of is cleared."""
        if hour > self._newest:
            self._let_go(min(self._newest, hour - RING_HOURS))
            new = np.arange(max(self._newest, hour - RING_HOURS) + 1, hour + 1)
            self._from_hour_SHW[:, new % RING_HOURS] = 0
            self._newest = hour

    def _let_go(self, last: int) -> None:
        """Hands the ring's hours up to one over to the older ones."""
        for hour in range(self.oldest, last + 1):
            from_hour = self._from_hour_SHW[:, hour % RING_HOURS]
            if hour < self._newest:
                from_hour = from_hour - self._from_hour_SHW[:, (hour + 1) % RING_HOURS]
            slots = np.flatnonzero(from_hour.any(1))
            counts = from_hour[slots].astype(np.int64)
            self._older.add(slots, np.full(len(slots), hour), counts)

    def _slots_for(self, rows: IntArray) -> IntArray:
        """The slots of rows that differ; who has none gets one."""
        self._slot_of_row = _grown(self._slot_of_row, int(rows.max()) + 2)
        fresh = rows[self._slot_of_row[rows] == NO_SLOT]
        end = self._num_slots + len(fresh)
        self._total_SW = _grown(self._total_SW, end)
        self._from_hour_SHW = _grown(self._from_hour_SHW, end)
        self._slot_of_row[fresh] = np.arange(self._num_slots, end)
        self._num_slots = end
        slots: IntArray = self._slot_of_row[rows].astype(np.int64)
        return slots


def _grown(array: npt.NDArray[Number], length: int) -> npt.NDArray[Number]:
    """The array, or one at least half longer that begins with it and goes on with zeros."""
    if length <= len(array):
        return array
    grown = np.zeros((max(length, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _summed(places: IntArray, counts: IntArray, num_places: int) -> IntArray:
    """Sums (num_places, W) of the counts (n, W) that have the same place."""
    columns = [np.bincount(places, column, num_places) for column in counts.T]
    return np.stack(columns, 1).astype(np.int64)
