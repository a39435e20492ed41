"""Where video files lie: local paths and http(s)://, s3://, gs:// addresses, read by ranges."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from recsys.data.readers import ReadError, VideoFile
from recsys.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HASH_STEP_BYTES = 4 * 2**20


def find_videos(spec: str, *, column: str = "uri") -> list[str]:
    """The videos that a folder, a glob or a Parquet table names, in order and without repeats.

    Args:
        spec: A folder (all files below it, hidden ones left out), a glob, one file, a Parquet file
            or folder of Parquet files with the column `column`; local or an fsspec address.
        column: The column of addresses in a Parquet table.

    Raises:
        InputError: Nothing is there, or the table has no such column.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(spec)
        if path.endswith((".parquet", ".pq")):
            return _from_parquet(spec, column)
        if filesystem.isdir(path):
            found = filesystem.find(path)
            if found and all(name.endswith((".parquet", ".pq")) for name in found):
                return _from_parquet(spec, column)
        else:
            found = [name for name in filesystem.glob(path) if not filesystem.isdir(name)]
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"--videos {spec}: cannot be read ({error})") from None
    videos = [name for name in sorted(found) if not _hidden(name, path)]
    if not videos:
        raise InputError(
            f"--videos {spec}: no files there; give a folder, a glob or a Parquet table"
        )
    if _SCHEME.match(spec):
        videos = [filesystem.unstrip_protocol(name) for name in videos]
    return videos


def _hidden(name: str, root: str) -> bool:
    below = name.removeprefix(root)
    return any(part.startswith(".") for part in below.split("/"))


def _from_parquet(spec: str, column: str) -> list[str]:
    try:
        table = pyarrow.dataset.dataset(spec, format="parquet").to_table(columns=[column])
    except FileNotFoundError:
        raise InputError(f"--videos {spec}: no such Parquet table") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        known = " ".join(str(error).split())[:200]
        raise InputError(f"--videos {spec}: cannot read column {column!r} ({known})") from None
    values = table.column(column)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise InputError(f"--videos {spec}: column {column!r} is {values.type}, not text")
    videos = list(dict.fromkeys(uri for uri in values.to_pylist() if uri))
    if not videos:
        raise InputError(f"--videos {spec}: column {column!r} names no video")
    return videos


class LocalFile:
    """A file of this machine; the sandbox opens it itself."""

    def __init__(self, path: str):
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            said = getattr(error, "strerror", None) or str(error)
            raise ReadError("missing" if missing else "unreachable", said) from None
        if not stat.S_ISREG(status.st_mode):
            raise ReadError("unsupported_source", "not a regular file")
        self.path: str | None = os.path.abspath(path)
        self.size = status.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        assert self.path is not None
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def close(self) -> None:
        """Nothing is held open."""


class RemoteFile:
    """A file behind an address, read by ranges as the reader asks for them."""

    def __init__(self, uri: str):
        import fsspec

        self.path: str | None = None
        try:
            self._file: Any = fsspec.open(uri, "rb").open()
            self.size = int(self._file.size)
        except FileNotFoundError as error:
            raise ReadError("missing", str(error)) from None
        except Exception as error:  # each fsspec backend has exceptions of its own
            raise ReadError("unreachable", f"{type(error).__name__}: {error}"[:500]) from None

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        self._file.seek(min(offset, self.size))
        data: bytes = self._file.read(size)
        return data

    def close(self) -> None:
        """Closes the connection."""
        self._file.close()


def open_source(uri: str, *, schemes: tuple[str, ...], base: str = "") -> LocalFile | RemoteFile:
    """Opens a video's address.

    Args:
        uri: A path or address.
        schemes: The kinds of address that may be read.
        base: Folder that relative paths start from.

    Raises:
        ReadError: The address is of another kind (`unsupported_source`), names nothing (`missing`)
            or cannot be reached (`unreachable`).
    """
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    if scheme not in schemes:
        raise ReadError("unsupported_source", f"{scheme}:// is not read; decode.schemes={schemes}")
    if scheme != "file":
        return RemoteFile(uri)
    path = urlsplit(uri).path if match else uri
    return LocalFile(os.path.join(base, path))


def sha256_of(file: VideoFile, *, max_bytes: int) -> str | None:
    """The sha256 of a file's bytes; None where it is larger than `max_bytes` or unreadable."""
    if file.size > max_bytes:
        return None
    digest, offset = hashlib.sha256(), 0
    try:
        while data := file.read_at(offset, _HASH_STEP_BYTES):
            digest.update(data)
            offset += len(data)
    except OSError:
        return None
    return digest.hexdigest()
