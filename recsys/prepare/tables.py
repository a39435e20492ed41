"""Checking the user's own Parquet before anything runs on it: paths, columns, types, values."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from recsys.config.data import DataConfig, SplitConfig
from recsys.data.storage import filesystem, is_uri, open_input
from recsys.errors import InputError

ID = "text or an integer"
LONGEST = 1e15
UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}


def parquet_files(spec: str, setting: str) -> list[str]:
    """The Parquet files of a path, glob, folder or URI.

    Raises:
        InputError: There are none.
    """
    fs, inner = filesystem(spec)
    if any(mark in inner for mark in "*?["):
        found = sorted(fs.glob(inner))
    elif fs.isdir(inner):
        found = sorted(path for path in fs.find(inner) if path.endswith((".parquet", ".pq")))
    else:
        found = [inner] if fs.exists(inner) else []
    if not found:
        raise InputError(f"{setting}={spec}: no Parquet file is there; give a file, folder or glob")
    return [fs.unstrip_protocol(path) if is_uri(spec) else path for path in found]


def read_schema(path: str, setting: str) -> pa.Schema:
    """The schema of one Parquet file, or an `InputError` when it is none."""
    with open_input(path) as file:
        try:
            return pq.read_schema(file)
        except (pa.ArrowInvalid, OSError) as error:
            message = str(error).splitlines()[0]
            raise InputError(f"{setting}={path}: not a Parquet file ({message})") from None


def require_columns(schema: pa.Schema, wanted: dict[str, str], path: str) -> None:
    """Checks that columns exist; `wanted` maps the column's name to the setting that names it."""
    for name, setting in wanted.items():
        if name not in schema.names:
            raise InputError(
                f"{path}: there is no column {name!r} ({setting}); it has "
                f"{', '.join(schema.names)}; set {setting} to one of them"
            )


def event_columns(data: DataConfig) -> dict[str, str]:
    """Every event column that the run reads, with the setting that names it."""
    columns = data.columns
    wanted = {
        columns.user: "data.columns.user",
        columns.video: "data.columns.video",
        columns.time: "data.columns.time",
    }
    if columns.positive is not None:
        wanted.setdefault(columns.positive, "data.columns.positive")
    for name in columns.tasks:
        wanted.setdefault(name, "data.columns.tasks")
    if columns.watched is not None:
        wanted.setdefault(columns.watched, "data.columns.watched")
    for name in columns.context:
        wanted.setdefault(name, "data.columns.context")
    return wanted


def check_events(data: DataConfig, files: list[str]) -> tuple[list[str], str]:
    """Checks every event file's columns and types.

    Returns:
        The files that hold any rows, and the unit of the times.

    Raises:
        InputError: A file, column or type is wrong, or there are no rows at all.
    """
    found: list[str] = []
    first: pa.Schema | None = None
    for path in files:
        schema = read_schema(path, "data.events")
        require_columns(schema, event_columns(data), path)
        with open_input(path) as file:
            if not pq.read_metadata(file).num_rows:
                continue
        _check_types(data, schema, path)
        first = first or schema
        found.append(path)
        for column in event_columns(data):
            kind, other = schema.field(column).type, first.field(column).type
            if kind != other:
                raise InputError(
                    f"{path}: column {column!r} is {kind}, and {other} in {found[0]}; give it the "
                    "same type in all files"
                )
    if not found:
        raise InputError(f"data.events={data.events}: there are no events in it")
    return found, time_unit(data, found)


def to_native_time(value: int | datetime, unit: str) -> int:
    """A split's cut as an integer in `unit` (`s`, `ms`, `us` or `ns`); a naive date is UTC.

    >>> to_native_time(datetime(1970, 1, 2), "ms")
    86400000
    """
    if isinstance(value, int):
        return value
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit])


def cuts_ms(split: SplitConfig, unit: str) -> tuple[float, float] | None:
    """When validation and test begin, in milliseconds; None for leave-one-out.

    Raises:
        InputError: The test begins first.
    """
    if split.valid_from is None or split.test_from is None:
        return None
    valid, test = (
        to_native_time(value, unit) * UNITS_MS[unit]
        for value in (split.valid_from, split.test_from)
    )
    if valid >= test:
        raise InputError(
            f"split.valid_from={split.valid_from} is not before split.test_from={split.test_from}; "
            "the validation events come before the test events"
        )
    return valid, test


def _check_types(data: DataConfig, schema: pa.Schema, path: str) -> None:
    columns = data.columns
    for column in (columns.user, columns.video, *columns.context):
        require_type(schema, column, is_id, ID, path)
    require_type(schema, columns.time, _is_time, "an integer or a timestamp", path)
    flags = (columns.positive, *columns.tasks)
    for flag in dict.fromkeys(name for name in flags if name is not None):
        require_type(schema, flag, _is_flag, "0/1 or true/false", path)
    if columns.watched is not None:
        require_type(schema, columns.watched, is_number, "a number", path)


def time_unit(data: DataConfig, files: list[str]) -> str:
    """The unit of the event times: the column's own, the setting's, or told from their size."""
    schema = read_schema(files[0], "data.events")
    kind = schema.field(data.columns.time).type
    if pa.types.is_timestamp(kind):
        return str(kind.unit)
    if data.time_unit != "auto":
        return data.time_unit
    largest = 0
    for path in files:
        with open_input(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(1 << 16, columns=[data.columns.time]):
                largest = max(largest, pc.max(batch.column(0)).as_py() or 0)
                break
    return guess_unit(largest)


def guess_unit(largest: int) -> str:
    """Unit of an epoch time, told from its size (good for times after 1973).

    >>> guess_unit(1_651_507_200), guess_unit(1_651_507_200_000)
    ('s', 'ms')
    """
    for unit, below in (("s", 10**11), ("ms", 10**14), ("us", 10**17)):
        if largest < below:
            return unit
    return "ns"


def require_type(
    schema: pa.Schema, column: str, check: Callable[[pa.DataType], bool], allowed: str, path: str
) -> None:
    """Checks a column's type.

    Raises:
        InputError: It is another, with what is `allowed`.
    """
    kind = schema.field(column).type
    if not check(kind):
        raise InputError(f"{path}: column {column!r} is {kind}; allowed is {allowed}; convert it")


def is_id(kind: pa.DataType) -> bool:
    """Whether a type can hold ids."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_text(inner) or bool(pa.types.is_integer(inner))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is a number."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_label(kind: pa.DataType) -> bool:
    """Whether a type can name a group, a creator or a category: anything but a time or bytes."""
    return is_id(kind) or is_number(kind) or bool(pa.types.is_boolean(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind))


def _is_flag(kind: pa.DataType) -> bool:
    return is_number(kind) or bool(pa.types.is_boolean(kind))


def as_ids(column: pa.ChunkedArray) -> pa.Array:
    """Ids as text; whatever integer or text type they had (a whole float is written as one)."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type) and bool(pc.all(pc.equal(pc.floor(array), array)).as_py()):
        array = array.cast(pa.int64())
    return array.cast(pa.string())


def as_time_ms(column: pa.ChunkedArray, unit: str) -> npt.NDArray[np.int64]:
    """Times without missing values, as milliseconds since 1970."""
    array = column.combine_chunks()
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    values = np.asarray(array, dtype=np.int64)
    return values * 1000 if unit == "s" else values // round(1 / UNITS_MS[unit])


def as_flags(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int8]:
    """0/1 values; a missing one is 0.

    Raises:
        InputError: There is another value.
    """
    array = column.combine_chunks().cast(pa.float64()).fill_null(0)
    values = np.asarray(array)
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        raise InputError(f"column {name!r} holds {wrong[0]:g}; allowed are 0 and 1; convert it")
    return values.astype(np.int8)


def as_durations(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float32]:
    """Numbers from 0 on; a missing one is 0.

    Raises:
        InputError: There is a negative or infinite one.
    """
    values = np.asarray(column.combine_chunks().cast(pa.float64()).fill_null(0))
    values = np.where(np.isnan(values), 0, values)
    wrong = values[(values < 0) | (values > LONGEST)]
    if len(wrong):
        raise InputError(
            f"column {name!r} holds {wrong[0]:g}; allowed are 0 to {LONGEST:g}; correct it"
        )
    return values.astype(np.float32)


def absolute_uri(uri: str | None, table_path: str) -> str | None:
    """A video's address; a relative path is meant from the folder of the table that names it.

    >>> absolute_uri("a.mp4", "s3://bucket/videos.parquet")
    's3://bucket/a.mp4'
    """
    if not uri:
        return None
    if is_uri(uri) or posixpath.isabs(uri):
        return uri
    return posixpath.join(posixpath.dirname(table_path), uri)
