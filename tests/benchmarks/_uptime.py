"""What live counts cost a server that has run for 90 days: time of a request, and memory.

The benchmark's bundle (7,583 videos, 38 count features) has 100 events a second: videos by Zipf's
law, so that some have thousands in each hour and some have none. The events of an hour are handed
over as one sum for each row: what is held then is the same as if they had come one by one. Every
day has the same 24 hours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from statistics import median

import numpy as np
from _bundle import NUM_USERS, NUM_VIDEOS, TABS, make_bundle

from recsys.bundle.contents import Bundle
from recsys.data.ragged import IntArray
from recsys.features.counts import EventCounts
from recsys.features.hourly import HourlyCounts
from recsys.features.timelines import MS_PER_HOUR
from recsys.live.log.events import EventLog
from recsys.serve.recommender import ServingRecommender

RATES = np.array([0.4, 0.35, 0.25])
"""Of the positive flag and of each task."""
EVENTS_AN_HOUR, BASE_DAYS, DAYS = 360_000, 10, 90
FIRST_HOUR = 480_240
"""The hour after the bundle's counts, in 2024."""
NUM_ASKED, TRIES, HELD_USERS = 100, 300, 50
MANY_HOURS = 6
"""More than are kept of what follows from the counts of an hour."""


def measure(folder: str) -> dict[str, float]:
    """Simulates 90 days.

    Args:
        folder: For a bundle and two event logs.

    Returns:
        `features_fresh_s`, `score_fresh_s` and `first_score_fresh_s`: seconds (median) for the
        count features of 100 videos, for `score` of them, and for the first `score` of an hour,
        without live events; `…_after_s` after 90 days of them;
        `bytes_1_day`, `bytes_45_days` and `bytes_90_days`: the most that all live counts took in
        so many days (pairs of a row and an hour are put together now and then, so it goes up and
        down).
    """
    make_bundle(folder, end_ms=FIRST_HOUR * MS_PER_HOUR)
    bundle = Bundle.load(folder)
    fresh = _dense(bundle)
    aged = deepcopy(fresh)
    sizes = _live_90_days(aged)
    hours = {"fresh": FIRST_HOUR, "after": FIRST_HOUR + 24 * DAYS}
    makers: dict[str, Callable[[int], object]] = {}
    rng = np.random.default_rng(2)
    rows, tabs = rng.integers(1, NUM_VIDEOS + 1, NUM_ASKED), np.full((NUM_ASKED, 1), 3)
    ids = [f"v{row}" for row in rows]
    for name, counts in (("fresh", fresh), ("after", aged)):
        log = EventLog(f"{folder}/{name}.sqlite")
        recommender = ServingRecommender(replace(bundle, counts=counts), log)
        makers |= _makers(name, recommender, hours[name] * MS_PER_HOUR, (rows, tabs, ids))
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(-HELD_USERS, TRIES):
        for name, make in makers.items():
            started = time.perf_counter()
            make(turn)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(measured) for name, measured in seconds.items()} | sizes


def _makers(
    name: str,
    recommender: ServingRecommender,
    now_ms: int,
    asked: tuple[IntArray, IntArray, list[str]],
) -> dict[str, Callable[[int], object]]:
    """What is timed of a recommender, by name; each takes the number of the turn."""
    rows, tabs, ids = asked

    def score(turn: int, hours: int = 0) -> object:
        user_id = f"u{turn % HELD_USERS * (NUM_USERS // HELD_USERS)}"
        at_ms = now_ms + hours * MS_PER_HOUR
        return recommender.score(user_id, ids, context={"tab": "3"}, now_ms=at_ms)

    counts = recommender.bundle.counts
    return {
        f"features_{name}_s": lambda turn: counts.features(rows, tabs, now_ms),
        f"score_{name}_s": score,
        f"first_score_{name}_s": lambda turn: score(turn, 1 + turn % MANY_HOURS),
    }


def _live_90_days(counts: EventCounts) -> dict[str, float]:
    """Adds the events of 90 days; gives the most bytes of all live counts until some days."""
    rng = np.random.default_rng(1)
    day = [list(_hour(counts, rng)) for _ in range(24)]
    most, sizes = 0, {}
    for hour in range(24 * DAYS):
        for name, rows, sums in day[hour % 24]:
            counts.hourly[name].add(rows, np.full(len(rows), FIRST_HOUR + hour), sums)
        most = max(most, sum(hourly.live_bytes for hourly in counts.hourly.values()))
        sizes[hour + 1] = most
    return {f"bytes_{n}_day{'s' * (n > 1)}": sizes[24 * n] for n in (1, DAYS // 2, DAYS)}


def _dense(bundle: Bundle) -> EventCounts:
    """Counts of ten days of the same events, in place of the bundle's own."""
    rng, layout = np.random.default_rng(0), bundle.counts.layout
    parts: dict[str, list[tuple[IntArray, IntArray, IntArray]]] = {n: [] for n in layout.stored}
    for hour in range(FIRST_HOUR - 24 * BASE_DAYS, FIRST_HOUR):
        for name, num_rows in zip(layout.stored, (NUM_VIDEOS, TABS), strict=True):
            rows, sums = _sums(rng, num_rows)
            parts[name].append((rows, np.full(len(rows), hour), sums))
    stored = {
        name: HourlyCounts(*(np.concatenate(arrays) for arrays in zip(*measured, strict=True)))
        for name, measured in parts.items()
    }
    return EventCounts.of(bundle.catalog, layout, stored)


def _hour(
    counts: EventCounts, rng: np.random.Generator
) -> Iterator[tuple[str, IntArray, IntArray]]:
    """Each counted thing with the rows (n,) that had events in an hour and sums (n, 2 + T)."""
    videos, sums = _sums(rng, NUM_VIDEOS)
    for name, rows in counts.rows_of(videos).items():
        yield name, rows.values.astype(np.int64), sums[rows.list_of_value]
    yield counts.layout.context_names[0], *_sums(rng, TABS)


def _sums(rng: np.random.Generator, num_rows: int) -> tuple[IntArray, IntArray]:
    """Rows that had events in an hour, and their events and flags."""
    shares = 1 / np.arange(1, num_rows + 1) ** 1.1
    events = rng.multinomial(EVENTS_AN_HOUR, shares / shares.sum())
    flags = rng.binomial(events[:, None], RATES)
    rows = np.flatnonzero(events)
    return rows + 1, np.concatenate([events[:, None], flags], 1)[rows]
