"""The inside of the sandbox: a process that reads one clip after another and nothing else.

Beside clips it reads captions, of the same files.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from recsys.decode.captions import read_captions
from recsys.decode.contract import Clip, ClipSpec, ReadError
from recsys.decode.hardware.choice import Decoder, choose_decoder, look_around
from recsys.decode.readers import read_clip

_MAX_STDERR_BYTES = 64 * 2**20
_MAX_OPEN_FILES = 256
_RETIRE_AFTER_GROWTH_BYTES = 256 * 2**20
_PR_SET_PDEATHSIG = 1


class GivenFile:
    """A file as the parent process describes it: by a local path, or read through the parent."""

    def __init__(self, request: Mapping[str, Any], connection: Connection):
        self.path: str | None = request["path"]
        self.size = int(request["size"])
        self._connection = connection
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK) if self.path else None

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        if self._descriptor is not None:
            return os.pread(self._descriptor, size, offset)
        self._connection.send_bytes(json.dumps({"read": [offset, size]}).encode())
        return self._connection.recv_bytes()

    def close(self) -> None:
        """Closes a local file."""
        if self._descriptor is not None:
            os.close(self._descriptor)


class Growth:
    """How much a process grows over its files, to retire one that keeps too much of them.

    Args:
        resident_bytes: Its memory before the first file.
        spares_largest: Whether the file that it grew most by is left out. A CUDA context, 0.3 to
            0.5 GB, comes with one of the first files and stays, whatever comes after it.

    >>> growth = Growth(0, spares_largest=True)
    >>> [growth.is_too_much(megabytes * 2**20) for megabytes in (20, 500, 510, 800)]
    [False, False, False, True]
    """

    def __init__(self, resident_bytes: int, *, spares_largest: bool):
        self._start_bytes = self._last_bytes = resident_bytes
        self._spares_largest = spares_largest
        self._spared_bytes = 0

    def is_too_much(self, resident_bytes: int) -> bool:
        """Whether the process should give way to a new one, by its memory after another file."""
        if self._spares_largest:
            self._spared_bytes = max(self._spared_bytes, resident_bytes - self._last_bytes)
        self._last_bytes = resident_bytes
        grown = resident_bytes - self._start_bytes - self._spared_bytes
        return grown > _RETIRE_AFTER_GROWTH_BYTES


def main() -> None:
    """Serves requests until the parent hangs up."""
    connection = Connection(int(sys.argv[1]))
    decoder = choose_decoder(look_around())
    _limit(int(sys.argv[2]) if decoder == "cpu" else None)
    growth = Growth(_memory()[1], spares_largest=decoder != "cpu")
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        answer, pixels = _serve(request, connection, decoder)
        answer["retire"] = growth.is_too_much(_memory()[1])
        connection.send_bytes(json.dumps(answer).encode())
        if pixels is not None:
            connection.send_bytes(pixels)


def _serve(
    request: Mapping[str, Any], connection: Connection, decoder: Decoder
) -> tuple[dict[str, object], memoryview | None]:
    """The answer to one request, and the pixels where it asks for a clip."""
    try:
        file = GivenFile(request, connection)
    except OSError as error:
        return {"error": ["unreachable", error.strerror or str(error)]}, None
    try:
        spec, name = ClipSpec(**request["spec"]), request["name"]
        if request["captions"]:
            return dataclasses.asdict(read_captions(file, spec, name=name)), None
        clip = read_clip(file, spec, name=name, decoder=decoder)
    except ReadError as error:
        return {"error": [error.reason, error.message]}, None
    except MemoryError:
        return {"error": ["too_much_memory", "the decoder ran out of its memory"]}, None
    except Exception as error:  # a bug of a reader costs one file, not the run
        return {"error": ["crashed", f"{type(error).__name__}: {error}"[:500]]}, None
    finally:
        file.close()
    return _describe(clip), clip.frames.data.cast("B")


def _describe(clip: Clip) -> dict[str, object]:
    return {
        "times_s": clip.times_s.tolist(),
        "duration_s": clip.duration_s,
        "reader": clip.reader,
        "damaged": clip.damaged,
        "message": clip.message,
        "why": clip.why,
        "said": clip.said,
        "has_captions": clip.has_captions,
    }


def _limit(max_memory_bytes: int | None) -> None:
    """Bounds this process, and has it die with its parent.

    CUDA reserves address space without using it, so no memory is bounded where it is used.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if max_memory_bytes is not None:
            reserved, used = _memory()
            bound = reserved - used + max_memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_STDERR_BYTES, _MAX_STDERR_BYTES))


def _memory() -> tuple[int, int]:
    """(reserved, resident) bytes of this process; zeros where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = [int(text) for text in file.read().split()[:2]]
    except OSError:
        return 0, 0
    return pages[0] * resource.getpagesize(), pages[1] * resource.getpagesize()
