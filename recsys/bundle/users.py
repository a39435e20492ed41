"""The features of users in a bundle, in arrays that a machine's servers share.

    users/ids.npy, id_ends.npy      the users' ids, as `bundle/spooled.py` says
    users/rows.npy                  (U, J) rows of vocab/user.arrow, 0 where a value is missing

Shapes: U users, those without events among them; J columns of user features.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pyarrow as pa

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.bundle.spooled import ID_NAMES, Array, id_arrays, ids_of, read_arrays, write_parts
from recsys.data.users import UserRows, rows_of
from recsys.errors import InputError
from recsys.schema import user_schema

FOLDER = "users"


def write_users(writer: CheckedWriter, parts: Iterable[pa.Table], *, num_features: int) -> None:
    """Writes the users' features into a bundle.

    Args:
        writer: Of the bundle.
        parts: Of `user_schema` with features and without groups, each user in one of them; one at
            a time is in memory.
        num_features: J.
    """
    # The empty table says of what types the arrays are where there is no part.
    tables = chain([user_schema((), features=True).empty_table()], parts)
    write_parts(writer, FOLDER, (_arrays(table, num_features) for table in tables))


def read_users(files: CheckedReader, *, num_features: int) -> UserRows:
    """Every user's features, mapped.

    Raises:
        InputError: A file is not what was written, or they do not fit together.
    """
    arrays = read_arrays(files, FOLDER, (*ID_NAMES, "rows"))
    rows, num_users = arrays["rows"], len(arrays["id_ends"]) - 1
    if rows.shape != (num_users, num_features):
        raise InputError(
            f"{files.path(FOLDER)}: {num_users} users of {num_features} features, but rows of "
            f"{rows.shape}; publish again"
        )
    users = UserRows(ids_of(arrays).array, rows)
    users.index()  # now, so that no request waits for it
    return users


def _arrays(part: pa.Table, num_features: int) -> dict[str, Array]:
    """What is written of a part, by name."""
    rows = rows_of(part).reshape(-1, num_features).astype(np.int32)
    return {**id_arrays(part.column("user_id")), "rows": rows}
