"""The decoding processes of one worker, which its threads take turns with."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.decode.sandbox import Sandbox


@dataclass(frozen=True)
class ProcessSet:
    """How many decoding processes a worker has."""

    on_cores: int = 1
    """Those that never see a GPU: each would hold a CUDA context of half a gigabyte there."""
    in_hardware: int = 0
    """Those that decode on the worker's GPU what it can read."""

    @property
    def num(self) -> int:
        """Videos that are decoded at a time."""
        return self.on_cores + self.in_hardware


class Processes:
    """Sandboxes; each is started when it is first needed.

    Args:
        wanted: How many.
        max_memory_bytes: Memory that each may use for one file.
    """

    def __init__(self, wanted: ProcessSet, *, max_memory_bytes: int):
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()
        kinds = [False] * wanted.on_cores + [True] * wanted.in_hardware
        self._all = [Sandbox(max_memory_bytes=max_memory_bytes, use_gpu=kind) for kind in kinds]
        for sandbox in self._all:
            self._free.put(sandbox)
        atexit.register(self.close)

    @contextmanager
    def one(self) -> Iterator[Sandbox]:
        """A sandbox for one video, those of the GPU first; waits where all are busy."""
        sandbox = self._free.get()
        try:
            yield sandbox
        finally:
            self._free.put(sandbox)

    def close(self) -> None:
        """Ends all processes."""
        for sandbox in self._all:
            sandbox.close()


_made: dict[tuple[ProcessSet, int], Processes] = {}
_making = threading.Lock()


def shared_processes(wanted: ProcessSet, *, max_memory_bytes: int) -> Processes:
    """This process's own sandboxes; Ray tasks of one worker process share those that are alike."""
    with _making:
        key = wanted, max_memory_bytes
        if key not in _made:
            _made[key] = Processes(wanted, max_memory_bytes=max_memory_bytes)
        return _made[key]
