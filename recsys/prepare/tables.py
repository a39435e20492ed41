"""Checking the user's own Parquet before anything runs on it: paths, columns, types.

Files of one table may differ in type as their writers do: whole numbers of any width, floats and
decimals; text of any kind and categories of it; timestamps of any unit; a column without any value.
Where the values themselves differ in kind (text in one file, numbers in another) they are refused.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.data import DataConfig
from recsys.data.folders import HIDDEN_ROWS, PARQUET, address_of, find_files
from recsys.data.storage import exists, is_uri, join, open_input
from recsys.data.values import all_missing, family, inner_type, is_list, plain
from recsys.errors import InputError
from recsys.prepare.times import EventTimes, TimeSample, find_times

_SAMPLED_TIMES = 4096
_TABLE_LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi"}


@dataclass(frozen=True)
class Kind:
    """What a column may hold."""

    allowed: str
    """For people."""
    families: frozenset[str]
    lists: str = "no"
    """Whether its values are lists: `no`, `may` or `must`."""
    mixed: bool = False
    """Whether files of different families can be taken together."""

    def takes(self, kind: pa.DataType) -> bool:
        """Whether a column of this Arrow type may be read as this kind."""
        in_lists = is_list(kind)
        if in_lists and self.lists == "no" or not in_lists and self.lists == "must":
            return family(kind) == "missing"
        return _family(kind) in {*self.families, "missing"}


def _kind(allowed: str, *families: str, lists: str = "no", mixed: bool = False) -> Kind:
    return Kind(allowed, frozenset(families), lists, mixed)


ID = _kind("text or an integer", "text", "number")
CONTEXT = _kind("text, an integer or true/false", "text", "number", "truth")
LABEL = _kind("text or a number", "text", "number", "truth")
TIME = _kind("an integer, a double or a timestamp", "number", "timestamp")
FLAG = _kind("0/1 or true/false", "number", "truth", mixed=True)
NUMBER = _kind("a number", "number")
TEXT = _kind("text", "text")
TAGS = _kind("text or a list", "text", "number", "truth", lists="may")
VECTOR = _kind("a list of numbers", "number", lists="must")


class Role(NamedTuple):
    """A column that a setting names, and what it may hold."""

    column: str
    setting: str
    kind: Kind


class TableFile(NamedTuple):
    """A file of a table, and how many rows each of its row groups holds."""

    path: str
    group_rows: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """How many rows the file holds."""
        return sum(self.group_rows)


def parquet_files(spec: str, setting: str) -> list[str]:
    """The Parquet files of a path, glob, folder or URI, as `recsys.data.folders` walks.

    Raises:
        InputError: There are none, or not all of them are meant.
    """
    for log, kind in _TABLE_LOGS.items():
        if exists(join(spec, log)):
            raise InputError(
                f"{setting}={spec}: this is a {kind} table, and its folder holds the rows of older "
                "versions too; write the rows that count into plain Parquet"
            )
    files = find_files(spec, f"{setting}={spec}", hidden=HIDDEN_ROWS, endings=PARQUET)
    if not files:
        raise InputError(
            f"{setting}={spec}: no Parquet file is there; give a file, a glob, or a folder of "
            f"files that end in {' or '.join(PARQUET)}"
        )
    return files


@contextlib.contextmanager
def open_table(path: str, setting: str) -> Iterator[pq.ParquetFile]:
    """Opens one Parquet file, and turns what Parquet says of a broken one into an `InputError`."""
    with open_input(path) as file:
        try:
            # Spark's old times of 12 bytes would wrap around as nanoseconds.
            yield pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
        except (pa.ArrowException, OSError) as error:
            message = str(error).splitlines()[0]
            raise InputError(f"{setting}={path}: not a Parquet file ({message})") from None


def event_roles(data: DataConfig) -> list[Role]:
    """Every event column that the run reads; one column may have two roles."""
    columns = data.columns
    roles = [
        Role(columns.user, "data.columns.user", ID),
        Role(columns.video, "data.columns.video", ID),
        Role(columns.time, "data.columns.time", TIME),
        *(Role(name, "data.columns.tasks", FLAG) for name in columns.tasks),
        *(Role(name, "data.columns.context", CONTEXT) for name in columns.context),
    ]
    if columns.positive is not None:
        roles.insert(3, Role(columns.positive, "data.columns.positive", FLAG))
    if columns.watched is not None:
        roles.append(Role(columns.watched, "data.columns.watched", NUMBER))
    return roles


def column_names(roles: Iterable[Role]) -> list[str]:
    """The columns of roles, each once."""
    return list(dict.fromkeys(role.column for role in roles))


def check_table(paths: Sequence[str], setting: str, roles: Sequence[Role]) -> list[TableFile]:
    """Checks that all files of a table have the columns, of types that go together.

    Returns:
        The files that hold any rows.

    Raises:
        InputError: A file, column or type is wrong.
    """
    files, schemas = [], {}
    for path in paths:
        with open_table(path, setting) as table:
            _require_columns(table.schema_arrow, roles, path)
            groups = range(table.metadata.num_row_groups)
            rows = tuple(table.metadata.row_group(group).num_rows for group in groups)
            if sum(rows):  # the types of a file without rows say nothing
                files.append(TableFile(path, rows))
                schemas[path] = table.schema_arrow
    for role in roles:
        _check_types(role, {path: s.field(role.column).type for path, s in schemas.items()})
    return files


def _require_columns(schema: pa.Schema, roles: Iterable[Role], path: str) -> None:
    for column, setting, _ in roles:
        count = schema.names.count(column)
        if count > 1:
            raise InputError(
                f"{path}: there are {count} columns {column!r} ({setting}); rename or drop all but "
                "one"
            )
        if not count:
            folder = next((part for part in path.split("/") if part.startswith(f"{column}=")), None)
            raise InputError(
                f"{path}: there is no column {column!r} ({setting}); it has "
                f"{', '.join(schema.names)}; "
                + (
                    f"the folder's name {folder!r} is not read as one, write it into the files"
                    if folder
                    else f"set {setting} to one of them"
                )
            )


def _check_types(role: Role, types: dict[str, pa.DataType]) -> None:
    """Checks one column's type in all files."""
    first: dict[str, str] = {}  # each family's first file
    # Floats last: a column of NaN alone is a float whatever it would hold, and looked at only here.
    for path in sorted(types, key=lambda path: pa.types.is_floating(inner_type(types[path]))):
        kind = types[path]
        its_family = _family(kind)
        fits = role.kind.takes(kind) and not (role.kind is TIME and _is_coarse(kind))
        alike = role.kind.mixed or its_family == "missing" or {*first} <= {its_family}
        if fits and alike:
            if its_family != "missing":
                first.setdefault(its_family, path)
            continue
        if pa.types.is_floating(kind) and _all_missing(path, role):
            continue
        if not fits:
            raise InputError(
                f"{path}: column {role.column!r} is {kind}; allowed is {role.kind.allowed}; "
                "convert it"
            )
        other = next(iter(first.values()))
        raise InputError(
            f"{path}: column {role.column!r} is {kind}, and {types[other]} in {other}; give it the "
            "same type in all files"
        )


def _family(kind: pa.DataType) -> str:
    return family(kind.value_type if is_list(kind) else kind)


def _is_coarse(kind: pa.DataType) -> bool:
    """Whether a type holds no time of our days to the second."""
    kind = inner_type(kind)
    return bool(pa.types.is_float32(kind) or pa.types.is_float16(kind))


def _all_missing(path: str, role: Role) -> bool:
    with open_table(path, role.setting) as table:
        return all_missing(table.read(columns=[role.column]).column(0), role.column)


def check_events(data: DataConfig) -> tuple[list[TableFile], EventTimes]:
    """Checks every event file's columns and types, and how their times are read.

    Raises:
        InputError: A file, column or type is wrong, or there are no rows at all.
    """
    paths = parquet_files(data.events, "data.events")
    files = check_table(paths, "data.events", event_roles(data))
    if not files:
        raise InputError(f"data.events={data.events}: there are no events in it")
    column, setting = data.columns.time, f"data.events={data.events}"
    samples = [_sample_times(file, column) for file in files]
    return files, find_times(samples, data.time_unit, setting)


def check_showings(path: str, data: DataConfig) -> list[TableFile]:
    """Checks the copy of the event log, whose ids and times may be of other types than the events'.

    Returns:
        The file, or nothing where it has no rows.

    Raises:
        InputError: It is not there, or not of these columns.
    """
    if not exists(path):
        raise InputError(f"{path}: the copy of data.live is not there; run `recsys prepare`")
    return check_table([path], "data.live", event_roles(data))


def _sample_times(file: TableFile, column: str) -> TimeSample:
    """Times of the middle of a file: where rows are sorted by time, wild ones lie at its ends."""
    with open_table(file.path, "data.events") as table:
        group = int(np.argmax(np.cumsum(file.group_rows) > file.num_rows // 2))
        array = plain(table.read_row_group(group, columns=[column]).column(0), column)
    unit = array.type.unit if pa.types.is_timestamp(array.type) else None
    numbers = (array.cast(pa.int64()) if unit else array).drop_null().cast(pa.float64(), safe=False)
    values = np.asarray(numbers)
    picked = values[np.linspace(0, len(values) - 1, min(len(values), _SAMPLED_TIMES)).astype(int)]
    return TimeSample(file.path, unit, picked, file.num_rows)


def absolute_uri(uri: str | None, table_path: str) -> str | None:
    """A video's address; a relative path is meant from the folder of the table that names it.

    >>> absolute_uri("a.mp4", "s3://bucket/videos.parquet")
    's3://bucket/a.mp4'
    """
    if not uri:
        return None
    if is_uri(uri) or posixpath.isabs(uri):
        return uri
    return address_of(posixpath.join(posixpath.dirname(table_path), uri))
