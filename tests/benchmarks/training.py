"""The training step: against plain PyTorch, with a large table, and with two workers.

Three questions, each answered by processes of their own on one made world (20,000 videos shown,
timelines of 5 to 100 events, the model's default sizes):

- Events a second of the sharded step (TorchRec, fused row-wise Adagrad) against the same model in
  plain PyTorch: nn.Embedding, sparse gradients, torch.optim.Adagrad. The two take turns step by
  step in one process, on the same batches.
- A video table of many million rows against one of 20,000: time of a step, and the most memory that
  the process held, over the size of the table and its optimizer state. That is all of it: PyTorch,
  TorchRec and FBGEMM, a partition of timelines at a time as in training, and what a step needs.
  (Ray and pandas, which a training worker holds too, are not in it.)
- Two workers of one thread each against one: events a second of both together, with each way of
  exchanging (`EXCHANGES`). Beside it stands what two processes reach that exchange nothing: no more
  can come of one machine's two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from _bars import bar, write

from recsys.config.run import RunConfig, parse_config
from recsys.data.catalog import Catalog
from recsys.data.ragged import Ragged
from recsys.features.batches import Batcher, Candidates, VideoInputs, in_step
from recsys.features.counts import CountLayout
from recsys.features.inputs import Batch, Sizes
from recsys.features.timelines import Timelines
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Losses, Recommender, table_specs
from recsys.schema import TRAIN, VALID, video_schema
from recsys.train.sharding import build_sharded
from recsys.train.trainable import TABLE_PREFIX, make_adamw

BAR_PLAIN, BAR_TIME, BAR_MEMORY, BAR_TWO = 0.9, 1.2, 1.3, 1.8
NUM_VIDEOS, NUM_CREATORS, NUM_CATEGORIES, NUM_TABS, NUM_TASKS = 20_000, 2_000, 100, 8, 2
PARTITION_STEPS = 8
EXCHANGES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"exchange_precision": "bfloat16"},
    "average of 4": {"average_every": 4},
    "average of 16": {"average_every": 16},
}
"""What two workers exchange in a step: settings of `train` by the name in the table."""
CPU = torch.device("cpu")
Step = Callable[[Batch], None]


def make_config(table_dim: int, **train: Any) -> RunConfig:
    """The default model, without video files; `train` are settings of that section."""
    return parse_config(
        {
            "run": "unused",
            "data": {"events": "unused", "columns": {"tasks": ["click", "like"]}},
            "split": {"kind": "leave_one_out"},
            "model": {"id_dim": table_dim},
            "train": train,
        },
        "benchmark",
    )


def make_sizes(table_rows: int) -> Sizes:
    width = len(CountLayout(tasks=("click", "like"), contexts=("tab",)))
    return Sizes(table_rows + 1, NUM_CREATORS, NUM_CATEGORIES, (NUM_TABS,), NUM_TASKS, width)


def make_videos(table_rows: int, rng: np.random.Generator) -> VideoInputs:
    """NUM_VIDEOS videos, their ID rows spread over the whole table."""
    count = NUM_VIDEOS + 1
    shown = np.ones(count, np.int64)
    catalog = Catalog(
        table=video_schema().empty_table(),
        creator_rows=rng.integers(1, NUM_CREATORS, count),
        categories=Ragged(
            2 * np.arange(count + 1), rng.integers(1, NUM_CATEGORIES, 2 * count).astype(np.int32)
        ),
        durations=np.full(count, np.nan),
        duration_buckets=rng.integers(0, 32, count),
        train_events=shown,
        valid_events=shown,
        train_positives=shown,
        valid_positives=shown,
    )
    ids = np.sort(rng.choice(table_rows, NUM_VIDEOS, replace=False)) + 1
    return VideoInputs(catalog, id_rows=np.concatenate([[0], ids]))


def make_timelines(num_users: int, rng: np.random.Generator) -> Timelines:
    lengths = rng.integers(5, 101, num_users)
    total, width = int(lengths.sum()), make_sizes(0).num_count_features
    return Timelines(
        user_ids=[str(i) for i in range(num_users)],
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        video_rows=1 + (rng.zipf(1.2, total) - 1) % NUM_VIDEOS,
        time_ms=np.arange(total) * 1000,
        positive=rng.integers(0, 2, total).astype(np.int8),
        labels=rng.integers(0, 2, (total, NUM_TASKS)).astype(np.int8),
        watched=np.zeros((total, 0), np.float32),
        context_rows=rng.integers(0, NUM_TABS, (total, 1)),
        split=np.full(total, TRAIN, np.int8),
        count_features=rng.standard_normal((total, width), dtype=np.float32),
        user_rows=np.zeros((num_users, 0), np.int64),
    )


def make_batches(config: RunConfig, table_rows: int, count: int, seed: int = 0) -> Iterator[Batch]:
    """Steps of `train.batch_timelines` timelines, from partitions that are read one at a time.

    Workers of different seeds take steps of like lengths together, as in training.
    """
    rng, orders = np.random.default_rng(seed), np.random.default_rng(0)
    batcher = Batcher(
        videos=make_videos(table_rows, np.random.default_rng(0)),
        candidates=Candidates(np.ones(NUM_VIDEOS + 1, np.int64), config.train.negatives),
        learn_from=TRAIN,
        learn_before=VALID,
        batch_timelines=config.train.batch_timelines,
        max_history=config.model.max_history,
    )
    for start in range(0, count, PARTITION_STEPS):
        steps = min(PARTITION_STEPS, count - start)
        timelines = make_timelines(steps * config.train.batch_timelines, rng)
        plan = batcher.plan(timelines, rng)
        for windows in in_step(plan, orders.permutation(len(plan))):
            yield batcher.make(timelines, *windows, rng)


def num_events(batch: Batch) -> int:
    return int(batch.learn.sum())


def loss_of(losses: Losses) -> torch.Tensor:
    retrieval = losses.retrieval / losses.num_retrieval.clamp(min=1)
    return retrieval + (losses.tasks / losses.num_tasks.clamp(min=1)).sum()


def sharded_step(config: RunConfig, sizes: Sizes) -> Step:
    """As training takes it."""
    trainable = build_sharded(config, sizes, CPU)
    trainable.module.train()

    def step(batch: Batch) -> None:
        trainable.optimizer.zero_grad()
        loss_of(trainable.module(batch)).backward()
        trainable.update(config.train.clip_norm)

    return step


def plain_step(config: RunConfig, sizes: Sizes) -> Step:
    """The peer: the same model as one would write it without TorchRec."""
    tables = PlainTables(table_specs(config.model, sizes), sparse=True)
    model = Recommender(config.model, sizes, tables=tables).train()
    dense = [p for name, p in model.named_parameters() if not name.startswith(TABLE_PREFIX)]
    adamw = make_adamw(dense, config.train)
    adagrad = torch.optim.Adagrad(tables.parameters(), lr=config.train.table_lr)

    def step(batch: Batch) -> None:
        adamw.zero_grad()
        adagrad.zero_grad()
        loss_of(model(batch)).backward()
        torch.nn.utils.clip_grad_norm_(dense, config.train.clip_norm)
        adamw.step()
        adagrad.step()

    return step


def timed(step: Step, batch: Batch) -> float:
    begin = time.perf_counter()
    step(batch)
    return time.perf_counter() - begin


def join(rank: int, world: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)


def part_plain(args: argparse.Namespace) -> dict[str, Any]:
    """Both steps, by turns."""
    config, sizes = make_config(64), make_sizes(NUM_VIDEOS)
    steps = {"ours": sharded_step(config, sizes), "plain": plain_step(config, sizes)}
    batches = list(make_batches(config, NUM_VIDEOS, args.steps + 3))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number, batch in enumerate(batches):
        for name in sorted(steps, reverse=number % 2 == 1):
            taken = timed(steps[name], batch)
            if number >= 3:
                seconds[name].append(taken)
    events = sum(num_events(batch) for batch in batches[3:])
    return {name: events / sum(taken) for name, taken in seconds.items()}


def part_table(args: argparse.Namespace) -> dict[str, Any]:
    """A step with a table of `rows`, and what the process held at most."""
    config = make_config(args.table_dim)
    step = sharded_step(config, make_sizes(args.rows))
    batches = make_batches(config, args.rows, args.steps + 3)
    seconds = [timed(step, batch) for batch in batches][3:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"step_s": median(seconds), "peak_bytes": peak}


def part_worker(args: argparse.Namespace) -> dict[str, Any]:
    """One of `world` workers of one thread."""
    torch.set_num_threads(1)
    config = make_config(64, **EXCHANGES[args.exchange])
    step = sharded_step(config, make_sizes(NUM_VIDEOS))
    batches = list(make_batches(config, NUM_VIDEOS, args.steps + 3, seed=args.rank))
    for batch in batches[:3]:
        step(batch)
    dist.barrier()
    begin, busy = time.perf_counter(), time.process_time()
    for batch in batches[3:]:
        step(batch)
    dist.barrier()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - busy
    events = sum(num_events(batch) for batch in batches[3:])
    return {
        "events_per_s": events / seconds,
        "s_a_step": seconds / args.steps,
        "cpu_s_a_step": cpu_s / args.steps,
    }


PARTS = {"plain": part_plain, "table": part_table, "worker": part_worker}


def start(part: str, args: argparse.Namespace, folder: str, **more: Any) -> subprocess.Popen[str]:
    settings = {"steps": args.steps, "table-dim": args.table_dim, "folder": folder, **more}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "--part", part, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(part: str, args: argparse.Namespace, world: int = 1, **more: Any) -> list[dict[str, Any]]:
    """The answers of a part's processes."""
    with tempfile.TemporaryDirectory() as folder:
        started = [
            start(part, args, folder, rank=rank, world=world, **more) for rank in range(world)
        ]
        answers = [process.communicate() for process in started]
    for process, (_, error) in zip(started, answers, strict=True):
        if process.returncode:
            raise SystemExit(error)
    return [json.loads(out.splitlines()[-1]) for out, _ in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="of the workers' part")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--table-dim", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/training.json"))
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    ways = list(EXCHANGES)
    parser.add_argument("--exchanges", nargs="+", default=ways[:1], choices=ways)
    parser.add_argument("--exchange", default=ways[0], help=argparse.SUPPRESS)
    for name, kind in (("part", str), ("folder", str), ("rank", int), ("world", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        join(args.rank, args.world, args.folder)
        print(json.dumps(PARTS[args.part](args)))
        return
    result: dict[str, Any] = {}
    if "plain" in args.only:
        report_plain(args, result)
    if "table" in args.only:
        report_table(args, result)
    if "worker" in args.only:
        report_workers(args, result)
    write(result, args.out)


def report_plain(args: argparse.Namespace, result: dict[str, Any]) -> None:
    (speed,) = run("plain", args)
    result["events_per_s"] = speed
    print(f"one process: ours {speed['ours']:,.0f} events/s, plain {speed['plain']:,.0f}")
    bar(
        result, "events/s over plain PyTorch", speed["ours"] / speed["plain"], BAR_PLAIN, least=True
    )


def report_table(args: argparse.Namespace, result: dict[str, Any]) -> None:
    (small,) = run("table", args, rows=NUM_VIDEOS)
    (large,) = run("table", args, rows=args.rows)
    size = args.rows * (args.table_dim + 1) * 4
    result["table"] = {"small": small, "large": large, "rows": args.rows, "bytes": size}
    print(
        f"table of {args.rows:,} rows: {large['step_s'] * 1000:.0f} ms a step, "
        f"{small['step_s'] * 1000:.0f} ms with {NUM_VIDEOS:,}"
    )
    print(
        f"  peak {large['peak_bytes'] / 1e9:.2f} GB, table and state {size / 1e9:.2f} GB; "
        f"the process with the small table {small['peak_bytes'] / 1e9:.2f} GB"
    )
    bar(
        result,
        "step time over the small table's",
        large["step_s"] / small["step_s"],
        BAR_TIME,
        least=False,
    )
    bar(
        result,
        "peak memory over table and state",
        large["peak_bytes"] / size,
        BAR_MEMORY,
        least=False,
    )
    added = (large["peak_bytes"] - small["peak_bytes"]) / size
    result["table"]["added_over_bytes"] = added
    print(f"  more than with the small table: {added:.3g} x table and state")


def workers_round(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """One worker, two at once that exchange nothing, and two that train together in each way."""
    (one,) = run("worker", args)
    with ThreadPoolExecutor(2) as threads:
        apart = [worker for (worker,) in threads.map(lambda _: run("worker", args), range(2))]
    together = {way: run("worker", args, world=2, exchange=way) for way in args.exchanges}
    return {"one": [one], "apart": apart, **together}


def report_workers(args: argparse.Namespace, result: dict[str, Any]) -> None:
    rounds = [workers_round(args) for _ in range(args.rounds)]
    result["workers"] = rounds
    ratios = {}
    for name in ("one", "apart", *args.exchanges):
        speeds = [sum(each["events_per_s"] for each in speed_of[name]) for speed_of in rounds]
        ratios[name] = median(
            speed / speed_of["one"][0]["events_per_s"]
            for speed, speed_of in zip(speeds, rounds, strict=True)
        )
        wall, busy = (
            median(speed_of[name][0][figure] * 1000 for speed_of in rounds)
            for figure in ("s_a_step", "cpu_s_a_step")
        )
        print(
            f"  {name}: {median(speeds):,.0f} events/s, {ratios[name]:.2f} x one; "
            f"{wall:.0f} ms a step, {busy:.0f} of CPU"
        )
    for way in args.exchanges:
        bar(result, f"events/s of two workers over one, {way}", ratios[way], BAR_TWO, least=True)


if __name__ == "__main__":
    main()
