"""Decoding in a process that can die alone.

A decoder that crashes, hangs or swells costs its one file: the process is killed and a new one is
started. The process knows no credentials and opens no address; bytes of remote files are fetched
here and handed over. What comes back is JSON and raw pixels, never a pickle.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from recsys.decode.captions import Captions
from recsys.decode.contract import FALLBACK, Clip, ClipSpec, ReadError, VideoFile

_GRACE_S = 2.0  # the process looks at the clock itself; this is for when it cannot any more
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "CUDA_VISIBLE_DEVICES")
_MAX_MESSAGE_BYTES = 2**31 - 1
_DIED = "the decoder died"

_starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox-starter")
"""Starts all sandboxes, for a process that dies with its parent dies with its parent's thread."""


class Sandbox:
    """A decoding process, started when it is first needed and again whenever it died.

    Args:
        max_memory_bytes: Memory that the process may use for one file.
        use_gpu: Whether it may decode on the GPU.
    """

    def __init__(self, *, max_memory_bytes: int, use_gpu: bool = False):
        self._max_memory_bytes = max_memory_bytes
        self._use_gpu = use_gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()
        self._served = 0

    def read(self, file: VideoFile, spec: ClipSpec, *, name: str) -> Clip:
        """Reads the clip of a file.

        Args:
            file: The file.
            spec: Which frames, and within which bounds.
            name: What the file is called.

        Raises:
            ReadError: There is none, and why.
        """
        try:
            return self._read(file, spec, name)
        except ReadError as error:
            if error.reason == "too_much_memory" and self._served:
                self.close()  # what it kept from earlier files must not count against this one
                return self._read(file, spec, name)
            if error.reason == "crashed" and spec.reader in ("auto", "fastest"):
                clip = self._read(file, dataclasses.replace(spec, reader="pyav"), name)
                asked = "hardware, decord" if self._use_gpu else "decord"
                said = {**clip.said, _DIED: error.message}
                return dataclasses.replace(clip, why=f"{FALLBACK}{asked}: {_DIED}", said=said)
            raise

    def captions(self, file: VideoFile, spec: ClipSpec, *, name: str) -> Captions:
        """Reads the text track of a file, as `read` does its clip."""
        answer = self._ask(file, spec, name, captions=True)
        if answer.get("retire"):
            self.close()
        return Captions(str(answer["vtt"]), str(answer["said"]))

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._process = None

    def __del__(self) -> None:
        self.close()

    def _read(self, file: VideoFile, spec: ClipSpec, name: str) -> Clip:
        return self._clip(self._ask(file, spec, name), spec)

    def _ask(
        self, file: VideoFile, spec: ClipSpec, name: str, *, captions: bool = False
    ) -> dict[str, Any]:
        """The answer to a request; pixels may follow it."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._stderr.seek(0)
        self._stderr.truncate()
        request = {
            "path": file.path,
            "size": file.size,
            "name": name,
            "spec": dataclasses.asdict(spec),
            "captions": captions,
        }
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            answer = self._converse(file, spec.max_decode_s)
        except (EOFError, OSError):
            raise self._death() from None
        except BaseException:
            self.close()
            raise
        self._served = 0 if answer.get("retire") else self._served + 1
        if "error" in answer:
            reason, message = answer["error"]
            if answer.get("retire"):
                self.close()
            raise ReadError(reason, message)
        return answer

    def _converse(self, file: VideoFile, max_decode_s: float) -> dict[str, Any]:
        """Hands over the bytes that the process asks for, until it answers."""
        end = time.monotonic() + max_decode_s + _GRACE_S
        while True:
            if not self._connection.poll(max(0.0, end - time.monotonic())):
                raise ReadError("too_slow", f"still decoding after {max_decode_s=:g}")
            message: dict[str, Any] = json.loads(self._connection.recv_bytes(_MAX_MESSAGE_BYTES))
            if "read" not in message:
                return message
            offset, size = message["read"]
            try:
                data = file.read_at(int(offset), int(size))
            except OSError as error:
                raise ReadError("unreachable", f"reading at {offset}: {error}") from None
            self._connection.send_bytes(data)

    def _clip(self, answer: dict[str, Any], spec: ClipSpec) -> Clip:
        shape = (spec.frames, spec.size, spec.size, 3)
        pixels = self._connection.recv_bytes(int(np.prod(shape)))
        if answer.get("retire"):
            self.close()
        return Clip(
            frames=np.frombuffer(pixels, np.uint8).reshape(shape),
            times_s=np.array(answer["times_s"], np.float32),
            duration_s=float(answer["duration_s"]),
            reader=str(answer["reader"]),
            damaged=bool(answer["damaged"]),
            message=str(answer["message"]),
            why=str(answer["why"]),
            said={str(reason): str(text) for reason, text in answer["said"].items()},
            has_captions=bool(answer["has_captions"]),
        )

    def _death(self) -> ReadError:
        """Why the process went away."""
        assert self._process is not None
        status = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        message = ": ".join([f"the decoder died ({how})", *last])[:500]
        memory = any("alloc" in line.lower() or "MemoryError" in line for line in last)
        return ReadError("too_much_memory" if memory else "crashed", message)

    def _start(self) -> None:
        self._process = _starter.submit(self._start_process).result()
        self._served = 0

    def _start_process(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        environment = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
        if not self._use_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        environment["MALLOC_ARENA_MAX"] = "1"  # each reserves 64 MB of the bounded address space
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from recsys.decode.worker import main; main()",
                    str(theirs.fileno()),
                    str(self._max_memory_bytes),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                env=environment,
            )
        self._connection = Connection(ours.detach())
        return process
