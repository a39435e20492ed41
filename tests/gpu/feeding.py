"""What a worker's cores make of a partition for its GPU: steps with features and negatives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.config.data import EventColumns
from recsys.data.catalog import Catalog
from recsys.features.batches import Batcher, Candidates, VideoInputs, made_ahead
from recsys.features.counts import VIDEO, CountLayout, EventCounts
from recsys.features.hourly import HourlyCounts
from recsys.features.timelines import MS_PER_HOUR, Timelines
from recsys.schema import TRAIN, VALID, video_schema
from tests.gpu.decoding import Scale, timed

COLUMNS = EventColumns(tasks=("click", "like"), watched="seconds", context=("tab",))
HOURS, TABS = 30 * 24, 10


def feed(scale: Scale) -> dict[str, Any]:
    """Events a second of steps of 128 timelines: by one core, and by all but one of a worker's."""
    sizes = (300, 500) if scale.small else (10_000, 100_000)
    timelines, batcher = partition(*sizes)
    rng = np.random.default_rng(0)
    plan = batcher.plan(timelines, rng)
    part: dict[str, Any] = {}
    for name, threads in (("one core", 1), ("cores", max(1, scale.cores - 1))):

        def once(threads: int = threads) -> int:
            makers = (
                partial(batcher.make, timelines, *windows, own)
                for windows, own in zip(plan, rng.spawn(len(plan)), strict=True)
            )
            return sum(int(batch.learn.sum()) for batch in made_ahead(makers, threads=threads))

        rate, facts = timed(scale, once)
        part[name] = {"events_per_s": rate, "threads": threads, **facts}
    return part


def partition(num_users: int, num_videos: int) -> tuple[Timelines, Batcher]:
    """Users of 100 events each, and counts of ten times as many as all of theirs."""
    rng = np.random.default_rng(0)
    catalog = made_catalog(num_videos, rng)
    layout, counted = CountLayout.of(COLUMNS), 1000 * num_users
    hours, flags = rng.integers(0, HOURS, counted), rng.integers(0, 2, (counted, 3))
    counts = np.concatenate([np.ones((counted, 1), np.int64), flags], 1)
    stored = {
        name: HourlyCounts(rng.integers(1, rows, counted), hours, counts)
        for name, rows in zip(layout.stored, (num_videos, TABS), strict=True)
    }
    known = EventCounts.of(catalog, layout, {VIDEO: stored[VIDEO], **stored})
    total = 100 * num_users
    rows, tabs = rng.integers(1, num_videos, total), rng.integers(1, TABS, (total, 1))
    time_ms = np.sort(rng.integers(0, HOURS * MS_PER_HOUR, (num_users, 100)), axis=1).ravel()
    timelines = Timelines(
        user_ids=[str(user) for user in range(num_users)],
        offsets=np.arange(0, total + 1, 100),
        video_rows=rows,
        time_ms=time_ms,
        positive=rng.integers(0, 2, total).astype(np.int8),
        labels=rng.integers(0, 2, (total, 2)).astype(np.int8),
        watched=rng.uniform(0, 2, (total, 2)).astype(np.float32),
        context_rows=tabs,
        split=np.full(total, TRAIN, np.int8),
        count_features=known.on_demand(rows, tabs, time_ms),
        user_rows=np.zeros((num_users, 0), np.int64),
    )
    negatives = Candidates(np.ones(num_videos, np.int64), min(8192, num_videos // 2))
    videos = VideoInputs(catalog, np.arange(num_videos))
    return timelines, Batcher(videos, negatives, TRAIN, VALID, 128, 200)


def made_catalog(num_videos: int, rng: np.random.Generator) -> Catalog:
    """Videos of some creators, of one category each."""
    zeros = [0] * num_videos
    columns: dict[str, Any] = {name: zeros for name in video_schema().names}
    columns |= {"video_id": [None] * num_videos, "uri": [None] * num_videos}
    columns["creator_row"] = rng.integers(1, num_videos // 5, num_videos)
    columns["category_rows"] = rng.integers(1, 60, (num_videos, 1)).tolist()
    columns["duration_bucket"] = rng.integers(0, 32, num_videos)
    return Catalog.from_table(pa.table(columns, schema=video_schema()))
