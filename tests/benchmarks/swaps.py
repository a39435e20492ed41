"""Swaps under load: two replicas on Ray Serve, a swap each minute, a replica killed each two.

Two versions take turns. Recommendations are asked for at a steady rate, half of what the replicas
can answer, for users and a time at which both versions' answers are known; beside them come events.
Every answer is compared with what its version alone answers, so one that mixes two versions shows.
Counted are answers that are wrong, degraded or failed, and calls with events that failed; and of
the failed ones those that were not in flight at a kill, sent before it and without an answer yet.
A replica is killed only where another one serves: without any there is nobody to answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from ray import serve
from ray.serve.schema import ReplicaState

from recsys.bundle.contents import Bundle
from recsys.bundle.versions import CURRENT
from recsys.serve.app import APP_NAME, running
from recsys.serve.recommender import ServingRecommender
from tests.benchmarks._bars import bar, work_folder, write
from tests.benchmarks._bundle import make_bundle
from tests.benchmarks._load import descendants

NUM_USERS, K, REPLICAS = 100, 10, 2
TIMEOUT_S = 20.0
TOLERANCE = 1e-3
CONNECTIONS = 16


@dataclass(frozen=True)
class Failure:
    """A request without an answer; times are of `time.monotonic`."""

    sent: float
    ended: float
    text: str

    def was_in_flight(self, kill: float) -> bool:
        """Whether it had been sent when a replica was killed, and had no answer yet."""
        return self.sent <= kill <= self.ended


@dataclass
class Run:
    """What happened."""

    own: dict[str, dict[str, list[tuple[str, float]]]]
    """Of each version and user the list that it alone gives."""
    now_ms: int
    answers: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    degraded: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """That were answered, by status."""
    failed: list[Failure] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    put_off: int = 0
    """Kills that were left out, since the replica killed before had not come back."""


async def ask(client: Client, run: Run, user_id: str) -> None:
    due = time.monotonic()
    body = {"user_id": user_id, "k": K, "now_ms": run.now_ms}
    answer = await send(client, run, "/v1/recommend", body)
    if answer is None:
        return
    run.seconds.append(time.monotonic() - due)
    run.answers[answer["version"]] += 1
    if answer["degraded"] is not None:
        run.degraded += 1
        return
    expected = run.own[answer["version"]][user_id]
    told = [(item["video_id"], item["score"]) for item in answer["items"]]
    near = np.allclose([s for _, s in told], [s for _, s in expected], TOLERANCE, TOLERANCE)
    run.wrong += not (near and {v for v, _ in told} == {v for v, _ in expected})


async def tell(client: Client, run: Run, number: int) -> None:
    event = {"user_id": f"teller-{number % 50}", "video_id": f"v{1 + number % 1000}"}
    answer = await send(client, run, "/v1/events", event)
    run.events.update([] if answer is None else answer["statuses"])


async def send(client: Client, run: Run, path: str, body: dict[str, Any]) -> Any:
    """What is answered; None where that failed, which is counted."""
    async with client.room:
        sent = time.monotonic()
        try:
            response = await client.http.post(path, json=body)
        except httpx.HTTPError as error:
            text = repr(error)
        else:
            if response.status_code == 200:
                return response.json()
            text = f"{response.status_code} {response.text[:200]}"
        run.failed.append(Failure(sent, time.monotonic(), f"{path} {text}"))
        return None


class Client:
    """Connections to the server, and room for as many requests."""

    def __init__(self, address: str) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self.http = httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S, limits=limits)
        self.room = asyncio.Semaphore(CONNECTIONS)


async def fastest(address: str, run: Run, seconds: float = 5.0, clients: int = 8) -> float:
    """Recommendations a second of some clients that ask again at once."""
    client, ends = Client(address), time.monotonic() + seconds

    async def again(number: int) -> None:
        while time.monotonic() < ends:
            await ask(client, run, f"u{1 + number % NUM_USERS}")
            number += clients

    async with client.http:
        await asyncio.gather(*map(again, range(clients)))
    return len(run.seconds) / seconds


async def load(address: str, run: Run, rate: float, until: float) -> None:
    client = Client(address)
    async with client.http:
        waiting: set[asyncio.Task[None]] = set()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(work)
            waiting.add(task)
            task.add_done_callback(waiting.discard)

        number, begun = 0, time.monotonic()
        while time.monotonic() < until:
            begin(ask(client, run, f"u{1 + number % NUM_USERS}"))
            if number % 5 == 0:
                begin(tell(client, run, number))
            number += 1
            await asyncio.sleep(max(0, begun + number / rate - time.monotonic()))
        await asyncio.gather(*waiting)


async def trouble(bundles: Path, run: Run, every_s: float, until: float) -> None:
    """Has CURRENT name the two versions in turn; kills a replica at every second time."""
    versions, turn = sorted(run.own), 0
    while time.monotonic() + every_s / 2 < until:
        turn += 1
        version = versions[turn % 2]
        (bundles / CURRENT).write_text(f"{version}\n")
        published, before = time.monotonic(), run.answers[version]
        await asyncio.sleep(every_s / 2)
        if run.answers[version] == before:
            text = f"{version} did not serve after {every_s / 2:g} s"
            run.failed.append(Failure(published, time.monotonic(), text))
        if turn % 2 == 0:
            pids = descendants("ray::ServeReplica:recsys:Endpoint")
            if len(pids) == REPLICAS == await asyncio.to_thread(running_replicas):
                run.kills.append(time.monotonic())
                os.kill(pids[turn // 2 % len(pids)], signal.SIGKILL)
            else:
                run.put_off += 1
        told = f"{version} serves, {len(run.kills)} kills, {sum(run.answers.values())} answers, "
        print(f"swap {turn}: {told}{run.wrong} wrong, {len(run.failed)} failed", flush=True)
        await asyncio.sleep(every_s / 2)


def running_replicas() -> int:
    """Replicas that serve, as Ray Serve knows."""
    deployment = serve.status().applications[APP_NAME].deployments["Endpoint"]
    return deployment.replica_states.get(ReplicaState.RUNNING, 0)


def own_answers(bundles: Path, now_ms: int) -> dict[str, dict[str, list[tuple[str, float]]]]:
    own: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for version in sorted(path.name for path in bundles.iterdir() if path.is_dir()):
        recommender = ServingRecommender(Bundle.load(str(bundles / version)), seed=0)
        own[version] = {}
        for user_id in (f"u{1 + number}" for number in range(NUM_USERS)):
            videos = recommender.recommend(user_id, K, now_ms=now_ms).videos
            own[version][user_id] = [(video.video_id, video.score) for video in videos]
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two swaps")
    parser.add_argument("--rate", type=float, help="recommendations a second; half of the most")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/swaps.json"))
    args = parser.parse_args()
    os.environ.setdefault("RAY_ADDRESS", "local")
    with work_folder() as folder:
        now_ms = time.time_ns() // 1_000_000
        for seed in range(2):
            make_bundle(folder, end_ms=now_ms, seed=seed)
        bundles = Path(folder) / "bundles"
        # A time after all that the bundles know, and before all that happens now.
        run = Run(own_answers(bundles, now_ms + 1), now_ms + 1)
        with running(folder, port=0, replicas=REPLICAS) as address:
            warm = Run(run.own, run.now_ms)
            rate = args.rate or asyncio.run(fastest(address, warm)) / 2
            until = time.monotonic() + 60 * args.minutes

            async def both() -> None:
                await asyncio.gather(
                    load(address, run, rate, until),
                    trouble(bundles, run, args.every, until),
                )

            asyncio.run(both())
    report(run, rate, args.out)


def report(run: Run, rate: float, out: Path) -> None:
    loose = [one for one in run.failed if not any(map(one.was_in_flight, run.kills))]
    figures: dict[str, Any] = {
        "recommendations a second": rate,
        "answers": dict(run.answers),
        "events": dict(run.events),
        "kills": len(run.kills),
        "kills put off": run.put_off,
        "failed": len(run.failed),
        "degraded": run.degraded,
        "p50_ms": 1000 * float(np.median(run.seconds)),
        "p99_ms": 1000 * float(np.quantile(run.seconds, 0.99)),
        "failures": Counter(one.text for one in run.failed).most_common(5),
    }
    print(json.dumps(figures, indent=2))
    wrong = {
        "answers that mix versions or are wrong": run.wrong,
        "failed but not in flight at a kill": len(loose),
    }
    for name, number in wrong.items():
        bar(figures, name, number, 0, least=False)
    write(figures, out)


if __name__ == "__main__":
    main()
