"""What is known of users besides their events: rows of the vocabulary of user values.

Shapes: U users, J columns of user features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.places import Places
from recsys.data.ragged import IntArray
from recsys.schema import USER_ROWS


class UserRows:
    """Each user's rows, one a feature column; 0 where a value is missing or the user unknown.

    >>> users = UserRows(pa.array(["b", "a"]), np.array([[1, 3], [2, 0]]))
    >>> users.of(["a", "zoe"]).tolist(), users.one("b").tolist(), users.one("zoe").tolist()
    ([[2, 0], [0, 0]], [1, 3], [0, 0])

    Args:
        ids: Of the users, each of them once.
        rows: (U, J), in the order of the ids; they are used as they are, mapped ones too.
    """

    def __init__(self, ids: pa.Array, rows: npt.NDArray[np.integer]) -> None:
        self._ids, self._rows = ids, rows
        self._places: Places | None = None

    @classmethod
    def from_table(cls, table: pa.Table) -> UserRows | None:
        """Of a table of `user_schema`; None where it says nothing of users."""
        if USER_ROWS not in table.column_names:
            return None
        rows = rows_of(table)
        num_users = table.num_rows
        width = rows.size // max(1, num_users)
        return cls(table.column("user_id").combine_chunks(), rows.reshape(num_users, width))

    def index(self) -> Places:
        """What `one` finds users by; the first call makes it, a second for a million users."""
        if self._places is None:
            self._places = Places(self._ids)
        return self._places

    def of(self, user_ids: Iterable[str | None] | pa.Array) -> IntArray:
        """The rows of many users (U, J)."""
        ids = user_ids if isinstance(user_ids, pa.Array) else pa.array(list(user_ids), pa.string())
        known = pc.index_in(ids.cast(self._ids.type), value_set=self._ids, skip_nulls=True)
        places = np.asarray(known.fill_null(-1), np.int64)
        rows = np.zeros((len(places), self._rows.shape[1]), np.int64)
        rows[places >= 0] = self._rows[places[places >= 0]]
        return rows

    def one(self, user_id: str) -> npt.NDArray[np.integer]:
        """The rows of one user (J,): quick for single look-ups."""
        place = self.index().get(user_id)
        if place is None:
            return np.zeros(self._rows.shape[1], self._rows.dtype)
        rows: npt.NDArray[np.integer] = self._rows[place]
        return rows


def rows_of(table: pa.Table) -> IntArray:
    """The rows of all users of a table of `user_schema` (U · J,), one after the other."""
    return np.asarray(table.column(USER_ROWS).combine_chunks().flatten(), np.int64)


def row_lists(rows: IntArray) -> pa.Array:
    """Users' rows (U, J) as a column of lists."""
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(rows.ravel(), pa.int32()))
