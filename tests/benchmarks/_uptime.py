"""What live counts cost a server that has run for 90 days: time of a request, and memory.

A catalogue of KuaiRand's size (7,583 videos, 38 count features) has 100 events a second: videos by
Zipf's law, so that some have thousands in each hour and some have none. The events of an hour are
handed over as one sum for each row: what is held then is the same as if they had come one by one.
Every day has the same 24 hours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from statistics import median

import numpy as np
import pyarrow as pa

from recsys.data.catalog import Catalog
from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import CountLayout, EventCounts
from recsys.features.hourly import HourlyCounts
from recsys.features.timelines import MS_PER_HOUR
from recsys.schema import video_schema

NUM_VIDEOS, NUM_CREATORS, NUM_CATEGORIES, NUM_TABS = 7_583, 6_000, 60, 15
LAYOUT = CountLayout(tasks=("is_click", "long_view"), contexts=("tab",))
RATES = np.array([0.4, 0.35, 0.25])
"""Of the positive flag and of each task."""
EVENTS_AN_HOUR, BASE_DAYS, DAYS = 360_000, 10, 90
BASE_HOUR = 480_000
"""The first hour of the bundle's counts, in 2024."""
NUM_ASKED, TRIES = 100, 300


def measure() -> dict[str, float]:
    """Simulates 90 days.

    Returns:
        `fresh_s` and `after_s`: seconds (median) for the count features of 100 videos, without live
        events and after 90 days of them;
        `bytes_1_day`, `bytes_45_days` and `bytes_90_days` of all live counts.
    """
    fresh, rng = _counts(), np.random.default_rng(1)
    aged = deepcopy(fresh)
    day = [list(_hour(aged, rng)) for _ in range(24)]
    first, sizes = BASE_HOUR + 24 * BASE_DAYS, {}
    for hour in range(first, first + 24 * DAYS):
        for name, rows, counts in day[hour % 24]:
            aged.hourly[name].add(rows, np.full(len(rows), hour), counts)
        sizes[hour - first + 1] = sum(hourly.live_bytes for hourly in aged.hourly.values())
    videos, tabs = rng.integers(1, NUM_VIDEOS + 1, NUM_ASKED), np.full((NUM_ASKED, 1), 3)
    makers: dict[str, Callable[..., FloatArray]] = {
        "fresh_s": fresh.features,
        "after_s": aged.features,
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(TRIES):
        for name, make in makers.items():
            now_ms = (first + (0 if "fresh" in name else 24 * DAYS)) * MS_PER_HOUR
            started = time.perf_counter()
            make(videos, tabs, now_ms)
            seconds[name].append(time.perf_counter() - started)
    return {name: median(measured) for name, measured in seconds.items()} | {
        f"bytes_{days}_day{'s' * (days > 1)}": sizes[24 * days] for days in (1, DAYS // 2, DAYS)
    }


def _counts() -> EventCounts:
    """A bundle's counts: ten days of the same events."""
    rng = np.random.default_rng(0)
    size = NUM_VIDEOS + 1
    columns: dict[str, object] = {name: [0] * size for name in video_schema().names}
    columns["video_id"], columns["uri"] = np.arange(size).astype(str), [""] * size
    columns["creator_row"] = [0, *rng.integers(1, NUM_CREATORS, NUM_VIDEOS)]
    tags = rng.integers(1, NUM_CATEGORIES, (NUM_VIDEOS, 2))
    columns["category_rows"] = [[], *(sorted(set(pair)) for pair in tags.tolist())]
    catalog = Catalog.from_table(pa.table(columns, schema=video_schema()))
    parts: dict[str, list[tuple[IntArray, IntArray, IntArray]]] = {n: [] for n in LAYOUT.stored}
    for hour in range(BASE_HOUR, BASE_HOUR + 24 * BASE_DAYS):
        for name, num_rows in zip(LAYOUT.stored, (NUM_VIDEOS, NUM_TABS), strict=True):
            rows, counts = _sums(rng, num_rows)
            parts[name].append((rows, np.full(len(rows), hour), counts))
    stored = {
        name: HourlyCounts(*(np.concatenate(arrays) for arrays in zip(*measured, strict=True)))
        for name, measured in parts.items()
    }
    return EventCounts.of(catalog, LAYOUT, stored)


def _hour(
    counts: EventCounts, rng: np.random.Generator
) -> Iterator[tuple[str, IntArray, IntArray]]:
    """Each counted thing with the rows (n,) that had events in an hour and sums (n, 2 + T)."""
    videos, sums = _sums(rng, NUM_VIDEOS)
    for name, rows_of in counts.rows_of.items():
        rows = rows_of.select(videos)
        yield name, rows.values.astype(np.int64), sums[rows.list_of_value]
    yield LAYOUT.context_names[0], *_sums(rng, NUM_TABS)


def _sums(rng: np.random.Generator, num_rows: int) -> tuple[IntArray, IntArray]:
    """Rows that had events in an hour, and their events and flags."""
    shares = 1 / np.arange(1, num_rows + 1) ** 1.1
    events = rng.multinomial(EVENTS_AN_HOUR, shares / shares.sum())
    flags = rng.binomial(events[:, None], RATES)
    rows = np.flatnonzero(events)
    return rows + 1, np.concatenate([events[:, None], flags], 1)[rows]
