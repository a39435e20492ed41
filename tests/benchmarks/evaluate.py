"""How much the measuring costs on top of the bare ranking.

Ranks random videos for random users with `recsys.evaluation` and, in turns with it, with nothing
but a matrix product and a topk, both in chunks; then in a process of its own to see its memory.
What it costs to tune and make the baselines, and to rank with EASE, is measured once.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _bars import bar, write

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.likes import DAY_MS, Likes
from recsys.evaluation.baselines.table import make_baselines
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import CHUNK_SCORES, evaluate_ranker
from recsys.inference.ranker import dot_product
from recsys.schema import TRAIN, VALID

BAR_TIMES, BAR_BYTES = 2.5, 2e9
"""The bare ranking masks no history and lists no warm and cold videos among their own."""


def make(args: argparse.Namespace) -> tuple[RankingSet, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    videos = VideoTable(
        rng.random(args.videos) < 0.1,
        rng.zipf(1.5, args.videos).clip(max=10**6),
        rng.integers(1, args.videos // 4, args.videos).astype(np.int32),
        lists(rng, args.videos, 2, 200),
        rng.uniform(-1, 60, args.videos),
    )
    users = [str(user) for user in range(args.users)]
    relevant, known = (
        lists(rng, args.users, 4, args.videos),
        lists(rng, args.users, 30, args.videos),
    )
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(args.users, args.dim, generator=generator)
    vectors = torch.randn(args.videos, args.dim, generator=generator)
    # Users are near what they will like, so that lists have hits, which cost more than misses.
    owners, rows = torch.from_numpy(relevant.list_of_value), torch.from_numpy(relevant.values)
    queries.index_add_(0, owners, 0.3 * vectors[rows.long()])
    return RankingSet(users, relevant, known, videos), queries, vectors


def lists(rng: np.random.Generator, count: int, mean: int, values: int) -> Ragged:
    """Lists of different numbers from 1, `mean` long on average."""
    owner = np.repeat(np.arange(count), rng.integers(1, 2 * mean, count))
    keys = np.unique(owner * values + rng.integers(1, values, len(owner)))
    offsets = np.searchsorted(keys, np.arange(count + 1) * values)
    return Ragged(offsets, (keys % values).astype(np.int32))


def bare(queries: torch.Tensor, vectors: torch.Tensor, k: int) -> float:
    begin = time.perf_counter()
    step = max(1, CHUNK_SCORES // len(vectors))
    for start in range(0, len(queries), step):
        torch.topk(queries[start : start + step] @ vectors.T, k)
    return time.perf_counter() - begin


def ours(data: RankingSet, queries: torch.Tensor, vectors: torch.Tensor, k: int) -> float:
    begin = time.perf_counter()
    evaluate_ranker(data, dot_product(queries, vectors), EvaluateConfig(k=(10, k)))
    return time.perf_counter() - begin


def baselines(data: RankingSet, k: int) -> dict[str, float]:
    """Seconds of tuning and making all of them, and of ranking with EASE; peak memory, bytes."""
    rng, count = np.random.default_rng(1), len(data.known.values)
    split = np.where(rng.random(count) < 0.1, VALID, TRAIN).astype(np.int8)
    likes = Likes(data.known, rng.integers(0, 10 * DAY_MS, count), split)
    begin = time.perf_counter()
    table = make_baselines(likes, data, EvaluateConfig(k=(10, k)))
    made = time.perf_counter()
    evaluate_ranker(data, table.rankers["EASE"], EvaluateConfig(k=(10, k)))
    ranked = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"make": made - begin, "rank_ease": ranked - made, "peak_bytes": peak}


def alone(option: str) -> Any:
    """What this script finds in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], option]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/evaluate.json"))
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--baselines-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    data, queries, vectors = make(args)
    if args.memory_only:
        ours(data, queries, vectors, args.k)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    if args.baselines_only:
        print(json.dumps(baselines(data, args.k)))
        return
    bare(queries[:2000], vectors, args.k)  # warm up
    times = [
        (bare(queries, vectors, args.k), ours(data, queries, vectors, args.k))
        for _ in range(args.repeats)
    ]
    peak, others = alone("--memory-only"), alone("--baselines-only")
    report(args, [t for t, _ in times], [t for _, t in times], peak, others)


def report(
    args: argparse.Namespace,
    bare_s: list[float],
    ours_s: list[float],
    peak: int,
    others: dict[str, float],
) -> None:
    ratio = median(o / b for b, o in zip(bare_s, ours_s, strict=True))
    bars = {
        "time over the bare matrix product + topk": (ratio, BAR_TIMES),
        "peak memory, bytes": (peak, BAR_BYTES),
    }
    result: dict[str, Any] = {
        "sizes": {name: getattr(args, name) for name in ("users", "videos", "dim", "k")},
        "seconds": {"bare": bare_s, "ours": ours_s},
        "baselines": others,
    }
    print(f"{args.users:,} users x {args.videos:,} videos, dim {args.dim}, k {args.k}")
    print(f"  bare {median(bare_s):8.2f} s    ours {median(ours_s):8.2f} s    ratio {ratio:.2f}")
    print(f"  peak memory {peak / 1e9:.2f} GB (bar {BAR_BYTES / 1e9:g} GB)")
    print(
        f"  baselines tuned and made in {others['make']:.0f} s, EASE ranked and measured in ",
        end="",
    )
    print(f"{others['rank_ease']:.0f} s, peak memory {others['peak_bytes'] / 1e9:.2f} GB")
    for name, (value, limit) in bars.items():
        bar(result, name, value, limit, least=False)
    write(result, args.out)


if __name__ == "__main__":
    main()
