"""How much memory and CPU time a process and all below it take, while they run."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SAMPLE_S = 0.25
WORTH_NAMING = 50_000_000
"""Bytes from which on a process is named."""
LAST_STDERR_LINES = 20
"""Of a failed command's complaints."""
TICKS = os.sysconf("SC_CLK_TCK")


class Watched:
    """A command, and the most memory that it and all processes below it held.

    Args:
        command: What is run; its output is kept.
        shared: Whether what processes share counts too, each with its part: the proportional set
            size. Without it only what each has written to and shares with none.
    """

    def __init__(self, command: Sequence[str], *, shared: bool = True) -> None:
        self.peak_bytes = 0
        """Of all processes together."""
        self.largest_bytes = 0
        """Of the largest process alone."""
        self.peaks: dict[str, int] = {}
        """Of the largest process of each name; of those that held anything worth naming."""
        self._cpu_s: dict[int, float] = {}
        self._kinds = ("Pss:",) if shared else ("Private_Dirty:",)
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, text=True
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(self._cpu_s.values())

    def output(self) -> str:
        """Waits for the end and gives what was written; where it failed, says what went wrong."""
        output, _ = self._process.communicate()
        self._watcher.join()
        if self._process.returncode:
            self._stderr.seek(0)
            said = "\n".join(self._stderr.read().splitlines()[-LAST_STDERR_LINES:])
            raise SystemExit(f"{self._process.args} ended with {self._process.returncode}\n{said}")
        self._stderr.close()
        return output

    def _watch(self) -> None:
        while self._process.poll() is None:
            members = family(self._process.pid)
            self._cpu_s |= {pid: seconds for pid, seconds in members.items() if seconds}
            sizes = {pid: self._bytes_of(pid) for pid in members}
            self.peak_bytes = max(self.peak_bytes, sum(sizes.values()))
            self.largest_bytes = max(self.largest_bytes, *sizes.values())
            for pid in [pid for pid, size in sizes.items() if size >= WORTH_NAMING]:
                name = name_of(pid)
                self.peaks[name] = max(self.peaks.get(name, 0), sizes[pid])
            time.sleep(SAMPLE_S)

    def _bytes_of(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(self._kinds))


def name_of(pid: int) -> str:
    """What the system calls a process, as `ps` shows it; of Ray's workers what they run."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return "ended"


def family(root: int) -> dict[int, float]:
    """A process and all below it, with the CPU seconds of each."""
    parents, seconds = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            fields = status.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {pid: seconds.get(pid, 0.0) for pid in family}
