"""How much memory a process and all below it take, while they run."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SAMPLE_S = 0.25


class Watched:
    """A command, and the most memory that it and all processes below it held.

    Args:
        command: What is run; its output is kept.
        shared: Whether what processes share counts too, each with its part: the proportional set
            size. Without it their private memory is measured.
    """

    def __init__(self, command: Sequence[str], *, shared: bool = True) -> None:
        self.peak_bytes = 0
        """Of all processes together."""
        self.largest_bytes = 0
        """Of the largest process alone."""
        self._kinds = ("Pss:",) if shared else ("Private_Clean:", "Private_Dirty:")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def output(self) -> str:
        """Waits for the end and gives what was written."""
        output, _ = self._process.communicate()
        self._watcher.join()
        if self._process.returncode:
            raise SystemExit(f"{self._process.args} ended with {self._process.returncode}")
        return output

    def _watch(self) -> None:
        while self._process.poll() is None:
            sizes = [self._bytes_of(pid) for pid in _family(self._process.pid)]
            self.peak_bytes = max(self.peak_bytes, sum(sizes))
            self.largest_bytes = max(self.largest_bytes, *sizes)
            time.sleep(SAMPLE_S)

    def _bytes_of(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(self._kinds))


def _family(root: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family
