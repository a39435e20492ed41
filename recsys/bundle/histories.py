"""The histories in a bundle: each user's last events, in arrays that a machine's servers share.

    histories/ids.npy, id_ends.npy          the users' ids, as `bundle/spooled.py` says
    histories/ends.npy                      where each user's events begin and end
    histories/<name>.npy                    of each of `EVENT_FIELDS`
    histories/older.npy, older_ends.npy     what each user liked before these events, sorted rows

Shapes: U users, E events.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pyarrow as pa

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.bundle.spooled import ID_NAMES, Array, id_arrays, ids_of, read_arrays, write_parts
from recsys.config.data import EventColumns
from recsys.data.ragged import Ragged
from recsys.errors import InputError
from recsys.features.timelines import EVENT_FIELDS, Timelines
from recsys.schema import OLDER_LIKED, history_schema

FOLDER = "histories"
ENDS = ("ends", "id_ends", "older_ends")
"""(U + 1,) each, rising from 0."""


def write_histories(
    writer: CheckedWriter,
    parts: Iterable[pa.Table],
    columns: EventColumns,
    *,
    num_count_features: int,
) -> None:
    """Writes the histories into a bundle.

    Args:
        writer: Of the bundle.
        parts: Of `history_schema`, each user in one of them; one at a time is in memory.
        columns: Of the run.
        num_count_features: Of an event.
    """
    # The empty table says of what types the arrays are where there is no part.
    tables = chain([history_schema().empty_table()], parts)
    arrays = (_arrays(table, columns, num_count_features) for table in tables)
    write_parts(writer, FOLDER, arrays)


def read_histories(files: CheckedReader) -> tuple[Timelines, Ragged]:
    """The last events of each user, and what each liked before them, mapped.

    Raises:
        InputError: A file is not what was written, or they do not fit together.
    """
    names = (*EVENT_FIELDS, *ID_NAMES, "ends", "older", "older_ends")
    arrays = read_arrays(files, FOLDER, names)
    num_users, num_events = len(arrays["ends"]) - 1, arrays["ends"][-1]
    fit = all(len(arrays[name]) == num_users + 1 for name in ENDS)
    if not fit or any(len(arrays[name]) != num_events for name in EVENT_FIELDS):
        raise InputError(f"{files.path(FOLDER)}: its arrays are not of one length; publish again")
    timelines = Timelines(
        user_ids=ids_of(arrays),
        offsets=arrays["ends"],
        user_rows=np.zeros((num_users, 0), np.int64),
        **{name: arrays[name] for name in EVENT_FIELDS},
    )
    return timelines, Ragged(arrays["older_ends"], arrays["older"])


def _arrays(part: pa.Table, columns: EventColumns, num_count_features: int) -> dict[str, Array]:
    """What is written of a part, by name; those of `ENDS` begin with 0."""
    events = Timelines.from_histories(part, columns, num_count_features=num_count_features)
    older = Ragged.from_arrow(part.column(OLDER_LIKED))
    of_events = {name: getattr(events, name) for name in EVENT_FIELDS}
    of_users = {"ends": events.offsets, "older_ends": older.offsets, "older": older.values}
    return {**id_arrays(part.column("user_id")), **of_users, **of_events}
