"""The contract between a clip's readers and those who want clips. Imports nothing heavy."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.decode.sampling import Fit, Sampling

Reader = Literal["auto", "fastest", "decord", "pyav"]
"""Which reader is asked, as `decode.reader` says."""

FALLBACK = "not "
"""How `Clip.why` begins where a reader that was asked before did not give the clip."""


@dataclass(frozen=True)
class ClipSpec:
    """What is read and within which bounds; the part of `DecodeConfig` that a reader needs."""

    frames: int
    size: int
    sampling: Sampling
    fit: Fit
    auto_max_frames: int
    max_pixels: int
    max_duration_s: float
    max_decode_s: float
    still_images: bool
    reader: Reader = "auto"
    hardware_pixels: int = 1


@dataclass
class Clip:
    """T frames of a video.

    `frames` is (T, S, S, 3) uint8 RGB, `times_s` (T,) float32 from the first frame on, `damaged`
    says that parts of the file are missing or unreadable, `message` what the reader said of it,
    `why` for what reason it was this reader that read it, `said` what those that were asked before
    said, word for word, by the reason that counts it (and later what its captions lack), and
    `has_captions` that the file holds a text track of its own.
    """

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float32]
    duration_s: float
    reader: str
    damaged: bool = False
    message: str = ""
    why: str = ""
    said: dict[str, str] = field(default_factory=dict)
    has_captions: bool = False


class ReadError(Exception):
    """A file gives no clip; `reason` is one of `recsys.schema.QUARANTINE_REASONS`."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason
        self.message = message


class NotThisReader(Exception):
    """This reader cannot do it exactly; another may.

    `reason` is one of few, so that files can be counted by it; `detail` is what the reader said.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


class VideoFile(Protocol):
    """What readers need of a file: bytes at a place, its size, and its path where it is local."""

    path: str | None
    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; empty at the end."""


def require_path(file: VideoFile, reader: str) -> str:
    """The path of a file, for a reader that opens it by itself.

    Raises:
        NotThisReader: It has none, or one that is no text.
    """
    if file.path is None:
        raise NotThisReader(f"{reader} reads local files only")
    try:
        file.path.encode()
    except UnicodeEncodeError:
        raise NotThisReader(f"{reader} opens no file whose name is not UTF-8") from None
    return file.path


class ByteStream(io.RawIOBase):
    """A seekable stream over a `VideoFile`; a wrong seek gives -1 back, as FFmpeg expects."""

    def __init__(self, file: VideoFile, name: str):
        self.name = name  # FFmpeg looks at its extension
        self._file = file
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the current place on."""
        data = self._file.read_at(self._place, size if size >= 0 else self._file.size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves the current place."""
        start = {0: 0, 1: self._place, 2: self._file.size}.get(whence)
        if start is None or start + offset < 0:
            return -1
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """The current place."""
        return self._place

    def seekable(self) -> bool:
        """Always true."""
        return True

    def readable(self) -> bool:
        """Always true."""
        return True


class Deadline:
    """The time that one file may take."""

    def __init__(self, limit_s: float):
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def check(self) -> None:
        """Raises `ReadError("too_slow")` once the time is over."""
        if time.monotonic() > self._end:
            raise ReadError("too_slow", f"not decoded within max_decode_s={self._limit_s:g}")


@dataclass(frozen=True)
class FileFacts:
    """What a look at a file's head and first frame tells.

    `reorders`: frames are decoded in another order than they are shown in (B-frames). `codec` and
    `pixel_format` are called as FFmpeg calls them. `matrix` is the number of the colour matrix
    (ITU-T H.273, table 4; 2 where none is said), `full_range` says whether luma reaches from 0 to
    255, `has_captions` whether there is a text track.
    """

    format_name: str
    coded: tuple[int, int]
    pixel_aspect: float
    orientation: tuple[int, bool]
    reorders: bool
    duration_s: float | None
    codec: str = ""
    pixel_format: str = ""
    matrix: int = 2
    full_range: bool = False
    has_captions: bool = False
