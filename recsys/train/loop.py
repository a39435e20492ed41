"""What a training worker does, from the first step to the last.

An epoch is a seeded order of partitions. In each round the W workers take the next W of them; after
every `checkpoint_every_partitions` a checkpoint carries the place, so that training that died goes
on inside the epoch, with any number of workers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor

from recsys.config.run import RunConfig, parse_config
from recsys.data.ragged import IntArray
from recsys.data.storage import join, local_folder
from recsys.features.batches import Batcher, Candidates, Windows, drop_ids, epoch_order, prefetch
from recsys.features.inputs import Batch
from recsys.features.timelines import Timelines
from recsys.model.recommender import Losses
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, TRAIN, VALID
from recsys.train.checkpoint import START, Progress, is_finite, load, restore, save
from recsys.train.figures import StepSums
from recsys.train.loss import StepLoss
from recsys.train.sharding import PipelinedSteps, build_sharded, have_torchrec
from recsys.train.steps import SingleSteps
from recsys.train.trainable import Trainable, build_plain
from recsys.train.validation import validate

WARMUP_STEPS = 50
FINAL_LR = 0.05
"""Share of the peak learning rate that is left at the end."""


@dataclass(frozen=True)
class Job:
    """What the driver asks of the workers; sent as a dict."""

    config: RunConfig
    learn_before: int
    """VALID to fit, TEST to refit with the validation events known."""
    epochs: int
    gpu: bool = False
    """Whether each worker is given a GPU."""
    trending: float | None = None
    """Weight of what is trending, where no validation finds it."""
    board: Any = None
    """Actor that the driver reads the progress from; None shows none."""

    def to_dict(self) -> dict[str, Any]:
        """For `train_loop_config`."""
        return {**vars(self), "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """The job again."""
        return cls(**{**values, "config": parse_config(values["config"], "training job")})


def train_worker(settings: dict[str, Any]) -> None:
    """The training function of the `TorchTrainer`."""
    job = Job.from_dict(settings)
    context = ray.train.get_context()
    # A node's training workers share its cores; Ray's one a worker would leave the others idle.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // context.get_local_world_size()))
    # A GPU of the node that was given to another job is none of this worker's.
    device = ray.train.torch.get_device() if job.gpu else torch.device("cpu")
    rank, workers = context.get_world_rank(), context.get_world_size()
    Worker(job, Prepared(job.config), rank=rank, workers=workers, device=device).run()


class Worker:
    """One of the W workers."""

    def __init__(
        self, job: Job, prepared: Prepared, *, rank: int, workers: int, device: torch.device
    ) -> None:
        self.job, self.config, self.prepared = job, job.config, prepared
        self.rank, self.workers, self.device = rank, workers, device
        torch.manual_seed(self.config.train.seed)
        self.batcher = make_batcher(job, prepared)
        self.trainable = make_trainable(self.config, prepared, device)
        self.step_loss = StepLoss.of(self.config, device)
        self.steps = self._make_steps()
        self.progress = Progress()
        self.seen = torch.zeros(len(self.prepared.partitions), dtype=torch.int64)
        self.sums = StepSums(self.config.data.columns.tasks)

    def _make_steps(self) -> SingleSteps | PipelinedSteps:
        overlapped = self.device.type == "cuda" and self.trainable.sharded
        kind = PipelinedSteps if overlapped else SingleSteps
        return kind(self.trainable, self._loss, self.device, self.config.train.clip_norm)

    def run(self) -> None:
        """Trains until the epochs are over or validation has not got better for long enough."""
        if self.rank == 0 and self.job.board is not None:
            self.job.board.place.remote(self.trainable.plan)
        self._restore()
        while self.progress.epoch < self.job.epochs and not self._is_over():
            self.sums = StepSums(self.config.data.columns.tasks, self.progress.sums)
            self._run_epoch()
            self._gather()
            self._finish_epoch(self.sums.figures() | self._validate())

    def _validate(self) -> dict[str, float]:
        """The figures of the validation events and the seconds that they took; none in a refit."""
        if self.job.learn_before != VALID:
            return {}
        started = time.perf_counter()
        figures = validate(
            self.trainable.model,
            self.prepared,
            self.batcher.videos,
            self.device,
            rank=self.rank,
            workers=self.workers,
            add_up=self._add_up,
        )
        return {**figures, "validate_s": time.perf_counter() - started}

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as folder:
                self.progress = restore(folder, self.trainable)
        elif self.config.train.start_from is not None:
            with local_folder(join(self.config.run, "train", START)) as folder:
                load(folder, self.trainable)
        if self.job.trending is not None:
            self.trainable.model.trending.fill_(self.job.trending)

    def _is_over(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        return self.job.learn_before == VALID and waited >= self.config.train.patience

    def _run_epoch(self) -> None:
        self.trainable.module.train()
        total = len(self.prepared.partitions)
        order = epoch_order(total, seed=self.config.train.seed, epoch=self.progress.epoch)
        since = 0
        if not self.progress.partitions:
            self.progress.ledger = [0] * total
        while self.progress.partitions < total:
            start = self.progress.partitions
            self._run_round(order[start : start + self.workers])
            self.progress.partitions = min(start + self.workers, total)
            since += self.workers
            left = total - self.progress.partitions  # the epoch's own checkpoint comes after them
            if min(since, left) >= self.config.train.checkpoint_every_partitions:
                since = 0
                self._gather()
                self._report({"epoch": self.progress.epoch}, score=None)

    def _run_round(self, partitions: np.ndarray[Any, Any]) -> None:
        """Every worker takes one partition and as many steps as the one with the most."""
        place = [self.config.train.seed, self.progress.epoch, self.progress.partitions, self.rank]
        rng = np.random.default_rng(place)
        torch.manual_seed(int(rng.integers(2**62)))
        mine = int(partitions[self.rank]) if self.rank < len(partitions) else None
        timelines = self.prepared.timelines(mine if mine is not None else int(partitions[0]))
        plan = [] if mine is None else self.batcher.plan(timelines, rng)
        num_learnt = self._mean(self.batcher.num_learnt(timelines, plan))
        batches = prefetch(self._batches(timelines, plan, num_learnt, rng))
        for losses, _ in self.steps.take(batches):
            self.progress.steps += 1
            self.sums.add(losses)
            self._show()
        if mine is not None:
            self.seen[mine] += self.batcher.num_timelines(timelines)

    def _gather(self) -> None:
        """Adds what all workers have learnt, and from what, since the last checkpoint."""
        seen = self._add_up(self.seen).tolist()
        self.progress.ledger = [a + b for a, b in zip(self.progress.ledger, seen, strict=True)]
        self.seen.zero_()
        self.sums.gather(self._add_up)
        self.progress.sums = self.sums.state()

    def _add_up(self, mine: Tensor) -> Tensor:
        """The sum over all workers, on the CPU."""
        if self.workers == 1:
            return mine
        shared = mine.to(self.device, copy=True)
        dist.all_reduce(shared)
        return shared.cpu()

    def _mean(self, mine_S2: IntArray) -> Tensor:
        """The mean over all workers, of as many steps as the worker with the most takes.

        It is known before the round begins, so that no step waits for it.
        """
        most = torch.tensor(len(mine_S2), device=self.device)
        if self.workers > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX)
        counts = np.pad(mine_S2, ((0, int(most) - len(mine_S2)), (0, 0)))
        return self._add_up(torch.from_numpy(counts)) / self.workers

    def _batches(
        self,
        timelines: Timelines,
        plan: Sequence[Windows],
        num_learnt_S2: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Batch]:
        """The planned steps, then steps that teach nothing until all workers are done."""
        share, nothing = self._id_dropout(), np.zeros(0, dtype=np.int64)
        for number, num_learnt in enumerate(num_learnt_S2):
            starts, stops = plan[number] if number < len(plan) else (nothing, nothing)
            batch = drop_ids(self.batcher.make(timelines, starts, stops, rng), share, rng)
            yield replace(batch, num_learnt=num_learnt)

    def _id_dropout(self) -> float:
        """Share of the videos that are known by their content alone in this epoch."""
        content_alone = self.progress.epoch < self.config.train.content_first * self.job.epochs
        return 1.0 if content_alone else self.config.model.id_dropout

    def _loss(self, losses: Losses, batch: Batch) -> Tensor:
        """What a step goes down, at the learning rate of its place."""
        share = lr_share(self.progress.steps, self._epochs_done(), self.job.epochs)
        for group in self.trainable.dense_optimizer.param_groups:
            group["lr"] = self.config.train.lr * share
        loss = self.step_loss(losses, batch)
        self._require_finite(loss, batch)
        return loss

    def _require_finite(self, loss: Tensor, batch: Batch) -> None:
        if not is_finite(loss):
            rate = self.trainable.dense_optimizer.param_groups[0]["lr"]
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.progress.steps} of epoch "
                f"{self.progress.epoch}, after {self.progress.partitions} partitions, with "
                f"learning rate {rate:.2g} and the timelines of {shortened(batch.user_ids)}; the "
                "last checkpoint stands; lower train.lr or train.table_lr"
            )

    def _epochs_done(self) -> float:
        return self.progress.epoch + self.progress.partitions / len(self.prepared.partitions)

    def _finish_epoch(self, figures: dict[str, float]) -> None:
        progress = self.progress
        figures["timelines"] = sum(progress.ledger)
        progress.epoch, progress.partitions, progress.sums = progress.epoch + 1, 0, {}
        score = figures.get("score")
        if score is None or score > progress.best_score:
            progress.best_score = score if score is not None else progress.best_score
            progress.best_epoch = progress.epoch
        progress.history.append({"epoch": progress.epoch, **figures})
        self._report({"epoch": progress.epoch, **figures}, score=score)

    def _report(self, figures: dict[str, float], score: float | None) -> None:
        """Checkpoints; a score of minus infinity never makes a checkpoint the best."""
        metrics = {**figures, "score": float("-inf") if score is None else score}
        metrics["best_epoch"] = self.progress.best_epoch
        with tempfile.TemporaryDirectory() as folder:
            save(folder, self.trainable, self.progress)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        if self.rank == 0 and self.job.board is not None and "retrieval_loss" in figures:
            self.job.board.epoch.remote(self.progress.history[-1])

    def _show(self) -> None:
        if self.rank == 0 and self.job.board is not None:
            self.job.board.step.remote(self._epochs_done(), self.sums.figures())


def make_batcher(job: Job, prepared: Prepared) -> Batcher:
    """Makes the job's steps: what lies behind its cut is not known to them in any way."""
    train, with_valid, catalog = job.config.train, job.learn_before == TEST, prepared.catalog
    return Batcher(
        videos=prepared.video_inputs(with_valid=with_valid),
        candidates=Candidates(
            catalog.known_positives(with_valid=with_valid),
            train.negatives,
            pool=np.flatnonzero(catalog.known_events(with_valid=with_valid)),
        ),
        learn_from=TRAIN,
        learn_before=job.learn_before,
        batch_timelines=train.batch_timelines,
        max_history=job.config.model.max_history,
    )


def make_trainable(config: RunConfig, prepared: Prepared, device: torch.device) -> Trainable:
    """The sharded model, or the plain one where TorchRec is not wanted or not there."""
    wanted = config.train.tables
    if wanted == "torchrec" or (wanted == "auto" and have_torchrec()):
        return build_sharded(config, prepared.sizes, device)
    return build_plain(config, prepared.sizes, device)


def shortened(names: Sequence[str], most: int = 5) -> str:
    """Some names, and how many more there are.

    >>> shortened(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def lr_share(steps: int, epochs_done: float, epochs: int) -> float:
    """Share of the peak learning rate: a short warm-up, then a straight line down.

    It follows from the place alone, so that resumed training has the same.

    >>> round(lr_share(1000, 5, 10), 3), lr_share(24, 0, 10)
    (0.525, 0.5)
    """
    decay = 1 - (1 - FINAL_LR) * min(epochs_done / max(epochs, 1), 1)
    return min(1.0, (steps + 1) / WARMUP_STEPS) * decay
