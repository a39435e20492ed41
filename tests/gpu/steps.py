"""The training half of the check: steps of the model on made batches, and validation's ranking."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.config.run import RunConfig, parse_config
from recsys.evaluation.metrics.toplists import top_lists
from recsys.features.inputs import Batch, EventBatch, RequestContext, Sizes, VideoBatch
from recsys.inference.ranker import dot_product
from recsys.train.loss import LossWeights
from recsys.train.sharding import build_sharded, have_torchrec
from recsys.train.steps import SingleSteps
from recsys.train.trainable import Trainable, build_plain
from tests.gpu.decoding import Scale, timed

TASKS = ("click", "like")
LARGE = (10_000, 256, 1024)
"""Rows, width and timelines of the steps that fill a card: `train.batch_timelines` is 128."""


def make_config(dim: int, precision: str) -> RunConfig:
    return parse_config(
        {
            "run": "unused",
            "data": {"events": "unused", "columns": {"tasks": list(TASKS)}},
            "split": {"kind": "leave_one_out"},
            "model": {"dim": dim, "id_dim": dim},
            "train": {"precision": precision},
        },
        "gpu-check",
    )


def make_batch(sizes: Sizes, *, timelines: int, length: int, videos: int) -> Batch:
    """A step of random timelines, as large as training makes them."""
    rng = torch.Generator().manual_seed(0)
    shape = (timelines, length)

    def rows(high: int, *size: int) -> torch.Tensor:
        return torch.randint(0, high, size, generator=rng)

    def values(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=rng)

    num_prior = torch.arange(length).expand(shape).clone()
    context = RequestContext(
        gaps=rows(8, *shape),
        hours=rows(24, *shape),
        num_prior=num_prior,
        tallies=values(*shape, sizes.num_actions),
        context_rows=torch.zeros(*shape, 0, dtype=torch.int64),
    )
    events = EventBatch(
        actions=(values(*shape, sizes.num_actions) < 0.3).float(),
        num_prior=num_prior,
        context=context,
        count_features=values(*shape, sizes.num_count_features),
        user_rows=torch.zeros(timelines, 0, dtype=torch.int64),
    )
    learn = torch.ones(shape, dtype=torch.bool)
    counts = [float((events.actions[..., 0] > 0).sum()), float(learn.sum())]
    ids = rows(sizes.num_videos, videos)
    ids[0] = 0
    return Batch(
        videos=VideoBatch(
            id_rows=ids,
            creator_rows=rows(sizes.num_creators, videos),
            category_rows=rows(sizes.num_categories, videos),
            category_lengths=torch.ones(videos, dtype=torch.int64),
            durations=rows(32, videos),
        ),
        log_q=torch.zeros(videos),
        events=events,
        video_index=rows(videos - 1, *shape) + 1,
        learn=learn,
        queries=(events.actions[..., 0] > 0).flatten().nonzero().squeeze(1),
        num_learnt=torch.tensor(counts),
    )


def events_per_s(
    scale: Scale, trainable: Trainable, config: RunConfig, batch: Batch
) -> tuple[float, dict[str, float]]:
    """Events a second of whole steps: copy, forward, backward, both optimizers."""
    weights = LossWeights.of(config, scale.device)
    steps = SingleSteps(trainable, weights.combine, scale.device, config.train.clip_norm)
    on_host = batch.pinned() if scale.on_gpu else batch
    trainable.module.train()

    def once() -> int:
        for _ in range(1 if scale.small else 10):
            step = steps.next_step(iter([replace(on_host)]))
        assert step is not None and bool(step[0].retrieval.isfinite())  # waits for the device
        return (1 if scale.small else 10) * int(batch.learn.sum())

    return timed(scale, once)


def train(scale: Scale) -> dict[str, Any]:
    """Events a second: small and large tables, both widths, float32 and bfloat16, larger steps."""
    part: dict[str, Any] = {}
    length, videos, many = (20, 256, 20_000) if scale.small else (200, 9000, 20_000_000)
    for rows, dim, timelines in ((10_000, 64, 128), (many, 64, 128), (10_000, 256, 128), LARGE):
        sizes = Sizes(rows, 1000, 100, (), len(TASKS), 8)
        num = timelines // 16 if scale.small else timelines
        batch = make_batch(sizes, timelines=num, length=length, videos=videos)
        for precision in ("float32", "bfloat16"):
            config = make_config(dim, precision)
            name = f"{rows} rows, dim {dim}, {precision}, {timelines} timelines"
            with gpu_use(scale) as use:
                trainable = build_plain(config, sizes, scale.device)
                rate, facts = events_per_s(scale, trainable, config, batch)
            del trainable
            part[name] = {"events_per_s": rate, **facts, **use}
    part["sharded"] = sharded(scale, batch, sizes)
    if scale.on_gpu:
        part |= {f"two cores, dim {dim}": on_two_cores(scale, dim) for dim in (64, 256)}
    return part


def on_two_cores(scale: Scale, dim: int) -> dict[str, Any]:
    """What the model does on two cores of the same machine."""
    sizes, threads = Sizes(10_000, 1000, 100, (), len(TASKS), 8), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cpu = replace(scale, device=torch.device("cpu"))
        config = make_config(dim, "float32")
        batch = make_batch(sizes, timelines=128, length=200, videos=9000)
        trainable = build_plain(config, sizes, cpu.device)
        rate, facts = events_per_s(replace(cpu, small=True), trainable, config, batch)
    finally:
        torch.set_num_threads(threads)
    return {"events_per_s": rate, **facts}


def sharded(scale: Scale, batch: Batch, sizes: Sizes) -> dict[str, Any]:
    """The same through TorchRec, one worker."""
    if not have_torchrec():
        return {"skipped": "TorchRec or FBGEMM is not installed"}
    backend = "nccl" if scale.on_gpu else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        store = torch.distributed.FileStore(str(Path(folder) / "store"), 1)
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            config = make_config(256, "float32")
            trainable = build_sharded(config, sizes, scale.device)
            rate, facts = events_per_s(scale, trainable, config, batch)
        finally:
            torch.distributed.destroy_process_group()
    return {"events_per_s": rate, "plan": trainable.plan, **facts}


def validate(scale: Scale) -> dict[str, Any]:
    """Users a second whose whole catalogue is ranked, and whether the lists are those of a CPU."""
    num_users, num_videos = (64, 2_000) if scale.small else (512, 1_000_000)
    rng = torch.Generator().manual_seed(0)
    queries = torch.randn(num_users, 64, generator=rng)
    vectors = torch.randn(num_videos, 64, generator=rng)
    ranker = dot_product(queries.to(scale.device), vectors.to(scale.device))
    step = max(1, 2**23 // num_videos)

    def lists(some: int) -> list[np.ndarray]:
        videos = []
        for start in range(0, some, step):
            stop = min(start + step, some)
            (top,) = top_lists(torch.arange(start, stop), ranker(start, stop), 10)
            videos.append(top.video_BK.numpy())
        return videos

    rate, facts = timed(scale, lambda: len(np.concatenate(lists(num_users))))
    few = lists(16)
    ranker = dot_product(queries, vectors)
    same = float(np.mean(np.concatenate(lists(16)) == np.concatenate(few)))
    return {"users_per_s": rate, "videos": num_videos, "same_as_on_a_cpu": same, **facts}


@contextlib.contextmanager
def gpu_use(scale: Scale) -> Iterator[dict[str, float]]:
    """Fills in the share of the time in which the GPU had a kernel running, as nvidia-smi says."""
    use: dict[str, float] = {}
    if not scale.on_gpu:
        yield use
        return
    samples, over = list[float](), threading.Event()

    card = torch.cuda.get_device_properties(scale.device).uuid  # the first it sees may not be ours
    command = ["nvidia-smi", f"--id=GPU-{card}", "--query-gpu=utilization.gpu"]
    command.append("--format=csv,noheader,nounits")

    def watch() -> None:
        while not over.wait(0.25):
            try:
                said = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
                samples.append(float(said.split()[0]))
            except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
                return  # the figure is then missing, and said to be

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield use
    finally:
        over.set()
        thread.join()
    busy = samples[len(samples) // 3 :]  # the model is made first
    if busy:
        use["gpu_idle"] = 1 - float(np.mean(busy)) / 100
