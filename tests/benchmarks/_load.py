"""Load by wrk on loopback, and which cores the processes of a measurement run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RECOMMEND, EVENTS = (Path(__file__).with_name(f"_{name}.lua") for name in ("recommend", "events"))
"""What wrk sends: recommendations of one user after another; new events, in calls of a size."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What clients saw that each send their next request when the last is answered."""

    clients: int
    per_s: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    errors: int
    """Answers that were not 2xx or 3xx, and connections and requests that failed."""
    server_cpu_us: float
    """CPU time of the servers' processes an answer; other work on the cores does not change it
    much."""


def find_wrk() -> str:
    """The load generator.

    Raises:
        SystemExit: It is not installed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit(
            "skipped: wrk, which makes the load, is not installed; apt-get install wrk"
        )
    return program


def put_load(
    address: str,
    *,
    clients: int,
    seconds: float,
    servers: Iterable[int],
    cores: Iterable[int],
    script: Path = RECOMMEND,
    arguments: Iterable[str] = (),
) -> Load:
    """Sends requests, each client its next one when the last is answered.

    Args:
        address: Of the server, such as http://127.0.0.1:8000.
        clients: Connections.
        seconds: How long, 1 at least.
        servers: Processes whose CPU time is that of the server.
        cores: That wrk runs on.
        script: What is sent.
        arguments: Of the script.
    """
    servers, cores = list(servers), set(cores)
    command = [find_wrk(), "-t1", f"-c{clients}", f"-d{round(seconds)}s", "--timeout", "30s"]
    before = sum(cpu_s(pid) for pid in servers)
    done = subprocess.run(
        [*command, "-s", str(script), address, "--", *arguments],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    used = sum(cpu_s(pid) for pid in servers) - before
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("JSON "))
    seen = json.loads(line.removeprefix("JSON "))
    answers = max(seen["requests"], 1)
    return Load(
        clients,
        per_s=seen["requests"] / seen["seconds"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        errors=seen["errors"],
        server_cpu_us=1e6 * used / answers,
    )


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def pin(pid: int, cores: Iterable[int]) -> None:
    """Keeps a process with all its threads on some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), set(cores))


def descendants(title: str) -> list[int]:
    """Processes that this one has started, directly or not, whose title begins so."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(fields[1])
    ours, more = {os.getpid()}, True
    while more:
        children = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours, more = ours | children, bool(children)
    return sorted(pid for pid in ours if _title(pid).startswith(title))


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
