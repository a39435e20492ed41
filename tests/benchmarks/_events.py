"""Viewing events of any size, in files as a log would have them: no file holds more than a million.

10 million events are of 350,000 users and 100,000 videos, over 30 days; other sizes in proportion,
unless they are said to be of more videos.
Popularity is as skewed as on real sites, users differ as much, and what is liked means nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.config.run import RunConfig, parse_config

USERS_AN_EVENT, VIDEOS_AN_EVENT, VIDEOS_A_CREATOR, NUM_CATEGORIES = 0.035, 0.01, 5, 60
TABS, DAYS = 10, 30
START_MS = 1_700_000_000_000
MS_PER_DAY = 24 * 3600 * 1000
A_FILE = 10**6


def write_world(
    folder: Path, num_events: int, *, num_videos: int | None = None, seed: int = 0
) -> None:
    """Writes `events/*.parquet` and `videos.parquet`, unless they are there."""
    if (folder / "videos.parquet").exists():
        return
    (folder / "events").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    num_users = int(num_events * USERS_AN_EVENT)
    num_videos = num_videos or int(num_events * VIDEOS_AN_EVENT)
    users = np.cumsum(rng.lognormal(sigma=1.0, size=num_users))
    videos = np.cumsum(rng.permutation(1 / np.arange(1, num_videos + 1) ** 0.8))
    span = DAYS * MS_PER_DAY / num_events
    for number, first in enumerate(range(0, num_events, A_FILE)):
        size = min(A_FILE, num_events - first)
        time_ms = START_MS + (first + rng.random(size) * size) * span
        columns = {
            "user": _ids("u", _drawn(rng, users, size)),
            "video": _ids("v", _drawn(rng, videos, size)),
            "ms": np.sort(time_ms.astype(np.int64)),
            "click": (rng.random(size) < 0.35).astype(np.int8),
            "long_view": (rng.random(size) < 0.25).astype(np.int8),
            "seconds": rng.exponential(15, size).astype(np.float32),
            "tab": _ids("", rng.integers(1, TABS + 1, size)),
        }
        pq.write_table(pa.table(columns), folder / "events" / f"{number:05d}.parquet")
    rows = np.arange(num_videos)
    table = {
        "video": _ids("v", rows),
        "uri": _ids("s3://videos/clips/2026/", rows),
        "creator": _ids("c", rng.integers(0, num_videos // VIDEOS_A_CREATOR, num_videos)),
        "category": _ids("", rng.integers(0, NUM_CATEGORIES, num_videos)),
        "duration": rng.uniform(5, 120, num_videos),
    }
    pq.write_table(pa.table(table), folder / "videos.parquet")


def _drawn(
    rng: np.random.Generator, totals: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.int64]:
    """Places drawn by weights, of which these are the running totals."""
    return np.searchsorted(totals, rng.random(size) * totals[-1])


def _ids(prefix: str, numbers: npt.NDArray[np.int64]) -> pa.Array:
    texts = pa.array(numbers).cast(pa.string())
    return pc.binary_join_element_wise(prefix, texts, "") if prefix else texts


def world_config(folder: Path, **more: object) -> RunConfig:
    """A run on the events: the last two days are validation and test."""
    days = [START_MS + (DAYS - left) * MS_PER_DAY for left in (2, 1)]
    tree = {
        "run": str(folder / "run"),
        "data": {
            "events": str(folder / "events"),
            "videos": str(folder / "videos.parquet"),
            "columns": {
                "user": "user",
                "video": "video",
                "time": "ms",
                "positive": "click",
                "tasks": ["click", "long_view"],
                "watched": "seconds",
                "context": ["tab"],
            },
            "video_columns": {
                "video": "video",
                "uri": "uri",
                "creator": "creator",
                "categories": ["category"],
                "duration": "duration",
            },
        },
        "split": {"kind": "time", "valid_from": days[0], "test_from": days[1]},
        "model": {"content": {"encoder": "none"}, "feature_dim": 32},
        **more,
    }
    return parse_config(tree, "benchmark config")
