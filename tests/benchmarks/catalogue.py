"""What the index of a large catalogue finds, and how fast; and finding one of millions of users.

Random vectors in clusters, of lengths that differ, with what trends added to the scores as a server
adds it; also under filters and with videos that came live. Comparing all and index take turns of
`TURN` searches, one search at a time, both as a server makes them. In turns of one (`--turn 1`)
each search finds in the caches what the other one left, and no server has both.

Shapes: N videos, D retrieval vector, Q queries.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
import pyarrow as pa
import torch
from _bars import bar, write

from recsys.data.places import Places
from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import trending
from recsys.inference.index import VideoIndex
from recsys.serve.retrieve.retrieval import Retriever, Search
from recsys.serve.versions.index_recall import AIM, MARGINS

T = TypeVar("T")

CLUSTERS, DIRECTIONS, K = 200, 16, 100
SHARES = (0.5, 0.1, 0.01)
"""Of the videos that a filter leaves."""
TURN = 20
BAR_RECALL, BAR_OTHER, BAR_TIME = 0.98, 0.95, 0.2


def make(num_videos: int, num_queries: int, dim: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Vectors (N, D), queries (Q, D) and what trends (N,)."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    mixing = rng.normal(size=(DIRECTIONS, dim)).astype(np.float32)

    def points(count: int) -> FloatArray:
        points_ND = 0.7 * centres[rng.integers(CLUSTERS, size=count)]
        points_ND += rng.normal(size=(count, DIRECTIONS)).astype(np.float32) @ mixing / 4
        points_ND += 0.3 * rng.normal(size=(count, dim)).astype(np.float32)
        unit: FloatArray = points_ND / np.linalg.norm(points_ND, axis=1, keepdims=True)
        return unit

    vectors = points(num_videos) * rng.uniform(0.5, 2, (num_videos, 1)).astype(np.float32)
    total = (5 * rng.pareto(1.0, num_videos)).astype(np.int64)
    recent = rng.binomial(total, rng.uniform(0, 0.3, num_videos))
    gains = trending(np.stack([total, recent], 1))
    return vectors, 3 * points(num_queries), gains


class Added:
    """Videos that came live behind those of the index: what a retriever asks of a catalogue."""

    def __init__(self, vectors: FloatArray, num_indexed: int) -> None:
        self._vectors, self._num_indexed = torch.from_numpy(vectors), num_indexed

    @property
    def num_live(self) -> int:
        return len(self._vectors) - self._num_indexed

    @property
    def live_rows(self) -> IntArray:
        return np.arange(self._num_indexed, len(self._vectors))

    @property
    def live_MY(self) -> torch.Tensor:
        return self._vectors[self._num_indexed :]

    def vectors(self, rows: IntArray) -> torch.Tensor:
        return self._vectors[torch.from_numpy(rows)]


def compare(
    index: Retriever, exact: Retriever, searches: Sequence[Search], turn: int
) -> dict[str, float]:
    """Recall of the K best, and median seconds of a search by the index and exactly."""
    recalls: list[float] = []
    times: dict[str, list[float]] = {"index_s": [], "flat_s": []}
    for begin in range(0, len(searches), turn):
        group = searches[begin : begin + turn]
        rows: dict[str, list[IntArray]] = {}
        for name, retriever in (("index_s", index), ("flat_s", exact)):
            timed_searches = [
                timed(lambda one=one, r=retriever: r.best([one], K)[0][0]) for one in group
            ]  # type: ignore[misc]
            rows[name] = [best for best, _ in timed_searches]
            times[name] += [seconds for _, seconds in timed_searches]
        for best, right in zip(rows["index_s"], rows["flat_s"], strict=True):
            recalls.append(float(np.isin(right, best).mean()))
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    return {"recall": float(np.mean(recalls)), **medians}


def measure(
    vectors: FloatArray, queries: FloatArray, gains: FloatArray, num_added: int, turn: int
) -> dict[str, Any]:
    """Seconds to build, the margin that is needed, and `compare` of each kind of search.

    The last `num_added` of the vectors (N, D) are those of videos that came live.
    """
    nobody, none = np.zeros(0, np.int64), np.zeros(0, np.float32)
    rng = np.random.default_rng(1)

    def searches(share: float, num: int) -> list[Search]:
        allowed = None if share == 1 else rng.random(num) < share
        trending = gains[:num]  # one array, as a server has it for an hour
        return [Search(query, trending, nobody, none, nobody, allowed) for query in queries]

    first = vectors[: len(vectors) - num_added]
    index, build_s = timed(lambda: VideoIndex.build(first))
    exact, whole = Retriever(None, first), searches(1.0, len(first))
    for margin in MARGINS:
        by_index = Retriever(index.with_margin(margin), first)
        by_index.best(whole[:1], K)
        if (of_all := compare(by_index, exact, whole, turn))["recall"] >= AIM:
            break
    kinds = {"all": of_all}
    for share in SHARES:
        filtered = searches(share, len(first))
        by_index.best(filtered[:1], K)
        kinds[f"{share:.0%}"] = compare(by_index, exact, filtered, turn)
    live: Any = Added(vectors, len(first))
    both = [Retriever(made, first, catalogue=live) for made in (index.with_margin(margin), None)]
    whole = searches(1.0, len(vectors))
    both[0].best(whole[:1], K)
    kinds["while videos are added"] = compare(*both, whole, turn)
    return {"build_s": build_s, "margin": margin, "kinds": kinds}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begin = time.perf_counter()
    done = work()
    return done, time.perf_counter() - begin


def users(count: int) -> dict[str, float]:
    """What it takes to find users by their ids."""
    ids = pa.array(np.char.add("user-", np.arange(count).astype(str)).tolist(), pa.string())
    begin = time.perf_counter()
    places = Places(ids)
    made = time.perf_counter()
    asked = np.random.default_rng(0).integers(count, size=10_000).tolist()
    wrong = sum(places.get(f"user-{place}") != place for place in asked)
    ended = time.perf_counter()
    return {"make_s": made - begin, "one_s": (ended - made) / 1e4, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--added", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--turn", type=int, default=TURN)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/catalogue.json"))
    args = parser.parse_args()
    known = users(args.users)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    measured = measure(*make(args.videos, args.queries, args.dim), args.added, args.turn)
    names = ("videos", "added", "queries", "dim", "users", "turn")
    sizes = {name: getattr(args, name) for name in names}
    result: dict[str, Any] = {"sizes": sizes, **measured, "users": known}
    print(json.dumps(result, indent=2))
    for kind, one in measured["kinds"].items():
        least = BAR_RECALL if kind == "all" else BAR_OTHER
        bar(result, f"recall@{K}, {kind}", one["recall"], least, least=True)
    whole = measured["kinds"]["all"]
    bar(result, "time over flat's", whole["index_s"] / whole["flat_s"], BAR_TIME, least=False)
    write(result, args.out)


if __name__ == "__main__":
    main()
