"""What the index of a large catalogue finds, and how fast; and finding one of millions of users.

Random vectors in clusters, of lengths that differ, with what trends added to the scores as a server
adds it; also under filters. Comparing all and index take turns of `TURN` searches, one search at a
time, both as a server makes them. In turns of one (`--turn 1`) each search finds in the caches what
the other one left, and no server has both.

Then videos are added: another process writes them beside the event log all the time, and before
each search a replica takes in those that have come, as before each batch of requests. The same
replica then compares all, of the same videos, in turns of one.

Shapes: N videos, D retrieval vector, Q queries, A videos that are added.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
import pyarrow as pa
import torch
from _bars import bar, work_folder, write
from _large_replica import make_replica, start_adding

from recsys.data.places import Places
from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import trending
from recsys.inference.index import VideoIndex
from recsys.live.log.events import EventLog
from recsys.serve.recommender import ServingRecommender
from recsys.serve.retrieve.retrieval import Retriever, Search
from recsys.serve.versions.index_recall import AIM, MARGINS, SHARES

T = TypeVar("T")

CLUSTERS, DIRECTIONS, K = 200, 16, 100
NOBODY, NOTHING = np.zeros(0, np.int64), np.zeros(0, np.float32)
DIM = 64
"""That of the model whose replica takes videos in."""
TURN, LOOKS_S = 20, 0.01
BAR_RECALL, BAR_OTHER, BAR_TIME = 0.98, 0.95, 0.2


def make(num_videos: int, num_queries: int, dim: int) -> tuple[FloatArray, FloatArray, IntArray]:
    """Vectors (N, D), queries (Q, D) and how often each was shown, in all and of late (N, 2)."""
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
    return vectors, 3 * points(num_queries), np.stack([total, recent], 1)


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
    vectors: FloatArray, queries: FloatArray, shown_N2: IntArray, num_added: int, turn: int
) -> dict[str, Any]:
    """Seconds to build, the margin that is needed, and `compare` of each kind of search.

    The last `num_added` of the vectors are those of videos that come live.
    """
    first, added = np.split(vectors, [len(vectors) - num_added])
    rng, gains = np.random.default_rng(1), trending(shown_N2[: len(first)])

    def searches(share: float) -> list[Search]:
        allowed = None if share == 1 else rng.random(len(first)) < share
        # What trends is one array, as a server has it for an hour.
        return [Search(query, gains, NOBODY, NOTHING, NOBODY, allowed) for query in queries]

    index, build_s = timed(lambda: VideoIndex.build(first))
    exact, whole = Retriever(None, first), searches(1.0)
    for margin in MARGINS:
        by_index = Retriever(index.with_margin(margin), first)
        by_index.best(whole[:1], K)
        if (of_all := compare(by_index, exact, whole, turn))["recall"] >= AIM:
            break
    kinds = {"all": of_all}
    for share in SHARES:
        filtered = searches(share)
        by_index.best(filtered[:1], K)
        kinds[f"{share:.0%}"] = compare(by_index, exact, filtered, turn)
    now_ms = time.time_ns() // 1_000_000
    with work_folder() as folder, EventLog(address := f"{folder}/live.sqlite") as log:
        given = (index.with_margin(margin), first, shown_N2[: len(first)])
        replica = make_replica(folder, log, *given, now_ms=now_ms)
        kinds["while videos are added"] = while_added(replica, address, queries, added, now_ms)
    return {"build_s": build_s, "margin": margin, "kinds": kinds}


def while_added(
    replica: ServingRecommender,
    address: str,
    queries: FloatArray,
    vectors_AD: FloatArray,
    now_ms: int,
) -> dict[str, float]:
    """What `compare` says of searches from the first video that is added to the last.

    Also how many searches these were, how many of them came after new videos, and the median
    seconds that it took to take these in.
    """
    parts, bundle = replica.parts, replica.bundle
    recalls, times = [], {"index_s": [], "flat_s": [], "take_in_s": []}
    adding = start_adding(address, bundle.version, vectors_AD, bundle.recommender.vector_dim)
    while adding.is_alive() and not parts.catalogue.num_live:
        time.sleep(LOOKS_S)
        replica.catch_up()
    while adding.is_alive():
        before = parts.catalogue.num_live
        _, take_in_s = timed(replica.catch_up)
        if parts.catalogue.num_live > before:
            times["take_in_s"].append(take_in_s)
        query, unlisted = queries[len(recalls) % len(queries)], parts.catalogue.unlisted(now_ms)
        search = [Search(query, parts.trending.at(now_ms), NOBODY, NOTHING, unlisted)]
        (best, _), index_s = timed(partial(parts.retriever.best, search, K))
        (right, _), flat_s = timed(partial(parts.retriever.exact, search, K))
        times["index_s"].append(index_s)
        times["flat_s"].append(flat_s)
        recalls.append(float(np.isin(right, best).mean()))
    replica.catch_up()
    assert parts.catalogue.num_live == len(vectors_AD), "the process that adds has failed"
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    counts = {"searches": len(recalls), "after_new_videos": len(times["take_in_s"])}
    return {"recall": float(np.mean(recalls)), **medians, **counts}


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
    parser.add_argument("--added", type=int, default=1_000, help="while it is searched")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--turn", type=int, default=TURN)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/catalogue.json"))
    args = parser.parse_args()
    known = users(args.users)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    measured = measure(*make(args.videos, args.queries, DIM), args.added, args.turn)
    names = ("videos", "added", "queries", "users", "turn")
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
