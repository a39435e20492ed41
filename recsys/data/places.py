"""Where each of many ids stands, in 12 bytes an id where a dict takes more than a hundred."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.ragged import IntArray

CHUNK = 1 << 20
"""Ids that are Python strings at once while the hashes are made."""


class Ids(Sequence[str]):
    """Ids in an Arrow array, each a Python string only once it is asked for.

    >>> ids = Ids(pa.chunked_array([["b"], ["a", "c"]]))
    >>> ids[1], ids[1:], len(ids), list(ids)
    ('a', ['a', 'c'], 3, ['b', 'a', 'c'])
    """

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        # Large: the bytes of a billion ids go beyond 2^31.
        ids = column.cast(pa.large_string())
        self.array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [str(one) for one in self.array[place].to_pylist()]
        return str(self.array[place].as_py())

    @cached_property
    def places(self) -> Places:
        """What finds each of the ids, which differ; made once, in a second for a million."""
        return Places(self.array)

    def text(self) -> tuple[npt.NDArray[np.uint8], IntArray]:
        """The bytes of all ids in UTF-8, and (one more than ids) where each begins and ends.

        >>> text, ends = Ids(pa.array(["b", "", "ac"])).text()
        >>> bytes(text), ends.tolist()
        (b'bac', [0, 1, 1, 3])
        """
        if not len(self):
            return np.zeros(0, np.uint8), np.zeros(1, np.int64)
        _, ends, text = self.array.buffers()
        start = self.array.offset
        bounds = np.frombuffer(ends, np.int64)[start : start + len(self) + 1]
        first, last = bounds[[0, -1]].tolist()
        return np.frombuffer(text, np.uint8)[first:last], bounds - first


class Places:
    """The places of different ids, found by their sorted 64-bit hashes.

    Ids of equal hash are told apart by the ids themselves. The hash is Python's own, which is
    salted by process: nobody can hand in ids that collide, and the hashes are not to be stored.

    >>> places = Places(pa.array(["b", "a"]))
    >>> places.get("a"), places.get("zoe"), "b" in places, len(places)
    (1, None, True, 2)
    """

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        hashes = np.empty(len(ids), np.int64)
        for start in range(0, len(ids), CHUNK):
            part = ids.slice(start, CHUNK).to_pylist()
            hashes[start : start + CHUNK] = np.fromiter(map(hash, part), np.int64, len(part))
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    def __reduce__(self) -> tuple[type[Places], tuple[pa.Array]]:
        """Crosses to another process without the hashes, which have another salt there."""
        return Places, (self._ids,)

    def __len__(self) -> int:
        """Number of ids."""
        return len(self._ids)

    def __contains__(self, id_: str) -> bool:
        return self.get(id_) is not None

    def get(self, id_: str) -> int | None:
        """The place of an id, counted from 0; None where it is not there."""
        wanted = hash(id_)
        first = int(self._hashes.searchsorted(wanted))
        while first < len(self._hashes) and self._hashes[first] == wanted:
            place = int(self._order[first])
            if self._ids[place].as_py() == id_:
                return place
            first += 1
        return None
