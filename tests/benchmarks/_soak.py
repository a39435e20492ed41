"""A replica under half its load for half an hour, with events: its memory must stay flat."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _load import find_wrk

SCRIPT = Path(__file__).with_name("_soak.lua")
CLIENTS = 16
EVERY_S = 30.0
SETTLED_MIN = 5.0
"""After so many minutes memory must not grow any more."""


@dataclass(frozen=True)
class Soaked:
    """What was seen of a soak."""

    memory_mib: list[tuple[float, float]]
    """(minute, private memory of the replica)."""
    growth: float
    """The most after the first minutes over what it was then."""
    load: dict[str, float]
    """Requests, seconds, p50 and p99 in ms, errors."""


def private_mib(pid: int) -> float:
    """Memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kib) / 1024


def soak(address: str, pid: int, *, minutes: float, per_s: float, cores: Iterable[int]) -> Soaked:
    """Asks at a steady rate and looks at the memory meanwhile.

    Args:
        address: Of the server.
        pid: Of the replica.
        minutes: How long.
        per_s: Requests a second that are aimed at.
        cores: That wrk runs on.
    """
    command = [find_wrk(), "-t1", f"-c{CLIENTS}", f"-d{round(minutes * 60)}s", "--timeout", "30s"]
    kept = set(cores)
    load = subprocess.Popen(
        [*command, "-s", str(SCRIPT), address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SOAK_DELAY_MS": str(round(1000 * CLIENTS / per_s))},
        preexec_fn=lambda: os.sched_setaffinity(0, kept),
    )
    started, series = time.monotonic(), []
    while load.poll() is None:
        minute = (time.monotonic() - started) / 60
        series.append((round(minute, 2), round(private_mib(pid), 1)))
        print(f"  minute {minute:5.1f}: {series[-1][1]:,.1f} MiB", flush=True)
        time.sleep(EVERY_S)
    assert load.stdout is not None
    (line,) = (line for line in load.stdout if line.startswith("JSON "))
    settled = [mib for minute, mib in series if minute >= min(SETTLED_MIN, minutes / 2)]
    return Soaked(series, max(settled) / settled[0], json.loads(line.removeprefix("JSON ")))
