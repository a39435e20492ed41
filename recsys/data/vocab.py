"""Ids outside, rows inside: the one place where they are mapped.

Row 0 is "unknown": an id that the vocabulary does not hold, or a missing value.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
        self._row_of: dict[str, int] | None = None

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
        if self._row_of is None:
            self._row_of = {key: row for row, key in enumerate(self._ids.to_pylist(), start=1)}
        return self._row_of.get(id_, UNKNOWN_ROW)

    def id(self, row: int) -> str:
        """The id of a row above 0."""
        if row <= 0:
            raise KeyError(f"row {row} has no id; rows start at 1")
        return str(self._ids[row - 1])

    @property
    def ids(self) -> pa.Array:
        """The ids of rows 1, 2, …."""
        return self._ids
