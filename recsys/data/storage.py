"""Reading and writing files at a path or URI, and never leaving half a file behind."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Container, Iterator, Mapping
from typing import IO, Any
from urllib.parse import quote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from recsys.errors import InputError

_WHOLE_ADDRESS = re.compile(r"(%[0-9A-Fa-f]{2}|[!#$&-;=?-Z\[\]_a-z~])*")
"""All that RFC 3986 lets an address hold."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a disk says in the middle of a file."""


def join(folder: str, *parts: str) -> str:
    """Path or URI of something inside a folder.

    >>> join("s3://bucket/run", "prepare", "videos.parquet")
    's3://bucket/run/prepare/videos.parquet'
    """
    return posixpath.join(folder, *parts)


def is_uri(path: str) -> bool:
    """Whether a path names a filesystem other than this machine's."""
    return "://" in path


def filesystem(path: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of a path or URI, and the path on it.

    A name is a name: `::` chains nothing here. But fsspec's put, get, rm and glob take `*`, `?` and
    `[` in a path for a pattern; the functions of this module do not.

    Raises:
        InputError: No such filesystem is known, or what reads it is not installed.
    """
    if not is_uri(path):
        return LocalFileSystem(), os.path.abspath(path)
    try:
        kind = fsspec.get_filesystem_class(path.partition("://")[0])
        options = kind._get_kwargs_from_urls(path) | address_options(path)
        return kind(**options), str(kind._strip_protocol(path))
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: cannot open this kind of address ({error})") from None


def address_options(uri: str) -> dict[str, bool]:
    """What fsspec's filesystem of an address is made with.

    A web address is asked for byte for byte as it is given, for servers and signatures may tell
    `%2F` from `/`; only one with characters that no address may have is encoded first.

    >>> address_options("https://host/a%2Fb?sig=%7E1"), address_options("http://host/a b.mp4")
    ({'encoded': True}, {})
    """
    is_web = uri.lower().startswith(("http://", "https://"))
    return {"encoded": True} if is_web and _WHOLE_ADDRESS.fullmatch(uri) else {}


def as_url(path: str) -> str:
    """A path as it is, or a URI with its name escaped as libraries that parse URLs want it.

    Arrow (in Ray) and Lance take what follows `?` or `#` for options, and `%20` for a space.

    >>> as_url("/runs/a #1"), as_url("s3://bucket/a #1")
    ('/runs/a #1', 's3://bucket/a%20%231')
    """
    scheme, sign, name = path.partition("://")
    return f"{scheme}://{quote(name)}" if sign else path


def local_path(path: str) -> str | None:
    """Where on this machine a path or `file://` URI is; None for other filesystems."""
    fs, inner = filesystem(path)
    return inner if isinstance(fs, LocalFileSystem) else None


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    fs, inner = filesystem(path)
    with _told_plainly(path, "read"):
        return bool(fs.exists(inner))


@contextlib.contextmanager
def local_folder(path: str) -> Iterator[str]:
    """A local folder with the files of one at a path or URI: the very one, or a copy."""
    local = local_path(path)
    if local is not None:
        yield local
        return
    fs, inner = filesystem(path)
    with tempfile.TemporaryDirectory() as folder:
        for name in fs.find(inner):
            target = os.path.join(folder, name.removeprefix(inner).lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            fs.get_file(name, target)
        yield folder


def copy_folder(folder: str, path: str) -> None:
    """Copies what a local folder holds into one at a path or URI."""
    local = local_path(path)
    if local is not None:
        with _told_plainly(path, "written"):
            shutil.copytree(folder, local, dirs_exist_ok=True)
        return
    fs, inner = filesystem(path)
    for place, _, names in os.walk(folder):
        for name in names:
            source = os.path.join(place, name)
            with _told_plainly(path, "written"):
                fs.put_file(source, f"{inner}/{os.path.relpath(source, folder)}")


@contextlib.contextmanager
def _told_plainly(path: str, how: str, *, only: Container[int] | None = None) -> Iterator[None]:
    """Turns what a disk or store says into a line for the user.

    Args:
        path: What is written or read.
        how: "read", "written" or "removed".
        only: Error numbers that are meant; without it all errors of a disk, and of a store, whose
            libraries all have their own.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        ours = isinstance(error, OSError) or local_path(path) is None
        if not ours or (only is not None and number not in only):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be {how} ({reason or type(error).__name__})") from error


def open_input(path: str) -> IO[bytes]:
    """Opens a file for reading bytes."""
    fs, inner = filesystem(path)
    with _told_plainly(path, "read"):
        try:
            return fs.open(inner, "rb")
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file") from None


@contextlib.contextmanager
def replace_file(path: str, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a file for writing bytes that takes its place only when it is whole and on disk.

    An object store gets it once it is whole; on a disk it is written aside, synced and renamed.

    Args:
        path: Path or URI of the file.
        sync: Whether it must outlive a crash of the machine. What a stage removes at its end, and
            makes again where it did not come to that, need not.

    Raises:
        InputError: It cannot be written: the disk is full, the folder read-only.
    """
    local = local_path(path)
    if local is None:
        fs, inner = filesystem(path)
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with _told_plainly(path, "written"), fs.open(inner, "wb") as stored:
                shutil.copyfileobj(file, stored)
        return
    aside = f"{local}.{uuid.uuid4().hex}.tmp"
    try:
        with _told_plainly(path, "written"):
            os.makedirs(os.path.dirname(local), exist_ok=True)
            target = open(aside, "wb")
        with target:
            with _told_plainly(path, "written", only=NO_ROOM):
                yield target
            with _told_plainly(path, "written"):
                target.flush()
                if sync:
                    os.fsync(target.fileno())
        with _told_plainly(path, "written"):
            os.replace(aside, local)
    finally:
        with contextlib.suppress(OSError):
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


def write_json(value: object, path: str) -> None:
    """Writes a JSON file, indented for people; what is no number (NaN, infinity) becomes null."""
    with replace_file(path) as file:
        file.write(json.dumps(finite(value), indent=2, allow_nan=False).encode() + b"\n")


def finite(tree: object) -> Any:
    """The same tree of mappings, lists and plain values as JSON can hold it.

    NaN and infinity, which JSON does not have, become None, and numpy's numbers become Python's.

    >>> finite({"a": [1.0, float("nan")], "b": np.float64(2)})
    {'a': [1.0, None], 'b': 2.0}
    """
    if isinstance(tree, Mapping):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def write_text(text: str, path: str) -> None:
    """Writes a text file."""
    with replace_file(path) as file:
        file.write(text.encode())


def remove(path: str) -> None:
    """Removes a file or folder, if it is there, and nothing else."""
    local = local_path(path)
    if local is not None:
        with _told_plainly(path, "removed"):
            if os.path.isdir(local) and not os.path.islink(local):
                shutil.rmtree(local)
            elif os.path.lexists(local):
                os.unlink(local)
        return
    fs, inner = filesystem(path)
    if not fs.exists(inner):
        return
    # What lies in a folder comes before it, and an object store has no folders to remove.
    for name, info in sorted(fs.find(inner, withdirs=True, detail=True).items(), reverse=True):
        if info["type"] == "file":
            fs.rm_file(name)
        else:
            with contextlib.suppress(OSError, NotImplementedError):
                fs.rmdir(name)


def list_files(folder: str, ending: str) -> list[str]:
    """The files of a folder with an ending, in the order of their names, as `folder` was given."""
    if not exists(folder):
        return []
    fs, inner = filesystem(folder)
    with _told_plainly(folder, "read"):
        names = [posixpath.basename(path) for path in fs.ls(inner, detail=False)]
    return [join(folder, name) for name in sorted(names) if name.endswith(ending)]
