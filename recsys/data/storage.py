"""Reading and writing files at a path or URI, and never leaving half a file behind."""

from __future__ import annotations

import contextlib
import json
import math
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from recsys.errors import InputError

_WHOLE_ADDRESS = re.compile(r"(%[0-9A-Fa-f]{2}|[!#$&-;=?-Z\[\]_a-z~])*")
"""All that RFC 3986 lets an address hold."""


def join(folder: str, *parts: str) -> str:
    """Path or URI of something inside a folder.

    >>> join("s3://bucket/run", "prepare", "videos.parquet")
    's3://bucket/run/prepare/videos.parquet'
    """
    return posixpath.join(folder, *parts)


def is_uri(path: str) -> bool:
    """Whether a path names a filesystem other than this machine's."""
    return "://" in path


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URI, and the path on it.

    A path of this machine is taken as it stands: fsspec would read `a::b` as a chain.
    """
    if not is_uri(path):
        return LocalFileSystem(), LocalFileSystem._strip_protocol(path)
    try:
        return fsspec.core.url_to_fs(path, **address_options(path))
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: cannot open this kind of address ({error})") from None


def address_options(uri: str) -> dict[str, Any]:
    """What fsspec's filesystem of an address is made with.

    A web address is asked for byte for byte as it is given, for servers and signatures may tell
    `%2F` from `/`; only one with characters that no address may have is encoded first.

    >>> address_options("https://host/a%2Fb?sig=%7E1"), address_options("http://host/a b.mp4")
    ({'encoded': True}, {})
    """
    is_web = uri.lower().startswith(("http://", "https://"))
    return {"encoded": True} if is_web and _WHOLE_ADDRESS.fullmatch(uri) else {}


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


@contextlib.contextmanager
def local_folder(path: str) -> Iterator[str]:
    """A local folder with the files of one at a path or URI: the very one, or a copy."""
    fs, inner = filesystem(path)
    if not is_uri(path):
        yield inner
        return
    with tempfile.TemporaryDirectory() as folder:
        fs.get(f"{inner}/", f"{folder}/", recursive=True)
        yield folder


def open_input(path: str) -> Any:
    """Opens a file for reading bytes."""
    fs, inner = filesystem(path)
    try:
        return fs.open(inner, "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None


@contextlib.contextmanager
def replace_file(path: str) -> Iterator[Any]:
    """Opens a file for writing bytes that takes its place only when it is whole and on disk.

    An object store gets it once it is whole; on a disk it is written aside, synced and renamed.
    """
    fs, inner = filesystem(path)
    if is_uri(path) and not path.startswith("file://"):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with fs.open(inner, "wb") as target:
                shutil.copyfileobj(file, target)
        return
    os.makedirs(os.path.dirname(os.path.abspath(inner)), exist_ok=True)
    aside = f"{inner}.{uuid.uuid4().hex}.tmp"
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, inner)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def write_table(table: pa.Table, path: str) -> None:
    """Writes a Parquet file."""
    with replace_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_json(path: str) -> Any:
    """Reads a JSON file; None where there is none.

    Raises:
        InputError: It is not JSON.
    """
    if not exists(path):
        return None
    with open_input(path) as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise InputError(f"{path}: not valid JSON ({error}); delete the file") from None


def write_json(value: Any, path: str) -> None:
    """Writes a JSON file, indented for people; what is no number (NaN, infinity) becomes null."""
    with replace_file(path) as file:
        file.write(json.dumps(_finite(value), indent=2, allow_nan=False).encode() + b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(text: str, path: str) -> None:
    """Writes a text file."""
    with replace_file(path) as file:
        file.write(text.encode())


def remove(path: str) -> None:
    """Removes a file or folder, if it is there."""
    fs, inner = filesystem(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


def list_files(folder: str, ending: str) -> list[str]:
    """The files of a folder with an ending, in the order of their names, as `folder` was given."""
    fs, inner = filesystem(folder)
    if not fs.exists(inner):
        return []
    names = [posixpath.basename(path) for path in fs.ls(inner, detail=False)]
    return [join(folder, name) for name in sorted(names) if name.endswith(ending)]
