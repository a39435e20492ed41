"""Less than a core for a process: replicas, load and proxy then take none from each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 10_000


@contextmanager
def cpu_quota(pids: Iterable[int], share: float) -> Iterator[None]:
    """Gives each process, with all its threads, a share of one core as long as the context lasts.

    Raises:
        OSError: This machine does not let the process make control groups.
    """
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_group(pid, share))
        yield


@contextmanager
def _group(pid: int, share: float) -> Iterator[None]:
    quota = round(PERIOD_US * share)
    first = (ROOT / "cpu").is_dir()
    group = (ROOT / "cpu" if first else ROOT) / f"recsys-bench-{pid}"
    group.mkdir()
    try:
        if first:  # cgroup v1
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        before = _of(pid)
        (group / "cgroup.procs").write_text(str(pid))
        yield
        if os.path.exists(f"/proc/{pid}"):
            (before / "cgroup.procs").write_text(str(pid))
    finally:
        group.rmdir()


def _of(pid: int) -> Path:
    """The control group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if "cpu" in kinds.split(","):
            return ROOT / "cpu" / path.lstrip("/")
        if not kinds:
            unified = ROOT / path.lstrip("/")
    return unified
