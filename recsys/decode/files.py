"""Video files to read bytes from: of this machine, or behind an address.

A remote file is read by ranges as the reader asks for them; a small one is fetched whole to a
temporary file, as is one whose server knows no ranges.
"""

from __future__ import annotations

import concurrent.futures
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from recsys.data import storage
from recsys.decode.contract import ReadError

T = TypeVar("T")

FETCHED_WHOLE_BYTES = 16 * 2**20
"""Remote files up to this size are fetched whole."""

_BLOCK_BYTES = 2**20
_STEP_BYTES = 4 * 2**20
_STATUS_MISSING = (404, 410)
_MAX_MESSAGE = 300
_STAMP_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "LastModified",
    "Last-Modified",
    "updated",
)
"""What the servers' listings call it, the most telling first."""


class LocalFile:
    """A file of this machine; the sandbox opens it itself.

    Raises:
        ReadError: It is not there (`missing`) or no regular file.
    """

    def __init__(self, path: str):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise ReadError("missing", getattr(error, "strerror", None) or str(error)) from None
        except OSError as error:
            raise ReadError("unreachable", error.strerror or str(error)) from None
        if not stat.S_ISREG(status.st_mode):
            raise ReadError("unsupported_source", "not a regular file")
        if not os.access(path, os.R_OK):
            raise ReadError("unreachable", "no permission to read it")
        self.path: str | None = os.path.abspath(path)
        self.size = status.st_size
        self.stamp: str | None = local_stamp(status)

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        assert self.path is not None
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def close(self) -> None:
        """Nothing is held open."""


class RemoteFile:
    """A file behind an address.

    Args:
        uri: The address.
        scheme: Its kind, a name of an fsspec filesystem.
        max_bytes: A larger file is not fetched.
        timeout_s: Longest wait for one answer.

    Raises:
        ReadError: It is not there (`missing`), cannot be had (`unreachable`) or is too large.
    """

    def __init__(self, uri: str, *, scheme: str, max_bytes: int, timeout_s: float):
        self.path: str | None = None
        self.stamp: str | None = None
        self._timeout_s = timeout_s
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._temporary: IO[bytes] | None = None
        try:
            self._file, details = self._ask(lambda: _open_by_ranges(uri, scheme))
            self.stamp = remote_stamp(details)
            self.size = int(self._file.size if self._file.size is not None else -1)
            if self.size > max_bytes:
                raise ReadError("too_many_bytes", f"{self.size} bytes are over {max_bytes=}")
            if self.size <= FETCHED_WHOLE_BYTES or not _has_ranges(self._file, details):
                self._fetch(max_bytes)
        except BaseException:
            self.close()
            raise

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer of the server, or a ReadError; fsspec's backends all have their own errors."""
        future = self._pool.submit(question)
        try:
            return future.result(self._timeout_s)
        except ReadError:
            raise
        except FileNotFoundError as error:
            raise _not_there(error) from None
        except concurrent.futures.TimeoutError:
            raise ReadError("unreachable", f"no answer in {self._timeout_s:g} s") from None
        except Exception as error:
            said = " ".join(str(error).split())[:_MAX_MESSAGE]
            raise ReadError("unreachable", f"{type(error).__name__}: {said}") from None

    def _fetch(self, max_bytes: int) -> None:
        """Fetches the file to a temporary one, which the sandbox then reads by its path."""
        self._temporary = tempfile.NamedTemporaryFile(prefix="recsys-video-")
        size = 0
        while data := self._ask(lambda: self._file.read(_STEP_BYTES)):
            size += len(data)
            if size > max_bytes:
                raise ReadError("too_many_bytes", f"{size} bytes and more are over {max_bytes=}")
            self._temporary.write(data)
        if self.size >= 0 and size != self.size:
            raise ReadError("unreachable", f"{size} of {self.size} bytes came")
        self._temporary.flush()
        self.size, self.path = size, self._temporary.name

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on.

        Raises:
            ReadError: The server does not answer.
        """
        if self._temporary is not None:
            return os.pread(self._temporary.fileno(), size, offset)

        def read() -> bytes:
            self._file.seek(min(offset, self.size))
            return bytes(self._file.read(size))

        return self._ask(read)

    def close(self) -> None:
        """Closes the connection and removes the temporary file."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._temporary is not None:
            self._temporary.close()


def _not_there(error: FileNotFoundError) -> ReadError:
    """A web server's answer as fsspec has it, which calls a file missing whatever went wrong."""
    cause = error.__cause__
    if cause is None or getattr(cause, "status", None) in _STATUS_MISSING:
        return ReadError("missing", str(error))
    if not type(cause).__module__.startswith("aiohttp"):
        return ReadError("missing", str(error))
    return ReadError("unreachable", f"{type(cause).__name__}: {cause}"[:_MAX_MESSAGE])


def remote_filesystem(uri: str, scheme: str) -> AbstractFileSystem:
    """The filesystem of an address of a kind."""
    # Not fsspec.open: that takes "a::b" for a chain of filesystems, local ones among them.
    name = "http" if scheme == "https" else scheme
    return fsspec.filesystem(name, **storage.address_options(uri))


def _open_by_ranges(uri: str, scheme: str) -> tuple[AbstractBufferedFile, Mapping[str, object]]:
    """A file, and what its server says of it."""
    filesystem = remote_filesystem(uri, scheme)
    file = filesystem.open(uri, "rb", block_size=_BLOCK_BYTES)
    return file, filesystem.info(uri)


def _has_ranges(file: AbstractBufferedFile, details: Mapping[str, object]) -> bool:
    """Whether a file can be read from any place; of web servers only those that say so."""
    return bool(details.get("partial", True)) and file.seekable()


def local_stamp(status: os.stat_result) -> str:
    """The stamp of a file of this machine: size and time of its last change.

    >>> local_stamp(os.stat(os.devnull)).startswith("0 ")
    True
    """
    return f"{status.st_size} {status.st_mtime_ns}"


def remote_stamp(details: Mapping[str, object]) -> str | None:
    """The stamp of a file by what its server says of it; None where that tells nothing.

    >>> remote_stamp({"size": 12, "ETag": '"ab"', "Last-Modified": "Sun"})
    '12 "ab"'
    """
    mark = next((details[name] for name in _STAMP_MARKS if details.get(name)), None)
    size = details.get("size")
    return None if mark is None and size is None else f"{size} {mark}"
