"""Arrays and lists of which more follow while they are used: what is added costs what is added."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.ragged import IntArray, Ragged, join_lists

Value = TypeVar("Value", bound=np.generic)

LEAST_ROOM, SHARE = 64, 8
"""Rows that there is room for beyond those wanted: so many, or one in so many."""


class Growing(Generic[Value]):
    """An array with room behind its last row.

    Only where the room is full, all rows move, into one that is an eighth larger. Rows that nobody
    has set are 0; of pages that nobody touches the system keeps none.

    >>> numbers = Growing(np.array([3, 1]))
    >>> before = numbers.now
    >>> numbers.put(np.array([3, 0]), np.array([7, 8]))
    >>> numbers.now.tolist(), before.tolist(), len(numbers)
    ([8, 1, 0, 7], [3, 1], 4)
    """

    def __init__(self, first: NDArray[Value]) -> None:
        self._room = first
        self.now = first
        """The rows of now; rows that follow are not in it, but other values of these may come."""

    def __len__(self) -> int:
        return len(self.now)

    def reach(self, length: int) -> None:
        """Has at least so many rows."""
        if length <= len(self.now):
            return
        if length > len(self._room):
            room = length + max(LEAST_ROOM, length // SHARE)
            larger = np.zeros((room, *self._room.shape[1:]), self._room.dtype)
            larger[: len(self.now)] = self.now
            self._room = larger
        self.now = self._room[:length]

    def put(self, rows: IntArray, values: NDArray[Value]) -> None:
        """Sets rows, of which some may follow the last one."""
        self.reach(int(rows.max(initial=-1)) + 1)
        self.now[rows] = values

    def append(self, values: NDArray[Value]) -> None:
        """Sets the next rows."""
        first = len(self.now)
        self.reach(first + len(values))
        self.now[first:] = values


class GrowingLists:
    """Lists of which more may follow; those that are there keep their numbers.

    >>> lists = GrowingLists(Ragged.from_lists([[3, 1], []]))
    >>> lists.put(np.array([2, 3]), Ragged.from_lists([[7], [8, 9]]))
    >>> lists.select(np.array([3, 0, 2])).values.tolist(), len(lists)
    ([8, 9, 3, 1, 7], 4)
    >>> lists.put(np.array([2]), Ragged.from_lists([[5, 6]]))
    >>> lists.select(np.array([2, 3])).values.tolist()
    [5, 6, 8, 9]
    """

    def __init__(self, first: Ragged) -> None:
        self._first = first
        self._hold(Ragged.empty(0))

    def _hold(self, later: Ragged) -> None:
        self._ends, self._values = Growing(later.offsets), Growing(later.values)

    def __len__(self) -> int:
        return len(self._first) + self._num_later

    @property
    def _num_later(self) -> int:
        return len(self._ends) - 1

    @property
    def later(self) -> Ragged:
        """Those that were not there from the first."""
        return Ragged(self._ends.now, self._values.now)

    def put(self, numbers: IntArray, lists: Ragged) -> None:
        """Takes lists that follow the last one or stand in the place of ones that followed.

        Args:
            numbers: (n,) their numbers, sorted, none of those that were there from the first.
            lists: n of them.
        """
        places, num_later = numbers - len(self._first), self._num_later
        if np.array_equal(places, num_later + np.arange(len(places))):
            self._ends.append(len(self._values) + lists.offsets[1:])
            self._values.append(lists.values)
            return
        order = np.arange(max(num_later, int(places.max(initial=-1)) + 1))
        order[places] = num_later + np.arange(len(places))
        self._hold(join_lists([self.later, lists]).select(order))

    def select(self, lists: NDArray[np.int64]) -> Ragged:
        """The lists with these numbers, in this order."""
        late = lists >= len(self._first)
        if not late.any():
            return self._first.select(lists)
        first = self._first.select(lists[~late])
        later = self.later.select(lists[late] - len(self._first))
        lengths = np.empty(len(lists), np.int64)
        lengths[~late], lengths[late] = first.lengths, later.lengths
        values = np.empty(int(lengths.sum()), np.int32)
        of_later = np.repeat(late, lengths)
        values[~of_later], values[of_later] = first.values, later.values
        return Ragged(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), values)
