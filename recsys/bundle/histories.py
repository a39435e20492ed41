"""The histories in a bundle: each user's last events, in arrays that a machine's servers share.

    histories/ids.npy, id_ends.npy          the users' ids as UTF-8, and where each begins and ends
    histories/ends.npy                      where each user's events begin and end
    histories/<name>.npy                    of each of `EVENT_ARRAYS`
    histories/older.npy, older_ends.npy     what each user liked before these events, sorted rows

They are mapped: what no request asks for takes no memory of a server's own. Writing goes through
temporary files, since how long the arrays are is known at the end.

Shapes: U users, E events.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.config.data import EventColumns
from recsys.data.places import Ids
from recsys.data.ragged import Ragged
from recsys.errors import InputError
from recsys.features.timelines import Timelines
from recsys.schema import OLDER_LIKED, history_schema

FOLDER = "histories"
EVENT_ARRAYS = (
    *("video_rows", "time_ms", "positive", "labels", "watched", "context_rows", "split"),
    "count_features",
)
"""Fields of `Timelines`, (E,) or (E, …) each."""
ENDS = ("ends", "id_ends", "older_ends")
"""(U + 1,) each, rising from 0."""
BLOCK = 1 << 22
"""Bytes of a temporary file that are in memory at once."""

Array = npt.NDArray[Any]


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
    with tempfile.TemporaryDirectory(prefix="recsys-histories-") as folder:
        spools: dict[str, _Spool] = {}
        # The empty table says of what types the arrays are where there is no part.
        for part in chain([history_schema().empty_table()], parts):
            for name, array in _arrays(part, columns, num_count_features).items():
                if name not in spools:
                    spools[name] = _Spool(Path(folder, name), array)
                elif name in ENDS:
                    spools[name].append(array[1:] + spools[name].last)
                else:
                    spools[name].append(array)
        for name, spool in spools.items():
            writer.write_array(f"{FOLDER}/{name}.npy", spool.pieces(), shape=spool.shape)


def read_histories(files: CheckedReader) -> tuple[Timelines, Ragged]:
    """The last events of each user, and what each liked before them, mapped.

    Raises:
        InputError: A file is not what was written, or they do not fit together.
    """
    names = (*ENDS, *EVENT_ARRAYS, "ids", "older")
    arrays = {name: files.array(f"{FOLDER}/{name}.npy") for name in names}
    num_users, num_events = len(arrays["ends"]) - 1, arrays["ends"][-1]
    fit = all(len(arrays[name]) == num_users + 1 for name in ENDS)
    if not fit or any(len(arrays[name]) != num_events for name in EVENT_ARRAYS):
        raise InputError(f"{files.path(FOLDER)}: its arrays are not of one length; publish again")
    buffers = [None, pa.py_buffer(arrays["id_ends"]), pa.py_buffer(arrays["ids"])]
    timelines = Timelines(
        user_ids=Ids(pa.Array.from_buffers(pa.large_string(), num_users, buffers)),
        offsets=arrays["ends"],
        user_rows=np.zeros((num_users, 0), np.int64),
        **{name: arrays[name] for name in EVENT_ARRAYS},
    )
    return timelines, Ragged(arrays["older_ends"], arrays["older"])


def _arrays(part: pa.Table, columns: EventColumns, num_count_features: int) -> dict[str, Array]:
    """What is written of a part, by name; those of `ENDS` begin with 0."""
    events = Timelines.from_histories(part, columns, num_count_features=num_count_features)
    older = Ragged.from_arrow(part.column(OLDER_LIKED))
    ids, id_ends = _text(Ids(part.column("user_id")).array)
    ends = {"ends": events.offsets, "id_ends": id_ends, "older_ends": older.offsets}
    of_events = {name: getattr(events, name) for name in EVENT_ARRAYS}
    return ends | of_events | {"ids": ids, "older": older.values}


def _text(ids: pa.LargeStringArray) -> tuple[Array, Array]:
    """All bytes (uint8), and where each id begins and ends (int64)."""
    if not len(ids):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, ends, text = ids.buffers()
    bounds = np.frombuffer(ends, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    first, last = bounds[[0, -1]].tolist()
    return np.frombuffer(text, np.uint8)[first:last], bounds - first


class _Spool:
    """An array in a temporary file, to which others are appended."""

    def __init__(self, path: Path, first: Array) -> None:
        self._path, self._dtype, self._row = path, first.dtype, first.shape[1:]
        self._num_rows, self.last = 0, 0
        self.append(first)

    def append(self, array: Array) -> None:
        """Adds rows."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(array, self._dtype).data)
        self._num_rows += len(array)
        if array.ndim == 1 and len(array):
            self.last = array[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""
        return self._num_rows, *self._row

    def pieces(self) -> Iterator[Array]:
        """All rows, some at a time; at least one piece."""
        width = math.prod(self._row)
        if not width * self._num_rows:
            yield np.zeros(self.shape, self._dtype)
            return
        step = max(1, BLOCK // (width * self._dtype.itemsize)) * width
        with self._path.open("rb") as file:
            while len(piece := np.fromfile(file, self._dtype, step)):
                yield piece.reshape(-1, *self._row)
