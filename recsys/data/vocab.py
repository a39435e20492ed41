"""Ids outside, rows inside: the one place where they are mapped.

Row 0 is "unknown": an id that the vocabulary does not hold, or a missing value.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data.places import Places
from recsys.data.ragged import IntArray
from recsys.data.storage import open_input, write_table
from recsys.schema import UNKNOWN_ROW, vocab_schema


class Vocab:
    """An ordered set of ids.

    >>> vocab = Vocab(["b", "a"])
    >>> vocab.rows(["a", "zzz", None]).tolist(), vocab.id(1), len(vocab)
    ([2, 0, 0], 'b', 3)
    """

    def __init__(self, ids: Iterable[str] | pa.Array) -> None:
        array = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
        self._ids = array.cast(pa.string())
        self._places: Places | None = None

    @classmethod
    def read(cls, path: str) -> Vocab:
        """Reads a Parquet file of `vocab_schema`."""
        with open_input(path) as file:
            return cls(pq.read_table(file).column("id").combine_chunks().slice(1))

    def write(self, path: str) -> None:
        """Writes a Parquet file of `vocab_schema`, row 0 first."""
        ids = pa.concat_arrays([pa.nulls(1, pa.string()), self._ids])
        write_table(pa.table([ids], schema=vocab_schema()), path)

    def __len__(self) -> int:
        """Number of rows, row 0 among them."""
        return len(self._ids) + 1

    def rows(self, ids: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> IntArray:
        """The rows of many ids (cast to text); 0 for those that it does not hold."""
        if not isinstance(ids, (pa.Array, pa.ChunkedArray)):
            ids = pa.array(list(ids), pa.string())
        places = pc.index_in(ids.cast(pa.string()), value_set=self._ids, skip_nulls=True)
        rows = pc.add(pc.cast(places, pa.int64()), 1).fill_null(UNKNOWN_ROW)
        return np.asarray(rows, dtype=np.int64)

    def row(self, id_: str) -> int:
        """The row of one id: quick for single look-ups, as a server makes them."""
        if self._places is None:
            self._places = Places(self._ids)
        place = self._places.get(id_)
        return UNKNOWN_ROW if place is None else place + 1

    def id(self, row: int) -> str:
        """The id of a row above 0."""
        if row <= 0:
            raise KeyError(f"row {row} has no id; rows start at 1")
        return str(self._ids[row - 1])

    @property
    def ids(self) -> pa.Array:
        """The ids of rows 1, 2, …."""
        return self._ids


class DistinctIds:
    """The different ids among those of many parts, none of them a Python object.

    >>> ids = DistinctIds(["b", "a"])
    >>> ids.add(pa.array(["c", "b"]))
    >>> ids.all().to_pylist()
    ['b', 'a', 'c']
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._known = pa.array(list(ids), pa.string())
        self._more: list[pa.Array] = []

    def add(self, ids: pa.Array) -> None:
        """Takes ids, none of them missing, of which some may be there already."""
        self._more.append(ids)
        # Looked through when they are as many as what is known: no id is hashed often.
        if sum(map(len, self._more)) > len(self._known):
            self.all()

    def all(self) -> pa.Array:
        """Each id once, in the order in which they came."""
        self._known, self._more = pc.unique(pa.concat_arrays([self._known, *self._more])), []
        return self._known


def sorted_ids(ids: pa.Array) -> pa.Array:
    """Different ids by their characters, without those that are missing.

    >>> sorted_ids(pa.array(["b", None, "a", "b"])).to_pylist()
    ['a', 'b']
    """
    different = pc.unique(ids).drop_null()
    return different.take(pc.sort_indices(different))
