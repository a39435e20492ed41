"""Serving: recommendations a second and their latency, through Ray Serve and on bare uvicorn.

A bundle of KuaiRand's size with random weights (`_bundle.py`), wrk as the client on loopback. The
same application on bare uvicorn and through Ray Serve take turns, with one client and with 32, each
server on one core and wrk on the others. Then two replicas beside one, each with the same share of
a core. On a machine with one core, or where the process may use one alone, all share it, and the
figures say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import _uptime
import numpy as np
import torch
import uvicorn
from _bars import bar, work_folder, write
from _bundle import MS_PER_DAY, NUM_USERS, NUM_VIDEOS, make_bundle
from _load import Load, descendants, find_wrk, pin, put_load
from _quota import cpu_quota
from _soak import soak

from recsys.bundle.contents import Bundle
from recsys.bundle.versions import find_bundle
from recsys.live.attribution.open_showings import CAPACITY
from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.app import free_port, running
from recsys.serve.endpoint import log_address
from recsys.serve.memory import give_back
from recsys.serve.priority import hand_over_soon, spare_what_stays
from recsys.serve.service import Service

ONE, MANY = 1, 32
"""Clients at a time."""
BAR_LATENCY, BAR_RATE, BAR_MANY, BAR_P99_MS, BAR_REPLICAS = 2.0, 1000.0, 2.5, 80.0, 1.6
SHARE = 0.4
"""Of a core that each of two replicas gets, and the one that they are compared with."""
TIMED = {
    "features": "count features of 100 videos",
    "score": "score of 100 videos",
    "first_score": "an hour's first score of 100 videos",
}
"""What `_uptime.measure` times."""
WARM_UPS = 6
AT_ONCE = 1_000
"""Events of a call."""
START_S = 120


def speed(run: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """One replica beside bare uvicorn."""
    with bare_server(run) as bare, running(run, port=0) as served:
        servers = {"bare": (bare[0], [bare[1]]), "serve": (served, replicas())}
        loads = in_turn(servers, args)
    results["loads"] = {name: [asdict(load) for load in rounds] for name, rounds in loads.items()}
    rate = {name: median(load.per_s for load in rounds) for name, rounds in loads.items()}
    p50 = {name: median(load.p50_ms for load in rounds) for name, rounds in loads.items()}
    p99 = median(load.p99_ms for load in loads[f"serve, {MANY}"])
    one, many = rate[f"serve, {ONE}"], rate[f"serve, {MANY}"]
    over_bare = p50[f"serve, {ONE}"] / p50[f"bare, {ONE}"]
    bar(results, "1 client: p50 through Serve over bare", over_bare, BAR_LATENCY, least=False)
    bar(results, "32 clients, one replica: recommend/s", many, BAR_RATE, least=True)
    bar(results, "32 clients over 1 client", many / one, BAR_MANY, least=True)
    bar(results, "32 clients, one replica: p99 ms", p99, BAR_P99_MS, least=False)
    errors = sum(load.errors for rounds in loads.values() for load in rounds)
    bar(results, "requests that failed", errors, 0, least=False)


def two_replicas(run: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Two replicas over one, each with the same share of a core: the most that each number does.

    Two whole cores for them would leave none for the load and for HAProxy on a machine of two. With
    as many clients as one replica has, two have half as many each, so that both numbers are asked
    by `MANY` clients and by `MANY` for each of two replicas.
    """
    rates: dict[int, dict[int, float]] = {}
    for number in (1, 2):
        with running(run, port=0, replicas=number) as served, ExitStack() as stack:
            stack.enter_context(cpu_quota(replicas(), SHARE))
            first = {"servers": replicas(), "cores": os.sched_getaffinity(0)}
            # The same users again and again, until each replica has met nearly all of them.
            for _ in range(WARM_UPS):
                put_load(served, seconds=args.seconds, clients=MANY, **first)
            loads = [
                put_load(served, seconds=args.seconds, clients=clients, **first)
                for clients in (MANY, 2 * MANY)
            ]
        for load in loads:
            show(f"{number} replicas of {SHARE} of a core", load)
        rates[number] = {load.clients: load.per_s for load in loads}
    results["replicas"] = rates
    most = {number: max(by_clients.values()) for number, by_clients in rates.items()}
    bar(results, "2 replicas over one", most[2] / most[1], BAR_REPLICAS, least=True)
    for clients in rates[1]:
        print(
            f"  with {clients} clients: {rates[2][clients] / rates[1][clients]:.2f} x", flush=True
        )


def uptime(run: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """What 90 days of events do to a request and to memory."""
    with TemporaryDirectory() as folder:
        seen = results["uptime"] = _uptime.measure(folder)
    print(", ".join(f"{name} {value:,.6g}" for name, value in seen.items()), flush=True)
    for name, what in TIMED.items():
        over = seen[f"{name}_after_s"] / seen[f"{name}_fresh_s"]
        bar(results, f"{what} after 90 days over fresh", over, 1.2, least=False)
    grown = seen["bytes_90_days"] / seen["bytes_45_days"]
    bar(results, "most memory of live counts in 90 days over 45", grown, 1.05, least=False)


def half_load(run: str, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """A soak of one replica, with events, that remembers as many showings as it ever will."""
    if not args.soak_minutes:
        return
    fill_log(run)
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    with running(run, port=0) as served:
        (pid,) = replicas()
        pin(pid, {cores[0]})
        others = cores[1:] or cores
        seen = soak(served, pid, minutes=args.soak_minutes, per_s=args.soak_rate, cores=others)
    results["soak"] = asdict(seen)
    print(f"soak: {seen.load}, memory {seen.growth:.3f} x", flush=True)
    bar(results, "private memory's growth after 5 minutes", seen.growth, 1.05, least=False)
    bar(results, "soak: requests that failed", seen.load["errors"], 0, least=False)


def fill_log(run: str) -> None:
    """A day's events, by users and of videos by chance: as many as a replica remembers showings of.

    A replica with an empty log would take twenty minutes of a soak to get to its bound.
    """
    rng, now_ms = np.random.default_rng(0), time.time_ns() // 1_000_000
    users, videos = rng.integers(0, NUM_USERS, CAPACITY), rng.integers(1, NUM_VIDEOS + 1, CAPACITY)
    times = np.linspace(now_ms - MS_PER_DAY, now_ms, CAPACITY).astype(np.int64).tolist()
    events = [
        Event(f"u{user}", VIEW, f"v{video}", time_ms=time_ms, watched=3.5)
        for user, video, time_ms in zip(users, videos, times, strict=True)
    ]
    with EventLog(log_address(find_bundle(run), None)) as log:
        for start in range(0, CAPACITY, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            log.append(events[part], received_ms=times[part])


MEASUREMENTS = (speed, two_replicas, uptime, half_load)
"""What is measured, one after the other: each takes the run folder, the arguments and `results`."""


def in_turn(
    servers: Mapping[str, tuple[str, list[int]]], args: argparse.Namespace
) -> dict[str, list[Load]]:
    """Loads of each server with one client and with many, which take turns `rounds` times.

    Args:
        servers: Address and processes by name; the processes get a core each.
        args: Of the command line.
    """
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    for _, pids in servers.values():
        for place, pid in enumerate(pids):
            pin(pid, {cores[place % len(cores)]})
    loads: dict[str, list[Load]] = {}
    for name, (address, pids) in servers.items():
        # Every user's first request, whose past is made then; afterwards it is at hand.
        others = cores[len(pids) :] or cores
        load = put_load(
            address, clients=MANY, seconds=args.first_seconds, servers=pids, cores=others
        )
        loads[f"{name}, first requests"] = [load]
        show(f"{name}, first requests", load)
    for _ in range(args.rounds):
        for clients in (ONE, MANY):
            for name, (address, pids) in servers.items():
                others = cores[len(pids) :] or cores
                load = put_load(
                    address, clients=clients, seconds=args.seconds, servers=pids, cores=others
                )
                loads.setdefault(f"{name}, {clients}", []).append(load)
                show(name, load)
    return loads


def show(name: str, load: Load) -> None:
    print(
        f"{name}, {load.clients} clients: {load.per_s:,.0f}/s, p50 {load.p50_ms:.1f} ms, "
        f"p99 {load.p99_ms:.1f} ms, {load.server_cpu_us:,.0f} µs of the server's CPU each"
        + (f", {load.errors} FAILED" if load.errors else ""),
        flush=True,
    )


def replicas() -> list[int]:
    """The processes of the replicas that this program has started."""
    return descendants("ray::ServeReplica:recsys:Endpoint")


@contextmanager
def bare_server(run: str) -> Iterator[tuple[str, int]]:
    """The application without Ray, in a process of its own: its address and process."""
    port = free_port("127.0.0.1", 0)
    server = subprocess.Popen([sys.executable, __file__, "--bare", run, "--port", str(port)])
    address, give_up = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while not answers(f"{address}/healthz"):
            if server.poll() is not None or time.monotonic() > give_up:
                raise SystemExit("the application on bare uvicorn did not start")
            time.sleep(0.2)
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def serve_bare(run: str, port: int) -> None:
    """The replica's own application, by the server that Ray Serve's replicas use too."""
    torch.set_num_threads(1)
    hand_over_soon()
    give_back()
    service = Service(Bundle.load(run), EventLog(log_address(find_bundle(run), None)))
    app = make_api(service)
    spare_what_stays()
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--first-seconds", type=float, default=40.0, help="of first requests")
    parser.add_argument("--soak-minutes", type=float, default=30.0, help="0 leaves the soak out")
    parser.add_argument("--soak-rate", type=float, default=600.0, help="requests a second")
    parser.add_argument("--only", choices=[m.__name__ for m in MEASUREMENTS], nargs="*")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the median counts")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/serving.json"))
    parser.add_argument("--bare", metavar="RUN", help="only serve this run, without Ray")
    parser.add_argument("--port", type=int, default=8000, help="with --bare")
    args = parser.parse_args()
    if args.bare:
        serve_bare(args.bare, args.port)
        return
    find_wrk()
    os.environ.setdefault("RAY_ADDRESS", "local")
    results: dict[str, Any] = {"cores": sorted(os.sched_getaffinity(0))}
    with work_folder() as folder:
        make_bundle(folder, end_ms=time.time_ns() // 1_000_000)
        for measure in MEASUREMENTS:
            if args.only is None or measure.__name__ in args.only:
                measure(folder, args, results)
    write(results, args.out)


if __name__ == "__main__":
    main()
