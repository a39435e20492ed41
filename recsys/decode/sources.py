"""Where videos lie: what a folder, a glob or a table names, and opening an address."""

from __future__ import annotations

import hashlib
import os
import re
from typing import IO
from urllib.parse import unquote_to_bytes, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data import storage
from recsys.data.folders import HIDDEN_ROWS, PARQUET, address_of, find_files
from recsys.data.values import as_labels, family
from recsys.decode.contract import ReadError, VideoFile
from recsys.decode.files import LocalFile, RemoteFile
from recsys.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HASH_STEP_BYTES = 4 * 2**20
_MAX_REMOTE_HASH_BYTES = 64 * 2**20


def find_videos(spec: str, *, column: str = "uri") -> list[str]:
    """The videos that a folder, a glob or a Parquet table names, without repeats.

    Args:
        spec: A folder, a glob, one file, or a Parquet file or folder with a column of addresses;
            local or an fsspec address, walked as `recsys.data.folders` says.
        column: The column of addresses in a Parquet table.

    Returns:
        The files of a folder or glob in the order of their names, those of a table in its order;
        a file of this machine whose name is not UTF-8 as a file URI.

    Raises:
        InputError: Nothing is there, or the table has no such column.
    """
    tables = find_files(spec, f"--videos {spec}", hidden=HIDDEN_ROWS)
    if tables and all(name.lower().endswith(PARQUET) for name in tables):
        return _from_tables(spec, tables, column)
    files = find_files(spec, f"--videos {spec}")
    if not files:
        hint = "give a folder of videos, a glob or a Parquet table"
        raise InputError(f"--videos {spec}: no files there; {hint}")
    return [address_of(name) for name in files]


def _from_tables(spec: str, tables: list[str], column: str) -> list[str]:
    videos: dict[str, None] = {}
    for path in tables:
        with storage.open_input(path) as file:
            videos.update(dict.fromkeys(_addresses(spec, file, column)))
    if not videos:
        raise InputError(f"--videos {spec}: column {column!r} names no video")
    return list(videos)


def _addresses(spec: str, file: IO[bytes], column: str) -> list[str]:
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"--videos {spec}: not a Parquet table ({said})") from None
    names = table.schema_arrow.names
    if names.count(column) != 1:
        wrong = "more than one" if column in names else "no"
        raise InputError(f"--videos {spec}: {wrong} column {column!r}; it has {', '.join(names)}")
    values = table.read(columns=[column]).column(0)
    if family(values.type) not in ("text", "missing"):
        raise InputError(f"--videos {spec}: column {column!r} is {values.type}, not text")
    addresses: list[str] = as_labels(values, column).drop_null().to_pylist()
    return addresses


def open_source(
    uri: str, *, schemes: tuple[str, ...], base: str, max_bytes: int, timeout_s: float
) -> LocalFile | RemoteFile:
    """Opens a video's address.

    Args:
        uri: A path or address.
        schemes: The kinds of address that may be read; `file` are local paths.
        base: Folder that relative paths start from.
        max_bytes: A larger file is refused.
        timeout_s: Longest wait for one answer of a server.

    Raises:
        ReadError: The address is of another kind (`unsupported_source`), names nothing (`missing`),
            cannot be reached (`unreachable`), or a server's file is too large.
    """
    scheme = scheme_of(uri)
    if scheme not in schemes:
        allowed = ", ".join(schemes)
        raise ReadError("unsupported_source", f"{scheme}:// is not read; decode.schemes: {allowed}")
    if scheme == "file":
        return LocalFile(local_path(uri, base))
    return RemoteFile(uri, scheme=scheme, max_bytes=max_bytes, timeout_s=timeout_s)


def check_size(file: VideoFile, max_bytes: int) -> None:
    """Raises `ReadError` where a file is empty or too large."""
    if file.size == 0:
        raise ReadError("empty", "the file has no bytes")
    if file.size > max_bytes:
        raise ReadError("too_many_bytes", f"{file.size} bytes are over {max_bytes=}")


def scheme_of(uri: str) -> str:
    """The kind of an address; `file` for a path.

    >>> scheme_of("S3://bucket/a.mp4"), scheme_of("videos/a.mp4")
    ('s3', 'file')
    """
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else "file"


def local_path(uri: str, base: str) -> str:
    """The path of a local file's address; relative ones start from `base`.

    Raises:
        ReadError: It lies on another machine.
    """
    if not _SCHEME.match(uri):
        return os.path.join(base, uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ReadError("unsupported_source", f"file://{parts.netloc} is another machine")
    return os.fsdecode(unquote_to_bytes(parts.path))


def sha256_of(file: VideoFile, *, max_bytes: int) -> str | None:
    """The sha256 of a file's bytes.

    None where it is larger than `max_bytes`, or lies behind an address and is larger than 64 MiB,
    or cannot be read.
    """
    if file.size > (max_bytes if file.path else min(max_bytes, _MAX_REMOTE_HASH_BYTES)):
        return None
    digest, offset = hashlib.sha256(), 0
    try:
        while data := file.read_at(offset, _HASH_STEP_BYTES):
            digest.update(data)
            offset += len(data)
    except (OSError, ReadError):
        return None
    return digest.hexdigest()
