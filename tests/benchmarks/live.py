"""The event log and the servers on it: acknowledged events a second, and what outlives kill -9.

On SQLite and on PostgreSQL (a server of its own on loopback, with fsync):

- events a second in calls of 100 by 8 clients, and in single calls by 32 clients, each of which
  sends its next call when the last was acknowledged: threads through `EventLog`, and wrk through
  HTTP to one server without Ray;
- what one replica pays for an event of the log that it follows (`_following.py`);
- a like at one of two servers, then a recommendation of one: how many of 1,000 do not know it; the
  same through Ray Serve's address, behind which two replicas answer (`--parts ray`);
- a process with 8 clients of `EventLog` that is killed 20 times in the middle of it (`_storm.py`):
  events that were acknowledged and are lost, that are there twice, calls of which a part is there,
  events that a follower missed;
- 8 clients over HTTP while both servers, and PostgreSQL, are killed 20 times (`_server_storm.py`):
  the same, and servers whose counts are not those made anew from the log.

All on an otherwise idle machine; the clients share its cores with the servers and the database.
"""

from __future__ import annotations

import argparse
import os
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.serve.app import running
from tests.benchmarks._bars import bar, work_folder, write
from tests.benchmarks._following import following
from tests.benchmarks._load import EVENTS, put_load
from tests.benchmarks._next_call import unseen_tries
from tests.benchmarks._postgres import (
    PostgresServer,
    find_binaries,
    make_database,
    postgres_server,
)
from tests.benchmarks._server_storm import server_storm
from tests.benchmarks._servers import Servers
from tests.benchmarks._storm import Storm, storm
from tests.bundles import make_run

DATABASES = ("sqlite", "postgresql")
CALLS = (("calls of 100", 8, 100, 5000.0), ("single calls, 32 clients", 32, 1, 800.0))
"""Name, clients, events a call and least events a second."""
PARTS = ("speed", "follow", "tries", "log", "servers")
"""Speed; a follower's cost; next calls; kills of a process that writes; kills of servers and
database."""
NUM_USERS, NUM_VIDEOS = 24_000, 7_583
Figures = dict[str, float]


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


def speed(log: EventLog, *, clients: int, size: int, seconds: float) -> Figures:
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


def of_user_ms(log: EventLog) -> float:
    """What it costs to read one user's events."""
    begin = time.perf_counter()
    for user in range(1000):
        log.of_user(f"u{user}")
    return time.perf_counter() - begin


def http_speed(run: str, address: str, *, clients: int, size: int, seconds: float) -> Figures:
    """`speed` through HTTP to one server, with the server's CPU time for an event."""
    with Servers(run, address, number=1) as server:
        load = put_load(
            server.addresses[0],
            clients=clients,
            seconds=seconds,
            servers=server.pids,
            cores=os.sched_getaffinity(0),
            script=EVENTS,
            arguments=(str(size), "wrk"),
        )
    with EventLog(address) as log:
        kept = log.counts().events
    if load.errors or kept < size * load.per_s * (seconds - 1):
        raise SystemExit(f"{load.errors} calls failed; {kept} events were kept: {load}")
    return {
        "events_per_s": size * load.per_s,
        "call_p50_ms": load.p50_ms,
        "call_p99_ms": load.p99_ms,
        "server_cpu_us_an_event": load.server_cpu_us / size,
    }


@contextmanager
def databases(kind: str) -> Iterator[tuple[Iterator[str], PostgresServer | None]]:
    """Addresses of as many empty logs as are asked for, and the server that holds them."""
    with work_folder() as folder:
        if kind == "sqlite":
            yield (f"{folder}/{number}/live.sqlite" for number in range(99)), None
            return
        binaries = find_binaries()
        if binaries is None:
            raise SystemExit("PostgreSQL's server is not installed; apt-get install postgresql")
        with postgres_server(binaries, fsync=True) as server:
            yield (make_database(server.address, f"bench_{n}") for n in range(99)), server


def measure(kind: str, run: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """All figures and bars of one database."""
    result = results[kind] = {}
    with databases(kind) as (addresses, database):
        if "speed" in args.parts:
            measure_speed(kind, run, addresses, args.seconds, results)
        if "follow" in args.parts:
            with work_folder() as folder:
                result["follow"] = following(folder, next(addresses))
            shown = ", ".join(f"{name} {us:.1f}" for name, us in result["follow"].items())
            print(f"{kind}, an event that is followed: {shown}", flush=True)
        if "tries" in args.parts:
            with Servers(run, next(addresses)) as servers:
                result["unseen"] = unseen_tries(servers.addresses, args.tries)
            name = f"{kind}: next calls of {args.tries} that do not know"
            bar(results, name, result["unseen"], 0, least=False)
        if "ray" in args.parts:
            result["unseen of Ray"] = through_ray(run, next(addresses), args.tries)
            name = f"{kind}: next calls of {args.tries} through Ray Serve that do not know"
            bar(results, name, result["unseen of Ray"], 0, least=False)
        storms: dict[str, Callable[[str], Storm]] = {
            "log": lambda address: storm(address, args.kills, seed=args.seed),
            "servers": lambda address: server_storm(
                run, address, args.kills, database=database, seed=args.seed
            ),
        }
        for name, blow in storms.items():
            if name not in args.parts:
                continue
            seen = result[f"kills of {name}"] = asdict(blow(next(addresses)))
            print(f"{kind}, {name}, {args.kills} x kill -9: {seen}")
            for what in ("lost", "twice", "torn", "missed", "counts"):
                if what in seen:
                    title = f"{kind}, {name}: {what} after {args.kills} kills"
                    bar(results, title, seen[what], 0, least=False)


def through_ray(run: str, address: str, tries: int) -> int:
    """`unseen_tries` at the one address of two replicas; both must have answered."""
    # The default, `leastconn`, sends a lone caller to the same one. In turn, each try's event goes
    # to one replica and its recommendation to the other.
    os.environ["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"] = "roundrobin"
    # Replicas have a working folder of their own.
    events = address if "://" in address else os.path.abspath(address)
    with running(run, port=0, replicas=2, events=events) as server:
        unseen = unseen_tries([server], tries)
        answered: Counter[str] = Counter()
        while len(answered) < 2:
            answered |= answers_of_a_replica(server)
    print(f"calls that each replica answered: {dict(answered)}", flush=True)
    assert min(answered.values()) > tries / 10, answered
    return unseen


def answers_of_a_replica(server: str) -> Counter[str]:
    """The name of the replica that happens to answer, and how many of our calls it has answered."""
    with urllib.request.urlopen(f"{server}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    labels = 'replica="(.+)",route="/v1/(?:events|recommend)",status="200"'
    calls: Counter[str] = Counter()
    for replica, number in re.findall(rf"recsys_request_seconds_count\{{{labels}\}} (\d+)", text):
        calls[replica] += int(number)
    return calls


def measure_speed(
    kind: str, run: str, addresses: Iterator[str], seconds: float, results: dict[str, Any]
) -> None:
    """Events a second of the log alone, and through HTTP."""
    for name, clients, size, least in CALLS:
        with EventLog(next(addresses)) as log:
            alone = speed(log, clients=clients, size=size, seconds=seconds)
            alone["of_user_ms"] = of_user_ms(log)
        http = http_speed(run, next(addresses), clients=clients, size=size, seconds=seconds)
        for way, figures in (("", alone), (" over HTTP", http)):
            title = f"{kind}{way}: events/s in {name}"
            results[kind][f"{name}{way}"] = figures
            print(f"{title}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()))
            bar(results, title, figures["events_per_s"], least, least=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of speed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tries", type=int, default=1000, help="of a like and the next call")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "ray"), default=PARTS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/live.json"))
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with work_folder() as run:
        make_run(Path(run))
        for kind in args.only:
            measure(kind, run, args, results)
    write(results, args.out)


if __name__ == "__main__":
    main()
