"""Lists of different lengths in one array, and the array types that every room shares.

Imports no other room, so that all may use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
NumberT = TypeVar("NumberT", bound=np.number)


@dataclass(frozen=True)
class Ragged:
    """Lists of whole numbers, one after the other: list i is `values[offsets[i]:offsets[i + 1]]`.

    >>> lists = Ragged.from_lists([[3, 1], [], [2]])
    >>> lists.lengths.tolist()
    [2, 0, 1]
    >>> [part.tolist() for part in lists.pairs(0, 2)]
    [[0, 0], [3, 1]]
    """

    offsets: NDArray[np.int64]
    """Shape (lists + 1)."""
    values: NDArray[np.int32]

    def __post_init__(self) -> None:
        ends = self.offsets[[0, -1]].tolist() if len(self.offsets) else None
        if ends != [0, len(self.values)] or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets must rise from 0 to the number of values")

    @classmethod
    def from_lists(cls, lists: Sequence[Iterable[int]]) -> Ragged:
        """Makes one of ordinary lists."""
        arrays = [np.asarray(list(values), dtype=np.int32) for values in lists]
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        values = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        return cls(offsets.astype(np.int64), values)

    @classmethod
    def of_sets(
        cls, owners: NDArray[np.integer], values: NDArray[np.integer], num_lists: int
    ) -> Ragged:
        """Makes one of lists of different values, sorted: value i belongs to list `owners[i]`.

        >>> [part.tolist() for part in Ragged.of_sets(np.array([1, 0, 1]), np.array([5, 7, 5]), 2)]
        [[7], [5]]
        """
        keys = union(owners.astype(np.int64) << 32 | values)
        offsets = np.searchsorted(keys, np.arange(num_lists + 1) << 32)
        return cls(offsets, (keys & 0xFFFFFFFF).astype(np.int32))

    @property
    def keys(self) -> NDArray[np.int64]:
        """One number for each value and its list, sorted by list first."""
        return self.list_of_value << 32 | self.values

    @classmethod
    def of_singles(cls, values: NDArray[np.number]) -> Ragged:
        """Makes one of lists of one value each."""
        return cls(np.arange(len(values) + 1), values.astype(np.int32))

    @classmethod
    def from_arrow(cls, lists: pa.ListArray | pa.LargeListArray | pa.ChunkedArray) -> Ragged:
        """Makes one of a column of lists; a null is an empty list.

        Large lists without nulls are used where they lie.
        """
        if isinstance(lists, pa.LargeListArray) and not (lists.null_count or lists.offset):
            offsets = np.asarray(lists.offsets)
            if not (len(offsets) and offsets[0]):
                return cls(offsets, flat_values(lists, np.int32))
        lengths = np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(offsets, flat_values(lists, np.int32))

    @classmethod
    def empty(cls, num_lists: int) -> Ragged:
        """`num_lists` empty lists."""
        return cls(np.zeros(num_lists + 1, np.int64), np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> NDArray[np.int32]:
        """The values of one list; lists are counted from 0."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of values of each list."""
        return np.diff(self.offsets)

    @property
    def list_of_value(self) -> NDArray[np.int64]:
        """Which list each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def pairs(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(list number counted from `start`, value) of every value of lists `start` to `stop`."""
        owners = np.repeat(np.arange(stop - start), self.lengths[start:stop])
        return owners, self.values[self.offsets[start] : self.offsets[stop]]

    def has_duplicates(self) -> bool:
        """Whether any list holds a value twice."""
        keys = np.sort(self.keys)
        return bool((keys[1:] == keys[:-1]).any())

    def padded(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The lists as rows of equal length and the length-1 weight of each: `padded_lists`."""
        return padded_lists(self.offsets, self.values)

    def select(self, lists: NDArray[np.int64]) -> Ragged:
        """The lists with these numbers, in this order."""
        lengths = self.offsets[lists + 1] - self.offsets[lists]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ragged(offsets, self.values[self.places(lists)])

    def places(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `values` those of these lists are, one list after the other."""
        starts = self.offsets[lists]
        return expand_ranges(starts, self.offsets[lists + 1] - starts)


def join_lists(parts: list[Ragged]) -> Ragged:
    """The lists of several `Ragged` one after the other."""
    lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
    values = [np.zeros(0, np.int32), *(part.values for part in parts)]
    return Ragged(np.cumsum(np.concatenate(lengths)), np.concatenate(values).astype(np.int32))


def flat_values(
    lists: pa.ListArray | pa.LargeListArray | pa.ChunkedArray, dtype: type[NumberT]
) -> NDArray[NumberT]:
    """The values of a column of lists, one after the other.

    Chunks are joined as plain arrays: Arrow's own joining breaks beyond 2^31 values.

    >>> flat_values(pa.chunked_array([[[1, 2], []], [[3]]]), np.int64).tolist()
    [1, 2, 3]
    """
    chunks = lists.chunks if isinstance(lists, pa.ChunkedArray) else [lists]
    parts = [np.asarray(chunk.flatten()).astype(dtype, copy=False) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, which is copied only where it is in parts."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def union(*parts: npt.NDArray[NumberT]) -> npt.NDArray[NumberT]:
    """Each value of some arrays once, in rising order.

    As `np.unique`, which hashes whole numbers: thousands take it ten times as long.

    >>> union(np.array([[3, 1], [3, 2]]), np.array([7, 2])).tolist()
    [1, 2, 3, 7]
    """
    values = np.concatenate([part.ravel() for part in parts])
    values.sort()
    is_first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    return values[is_first]


def expand_ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The numbers of many ranges, one after the other.

    >>> expand_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def padded_lists(
    offsets: NDArray[np.integer], values: NDArray[np.integer]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Lists as rows of equal length, and 1 / √(length) of each, which makes it a unit vector.

    -1 fills up, and an empty list is the list of 0 alone.

    >>> rows, weights = padded_lists(np.array([0, 2, 2]), np.array([4, 5]))
    >>> rows.tolist(), weights.round(3).tolist()
    ([[4, 5], [0, -1]], [0.707, 1.0])
    """
    lengths = np.diff(offsets)
    rows = np.full((len(lengths), max(1, lengths.max(initial=0))), -1, np.int32)
    place = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    rows[np.repeat(np.arange(len(lengths)), lengths), place] = values
    rows[lengths == 0, 0] = 0
    return rows, 1 / np.sqrt(np.maximum(lengths, 1))
