"""What a replica pays for an event of the log that it follows.

A recommender on a bundle of KuaiRand-Pure's size, without a server, follows a log to which pages
tell of ten videos that were shown and then of a view of each. It reads it in steps, as a replica
does before each batch of requests: of 100 events where few come, of 1,000 where tens of thousands
come in a second; and in whole pages, as one that has fallen behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from recsys.bundle.contents import Bundle
from recsys.features.timelines import MS_PER_HOUR
from recsys.live.clock import now
from recsys.live.log.event import EXPOSURE, VIEW, Event
from recsys.live.log.events import PAGE, EventLog
from recsys.serve.recommender import ServingRecommender
from tests.benchmarks._bundle import MS_PER_DAY, NUM_USERS, NUM_VIDEOS, TABS, TASKS, make_bundle

SHOWN = 10
"""Videos of a list."""
A_CALL = 100
"""Events that are told of at once."""
STEPS = (100, 1000, PAGE)


def following(run: str, address: str, *, num_events: int = 3 * PAGE) -> dict[str, float]:
    """Microseconds an event by the size of a step: by the clock, and of this process's CPU.

    Args:
        run: An empty folder, for the bundle.
        address: Of an empty log.
        num_events: That are followed in steps of each size.
    """
    version = make_bundle(run, end_ms=now() - MS_PER_DAY)
    figures: dict[str, float] = {}
    with EventLog(address) as log:
        replica = ServingRecommender(Bundle.load(f"{run}/bundles/{version}"), log)
        events = _told(np.random.default_rng(0), len(STEPS) * num_events, now())
        for step in STEPS:
            wall_s = cpu_s = 0.0
            for _ in range(num_events // step):
                _append(log, [next(events) for _ in range(step)])
                wall, cpu = time.perf_counter(), time.process_time()
                replica.catch_up()
                wall_s += time.perf_counter() - wall
                cpu_s += time.process_time() - cpu
            figures[f"{step}: us"] = 1e6 * wall_s / num_events
            figures[f"{step}: cpu us"] = 1e6 * cpu_s / num_events
        assert replica.follower is not None
        followed = replica.follower.followed
        assert (followed.seq, followed.unknown_videos) == (log.latest_seq(), 0), followed
    return figures


def _append(log: EventLog, events: list[Event]) -> None:
    for first in range(0, len(events), A_CALL):
        log.append(events[first : first + A_CALL])


def _told(rng: np.random.Generator, count: int, end_ms: int) -> Iterator[Event]:
    """Lists of the last hour: what was shown, then how each of it was watched."""
    popularity = 1 / np.arange(1, NUM_VIDEOS + 1) ** 0.8
    popularity /= popularity.sum()
    for place in range(0, count, 2 * SHOWN):
        user, tab = f"u{rng.integers(NUM_USERS)}", str(rng.integers(TABS))
        time_ms = end_ms - MS_PER_HOUR + MS_PER_HOUR * place // count
        rows = 1 + rng.choice(NUM_VIDEOS, SHOWN, replace=False, p=popularity)
        videos = [f"v{row}" for row in rows]
        told = {"time_ms": time_ms, "context": {"tab": tab}, "impression_id": f"i{place}"}
        for number, video in enumerate(videos):
            yield Event(user, EXPOSURE, video, place=number, **told)
        for video in videos:
            labels = {task: bool(rng.random() < 0.3) for task in TASKS}
            yield Event(user, VIEW, video, watched=rng.exponential(10), labels=labels, **told)
