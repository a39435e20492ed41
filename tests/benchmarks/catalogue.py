"""What the index of a large catalogue finds, and how fast; and finding one of millions of users.

Random vectors in clusters, of lengths that differ, with what trends added to the scores as a server
adds it; also under filters. Exact search and index take turns, one query at a time.

Shapes: N videos, D retrieval vector, Q queries.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.places import Places
from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import trending
from recsys.inference.index import VideoIndex

CLUSTERS, DIRECTIONS, K = 200, 16, 100
SHARES = (1.0, 0.5, 0.1, 0.01)
"""Of the videos that a filter leaves."""
BAR_RECALL, BAR_FILTERED, BAR_TIME = 0.98, 0.95, 0.2


def make(num_videos: int, num_queries: int, dim: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Vectors (N, D), queries (Q, D) and what trends (N,)."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    mixing = rng.normal(size=(DIRECTIONS, dim)).astype(np.float32)

    def points(count: int) -> FloatArray:
        found = 0.7 * centres[rng.integers(CLUSTERS, size=count)]
        found += rng.normal(size=(count, DIRECTIONS)).astype(np.float32) @ mixing / 4
        found += 0.3 * rng.normal(size=(count, dim)).astype(np.float32)
        unit: FloatArray = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    vectors = points(num_videos) * rng.uniform(0.5, 2, (num_videos, 1)).astype(np.float32)
    total = (5 * rng.pareto(1.0, num_videos)).astype(np.int64)
    recent = rng.binomial(total, rng.uniform(0, 0.3, num_videos))
    gains = trending(np.stack([total, recent], 1))
    return vectors, 3 * points(num_queries), gains


def compare(
    index: VideoIndex, exact: VideoIndex, queries: FloatArray, allowed: npt.NDArray[np.bool_] | None
) -> dict[str, float]:
    """Recall of the K best, and median seconds of a query by the index and exactly."""
    recalls, times = [], []
    for query in queries:
        found, index_s = timed(lambda q=query[None]: index.search(q, K, allowed=allowed)[0][0])
        expected, exact_s = timed(lambda q=query[None]: exact.search(q, K, allowed=allowed)[0][0])
        recalls.append(float(np.isin(expected, found).mean()))
        times.append((index_s, exact_s))
    index_s, exact_s = np.median(times, axis=0).tolist()
    return {"recall": float(np.mean(recalls)), "index_s": index_s, "flat_s": exact_s}


def timed(search: Callable[[], IntArray]) -> tuple[IntArray, float]:
    begin = time.perf_counter()
    found = search()
    return found, time.perf_counter() - begin


def users(count: int) -> dict[str, float]:
    """What it takes to find users by their ids."""
    ids = pa.array(np.char.add("user-", np.arange(count).astype(str)).tolist(), pa.string())
    begin = time.perf_counter()
    places = Places(ids)
    made = time.perf_counter()
    asked = np.random.default_rng(0).integers(count, size=10_000).tolist()
    wrong = sum(places.get(f"user-{place}") != place for place in asked)
    found = time.perf_counter()
    return {"make_s": made - begin, "one_s": (found - made) / 1e4, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/catalogue.json"))
    args = parser.parse_args()
    known = users(args.users)
    vectors, queries, gains = make(args.videos, args.queries, args.dim)
    begin = time.perf_counter()
    index = VideoIndex.build(vectors, kind="hnsw")
    build_s = time.perf_counter() - begin
    exact = VideoIndex.build(vectors, kind="flat")
    for one in (index, exact):
        one.set_bias(gains)
    rng = np.random.default_rng(1)
    filters = [None if share == 1 else rng.random(args.videos) < share for share in SHARES]
    found = {
        share: compare(index, exact, queries, allowed)
        for share, allowed in zip(SHARES, filters, strict=True)
    }
    whole = found[1.0]
    bars = {
        f"recall@{K}, {share:.0%} of the videos": at_least(
            one["recall"], BAR_RECALL if share == 1 else BAR_FILTERED
        )
        for share, one in found.items()
    }
    ratio = whole["index_s"] / whole["flat_s"]
    bars["time over flat's"] = {"value": ratio, "bar": BAR_TIME, "holds": ratio <= BAR_TIME}
    sizes = {name: getattr(args, name) for name in ("videos", "queries", "dim", "users")}
    result = {"sizes": sizes, "build_s": build_s, "shares": found, "users": known, "bars": bars}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def at_least(value: float, bar: float) -> dict[str, object]:
    return {"value": value, "bar": bar, "holds": value >= bar}


if __name__ == "__main__":
    main()
