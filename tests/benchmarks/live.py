"""The event log: acknowledged events a second, and what outlives kill -9.

On SQLite and on PostgreSQL (a server of its own on loopback, with fsync), through `EventLog` and
without HTTP:

- events a second in calls of 100 by 8 clients, and in single calls by 32 clients, each client a
  thread that sends its next call when the last was acknowledged;
- a process with 8 such clients that is killed 20 times in the middle of it (`_storm.py`): events
  that were acknowledged and are lost, that are there twice, calls of which a part is there, events
  that a follower missed. All must be none.

Both on an otherwise idle machine; the clients share its cores with the log and the database.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _postgres import find_binaries, make_database, postgres_server
from _storm import storm

from recsys.live.event import VIEW, Event
from recsys.live.events import EventLog

BAR_HUNDREDS, BAR_SINGLES = 5000.0, 800.0
NUM_USERS, NUM_VIDEOS = 24_000, 7_583


def events_of(rng: np.random.Generator, count: int, now_ms: int) -> list[Event]:
    users, videos = rng.integers(0, NUM_USERS, count), rng.zipf(1.3, count) % NUM_VIDEOS
    watched, ago = rng.exponential(10_000, count), rng.integers(0, 60_000, count)
    return [
        Event(
            f"u{user}",
            VIEW,
            f"v{video}",
            time_ms=now_ms - int(ms),
            watched=float(time_ms),
            labels={"is_click": bool(time_ms > 5000)},
            context={"tab": "1"},
        )
        for user, video, time_ms, ms in zip(users, videos, watched, ago, strict=True)
    ]


def speed(log: EventLog, *, clients: int, size: int, seconds: float) -> dict[str, float]:
    """Events a second of `clients` that send calls of `size`, and how long a call takes."""
    calls = [
        events_of(np.random.default_rng([clients, client]), 40_000 // clients, log.clock())
        for client in range(clients)
    ]
    started, latencies = threading.Barrier(clients + 1), [[] for _ in calls]
    accepted, stop = [0] * clients, threading.Event()

    def send(client: int) -> None:
        mine, start = calls[client], 0
        started.wait()
        while not stop.is_set() and start + size <= len(mine):
            begin = time.perf_counter()
            accepted[client] += log.append(mine[start : start + size]).count("accepted")
            latencies[client].append(time.perf_counter() - begin)
            start += size

    threads = [threading.Thread(target=send, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    started.wait()
    begin = time.perf_counter()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begin
    timer.cancel()
    ms = 1000 * np.concatenate([np.array(times) for times in latencies])
    p50, p99 = np.percentile(ms, (50, 99)).tolist()
    return {"events_per_s": sum(accepted) / taken, "call_p50_ms": p50, "call_p99_ms": p99}


def reads(log: EventLog) -> dict[str, float]:
    """What a request and a follower pay."""
    begin = time.perf_counter()
    for user in range(1000):
        log.of_user(f"u{user}")
    of_user = time.perf_counter() - begin
    begin = time.perf_counter()
    count = sum(1 for _ in log.entries())
    return {"of_user_ms": of_user, "followed_per_s": count / (time.perf_counter() - begin)}


@contextmanager
def databases(kind: str) -> Iterator[Iterator[str]]:
    """Addresses of as many empty logs as are asked for."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        if kind == "sqlite":
            yield (f"{folder}/{number}/live.sqlite" for number in range(9))
            return
        binaries = find_binaries()
        if binaries is None:
            raise SystemExit("PostgreSQL's server is not installed; apt-get install postgresql")
        with postgres_server(binaries, fsync=True) as server:
            yield (make_database(server, f"bench_{number}") for number in range(9))


def measure(kind: str, args: argparse.Namespace, found: dict[str, Any]) -> None:
    result: dict[str, Any] = {}
    with databases(kind) as addresses:
        for name, clients, size, limit in (
            ("calls of 100", 8, 100, BAR_HUNDREDS),
            ("single calls, 32 clients", 32, 1, BAR_SINGLES),
        ):
            with EventLog(next(addresses)) as log:
                result[name] = speed(log, clients=clients, size=size, seconds=args.seconds)
                result[name].update(reads(log))
            print(f"{kind}, {name}: " + ", ".join(f"{k} {v:,.4g}" for k, v in result[name].items()))
            value = result[name]["events_per_s"]
            bar(found, f"{kind}: events/s in {name}", value, limit, least=True)
        seen = storm(next(addresses), args.kills)
    result["kills"] = asdict(seen)
    print(f"{kind}, {seen.kills} x kill -9: {asdict(seen)}")
    for what in ("lost", "twice", "torn", "missed"):
        bar(found, f"{kind}: {what} after {seen.kills} kills", asdict(seen)[what], 0, least=False)
    found[kind] = result


def bar(found: dict[str, Any], name: str, value: float, limit: float, *, least: bool) -> None:
    holds = value >= limit if least else value <= limit
    found["bars"][name] = {"value": value, "bar": limit, "holds": holds}
    print(f"  {'holds' if holds else 'MISSED'}: {name}: {value:,.4g} (bar {limit:g})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of speed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/live.json"))
    args = parser.parse_args()
    found: dict[str, Any] = {"bars": {}}
    for kind in ("sqlite", "postgresql"):
        measure(kind, args, found)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
