"""What is known of users besides their events: rows of the vocabulary of user values.

Shapes: U users, J columns of user features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from recsys.data.places import Places
from recsys.data.ragged import IntArray
from recsys.data.vocab import Vocab
from recsys.schema import UNKNOWN_ROW, USER_ROWS


class UserRows:
    """Each user's rows, one a feature column; 0 where a value is missing or the user unknown.

    >>> users = UserRows(pa.array(["b", "a"]), np.array([[1, 3], [2, 0]]))
    >>> users.of(["a", "zoe"]).tolist()
    [[2, 0], [0, 0]]
    """

    def __init__(self, ids: pa.Array, rows: IntArray) -> None:
        self._ids, self._places = Vocab(ids), Places(ids)
        self._rows = np.concatenate([np.zeros((1, rows.shape[1]), np.int64), rows])

    @classmethod
    def from_table(cls, table: pa.Table) -> UserRows | None:
        """Of a table of `user_schema`; None where it says nothing of users."""
        if USER_ROWS not in table.column_names:
            return None
        lists = table.column(USER_ROWS).combine_chunks()
        width = len(lists[0]) if len(lists) else 0
        rows = np.asarray(lists.flatten(), np.int64).reshape(len(lists), width)
        return cls(table.column("user_id").combine_chunks(), rows)

    def of(self, user_ids: Iterable[str | None] | pa.Array) -> IntArray:
        """The rows of many users (U, J)."""
        rows: IntArray = self._rows[self._ids.rows(user_ids)]
        return rows

    def one(self, user_id: str) -> IntArray:
        """The rows of one user (J,): quick for single look-ups."""
        place = self._places.get(user_id)
        rows: IntArray = self._rows[UNKNOWN_ROW if place is None else place + 1]
        return rows


def row_lists(rows: IntArray) -> pa.Array:
    """Users' rows (U, J) as a column of lists."""
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.ravel(), pa.int32()))
