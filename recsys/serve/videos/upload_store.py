"""Where uploaded files lie: each under a name of its own that tells its content, in one folder.

No name of a caller reaches the disk. A file is written aside, synced and linked, so that what
stands under its name is whole. A name is never given twice: a file is of one video alone, so who
removes that video's file takes it from no other one, whoever uploads the same bytes meanwhile.
Beside it lies what was decoded of it, so that another model can make its vector without decoding
it again.

What came in is marked until its row is in the table. So of an upload that a crash cut off a mark is
left, and what has none is never swept.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from recsys.data.clip_store import ClipArray
from recsys.data.storage import exists, join, local_path, open_input, remove, replace_file
from recsys.errors import InputError
from recsys.live.videos.live_videos import StoredFile

HEAD_BYTES = 4096
MARK = ".incoming-"
"""What the name of a file begins with that is on its way in."""
LEFT_S = 86_400.0
"""How old a mark must be until nobody can be at it any more: far above any request."""
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What a filesystem says that cannot sync a folder."""


class StoreFailed(RuntimeError):
    """An upload cannot be kept now: the disk is full, or the store away. The same may succeed."""


class UploadStore:
    """A folder of uploaded files.

    Args:
        folder: A path or URI that all replicas and encoders reach; None where nobody named one.
    """

    def __init__(self, folder: str | None) -> None:
        self._named = folder

    @property
    def _folder(self) -> str:
        if self._named is None:
            raise InputError("serve.uploads is not set, so videos have nowhere to lie; set it")
        return self._named

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Incoming]:
        """Takes a file in; what was not kept at the end is gone.

        Raises:
            InputError: Nobody named a folder.
            StoreFailed: The folder cannot be written.
        """
        folder = self._folder
        local = local_path(folder)
        with _told_plainly():
            if local is not None:
                os.makedirs(local, exist_ok=True)
            file = tempfile.NamedTemporaryFile(prefix=MARK, dir=local, delete=False)
        try:
            yield Incoming(folder, file)
        finally:
            with contextlib.suppress(OSError):  # a full disk says so once more
                file.close()
            with contextlib.suppress(OSError):  # kept under its mark, or the folder is away
                os.unlink(file.name)

    def settle(self, uri: str) -> None:
        """Takes the mark off a file whose row is in the table, or which is removed."""
        if (mark := _mark(uri)) is not None:
            with contextlib.suppress(OSError):  # what stays is swept once
                os.unlink(mark)

    def sweep(self, is_needed: Callable[[str], bool]) -> int:
        """Removes what uploads left that a crash cut off, and gives their number.

        Args:
            is_needed: Whether a row needs the file at an address, however its folder is written.
        """
        local = None if self._named is None else local_path(self._named)
        if local is None or not os.path.isdir(local):
            return 0
        swept = 0
        for name in os.listdir(local):
            mark, uri = os.path.join(local, name), join(self._folder, name.removeprefix(MARK))
            if not name.startswith(MARK) or not _is_left(mark):
                continue
            if not is_needed(uri):
                remove(uri)
            with contextlib.suppress(FileNotFoundError):  # of another process that sweeps
                os.unlink(mark)
                swept += 1
        return swept

    def clip(self, file: StoredFile, key: str) -> ClipArray | None:
        """What was decoded of a file with some settings; None where nothing was kept."""
        path = self._clip_path(file, key)
        if not exists(path):
            return None
        with open_input(path) as kept:
            clip: ClipArray = np.load(io.BytesIO(kept.read()), allow_pickle=False)
        return clip

    def keep_clip(self, file: StoredFile, key: str, clip: ClipArray) -> None:
        """Keeps what was decoded of a file."""
        with replace_file(self._clip_path(file, key)) as kept:
            np.save(kept, clip, allow_pickle=False)

    def keep_shown(self, uri: str, content: bytes | None) -> None:
        """Keeps what people are shown of a file, its `poster_uri` or `captions_uri`, if any."""
        if content is not None:
            with replace_file(uri) as kept:
                kept.write(content)

    def remove(self, uri: str) -> None:
        """Removes a file, and what was decoded of it with the newest settings."""
        remove(uri)
        stem = os.path.splitext(os.path.basename(uri))[0]
        remove(join(self._folder, "clips", stem))
        self.settle(uri)

    def _clip_path(self, file: StoredFile, key: str) -> str:
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return join(file.aside, f"{digest}.npy")


class Incoming:
    """A file on its way in."""

    def __init__(self, folder: str, file: IO[bytes]) -> None:
        self._folder, self._file = folder, file
        self._digest, self._head = hashlib.sha256(), b""
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            StoreFailed: There is no room for them.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._digest.update(data)
        self.size_bytes += len(data)
        with _told_plainly():
            self._file.write(data)

    def keep(self, source: str | None = None) -> StoredFile:
        """Gives the file its name, once it is whole and on disk; it is marked until `settle`.

        Args:
            source: The address that it was fetched from.

        Raises:
            StoreFailed: It cannot be written.
        """
        sha256 = self._digest.hexdigest()
        name = f"{sha256}-{uuid.uuid4().hex[:16]}{extension_of(self._head)}"
        uri = join(self._folder, name)
        with _told_plainly():
            self._file.flush()
            mark, place = _mark(uri), local_path(uri)
            if mark is None or place is None:
                with open(self._file.name, "rb") as read, replace_file(uri) as kept:
                    shutil.copyfileobj(read, kept)
            else:
                os.fsync(self._file.fileno())
                os.chmod(self._file.name, 0o644)
                _give_name(self._file.name, mark, place)
        return StoredFile(uri, sha256, self.size_bytes, source)


def _give_name(path: str, mark: str, place: str) -> None:
    """Marks a file and gives it its name, durably; where that fails, it is gone."""
    try:
        os.rename(path, mark)
        os.link(mark, place)
        _sync_folder(os.path.dirname(place))
    except OSError:
        for name in (place, mark):
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise


def _mark(uri: str) -> str | None:
    """Where the mark of a file lies; None in an object store, which has none."""
    place = local_path(uri)
    if place is None:
        return None
    return os.path.join(os.path.dirname(place), MARK + os.path.basename(place))


def _is_left(mark: str) -> bool:
    try:
        return time.time() - os.stat(mark).st_mtime > LEFT_S
    except FileNotFoundError:
        return False


def _sync_folder(folder: str) -> None:
    """Brings the names of a folder to disk, where its filesystem can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Turns what the disk or store says into `StoreFailed`."""
    try:
        yield
    except (OSError, InputError) as error:  # `replace_file` has made one of what a store says
        said = getattr(error, "strerror", None) or str(error)
        raise StoreFailed(f"serve.uploads: cannot be written ({said})") from error


def extension_of(head: bytes) -> str:
    r"""The ending of a file's name by its first bytes, which say more than its sender does.

    >>> extension_of(b"\0\0\0\x20ftypisom"), extension_of(b"<html>")
    ('.mp4', '.bin')
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        brand = head[8:12]
        return ".mov" if brand == b"qt  " or head[4:8] != b"ftyp" else ".mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return ".webm" if b"webm" in head[:64] else ".mkv"
    endings = {b"OggS": ".ogv", b"\x47": ".ts", b"\0\0\x01\xba": ".mpg", b"RIFF": ".avi"}
    return next((ending for mark, ending in endings.items() if head.startswith(mark)), ".bin")
