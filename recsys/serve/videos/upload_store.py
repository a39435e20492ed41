"""Where uploaded files lie: each under a name made of its content, in one folder.

No name of a caller reaches the disk. A file is written aside, synced and renamed, so that what
stands under its name is whole. Beside it lies what was decoded of it, so that another model can
make its vector without decoding it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from recsys.data.clip_store import ClipArray
from recsys.data.storage import exists, join, local_path, open_input, remove, replace_file
from recsys.errors import InputError
from recsys.live.videos.live_videos import StoredFile

HEAD_BYTES = 4096


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
            InputError: The folder cannot be written.
        """
        folder = self._folder
        local = local_path(folder)
        try:
            if local is not None:
                os.makedirs(local, exist_ok=True)
            file = tempfile.NamedTemporaryFile(prefix=".incoming-", dir=local)
        except OSError as error:
            raise InputError(f"serve.uploads: cannot be written ({error.strerror})") from None
        with file:
            yield Incoming(folder, file)

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
        """Takes the next bytes."""
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._digest.update(data)
        self.size_bytes += len(data)
        self._file.write(data)

    def keep(self, source: str | None = None) -> StoredFile:
        """Gives the file its name, once it is whole and on disk.

        Args:
            source: The address that it was fetched from.
        """
        sha256 = self._digest.hexdigest()
        uri = join(self._folder, f"{sha256}{extension_of(self._head)}")
        self._file.flush()
        if local_path(uri) is None:
            with open(self._file.name, "rb") as read, replace_file(uri) as kept:
                shutil.copyfileobj(read, kept)
        else:
            os.fsync(self._file.fileno())
            os.chmod(self._file.name, 0o644)
            with contextlib.suppress(FileExistsError):
                os.link(self._file.name, uri)
        return StoredFile(uri, sha256, self.size_bytes, source)


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
