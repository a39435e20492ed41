"""What a training worker does, from the first step to the last.

An epoch is a seeded order of partitions. In each round the W workers take the next W of them; after
every `checkpoint_every_partitions` a checkpoint carries the place, so that training that died goes
on inside the epoch, with any number of workers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import Tensor

from recsys import cluster
from recsys.config.run import RunConfig, parse_config
from recsys.data.ragged import IntArray
from recsys.data.run_folder import RunFolder
from recsys.data.storage import local_folder
from recsys.features.batches import Batcher, Candidates, Windows, drop_ids, in_step, made_ahead
from recsys.features.inputs import Batch
from recsys.features.timelines import Timelines
from recsys.model.recommender import Losses
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, TRAIN, VALID
from recsys.train.checkpoint import Progress, is_finite, load, restore, save
from recsys.train.collectives import Collectives
from recsys.train.figures import Pace, StepSums
from recsys.train.loss import LossWeights
from recsys.train.schedule import Schedule, Stretch
from recsys.train.session import RayTrainSession, Session
from recsys.train.sharding import PipelinedSteps, build_sharded, have_torchrec
from recsys.train.steps import SingleSteps
from recsys.train.trainable import Trainable, build_plain
from recsys.train.validation import (
    fit_trending_weight,
    predict_validation,
    shared_contents,
    validate,
)

if TYPE_CHECKING:
    from ray.actor import ActorHandle

SHOWN_EVERY_S = 1.0
"""On a GPU, where whoever looks at the figures waits for the steps that are on their way."""
AHEAD_BYTES = 4 * 2**30
"""Of clips, in steps that are made and wait."""


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
    progress_actor: ActorHandle | None = None
    """The `ProgressActor` that the driver reads; None shows no progress."""
    stretch: Stretch = Stretch()
    """The part of the training that is asked for."""

    def to_dict(self) -> dict[str, object]:
        """Makes plain values of it, for `train_loop_config`."""
        plain = {"config": self.config.model_dump(mode="json"), "stretch": vars(self.stretch)}
        return {**vars(self), **plain}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """Makes a job of what `to_dict` gave; settings that are wrong are an `InputError`."""
        config = parse_config(values["config"], "training job")
        return cls(**{**values, "config": config, "stretch": Stretch(**values["stretch"])})


def train_worker(settings: dict[str, Any]) -> None:
    """The training function of the `TorchTrainer`."""
    job = Job.from_dict(settings)
    context = ray.train.get_context()
    # A node's training workers share its cores; Ray's one a worker would leave the others idle.
    torch.set_num_threads(max(1, cluster.num_cores() // context.get_local_world_size()))
    # A GPU of the node that was given to another job is none of this worker's.
    device = ray.train.torch.get_device() if job.gpu else torch.device("cpu")
    rank, workers = context.get_world_rank(), context.get_world_size()
    Worker(job, Prepared(job.config), collectives=Collectives(rank, workers, device)).run()


class Worker:
    """One of the W workers: takes its steps, keeps the checkpoints, asks for the figures."""

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        *,
        collectives: Collectives,
        session: Session | None = None,
    ) -> None:
        self.job, self.config, self.prepared = job, job.config, prepared
        self.device, self.collectives = collectives.device, collectives
        self.session = session or RayTrainSession()
        self.schedule = Schedule.of(
            self.config,
            epochs=job.epochs,
            num_partitions=len(prepared.partitions),
            workers=collectives.workers,
            validates=job.learn_before == VALID,
            last_epoch=job.stretch.last_epoch,
        )
        torch.manual_seed(self.config.train.seed)
        self.batcher = make_batcher(job, prepared)
        self.trainable = make_trainable(self.config, prepared, self.device)
        self.loss_weights = LossWeights.of(self.config, self.device)
        self.steps = self._make_steps()
        self._making = 1
        if self.device.type == "cuda":
            self._making = read_ahead(torch.get_num_threads(), self.batcher.most_clip_bytes)
        self.progress = Progress()
        self.seen = torch.zeros(len(self.prepared.partitions), dtype=torch.int64)
        self.sums = StepSums(self.config.data.columns.tasks)
        self._pace = Pace(SHOWN_EVERY_S if self.device.type == "cuda" else 0.0)
        self.leaving: set[str] = set()
        self._contents_are_old = self.batcher.step_clips is not None

    def _make_steps(self) -> SingleSteps | PipelinedSteps:
        overlapped = self.device.type == "cuda" and self.trainable.sharded
        kind = PipelinedSteps if overlapped else SingleSteps
        return kind(self.trainable, self._loss, self.device, self.config.train.clip_norm)

    @property
    def _progress_actor(self) -> ActorHandle | None:
        """The actor that the first worker tells, None in the others."""
        return self.job.progress_actor if self.collectives.rank == 0 else None

    def run(self) -> None:
        """Trains until the epochs are over or validation has not got better for long enough."""
        self._restore()
        if self._progress_actor is not None:
            self._progress_actor.begin.remote(self.trainable.plan, self.progress.epoch)
        while not self.schedule.is_over(self.progress):
            self.sums = StepSums(self.config.data.columns.tasks, self.progress.sums)
            self._run_epoch()
            self._gather()
            figures = self.sums.figures()
            if self.schedule.validates:
                figures |= self._fit_and_validate()
            self._finish_epoch(figures)

    def _fit_and_validate(self) -> dict[str, float]:
        """Fits the weight of what trends, which the model keeps, and measures the model with it.

        Returns:
            The figures of the validation events, and the seconds that all took.
        """
        started, model, together = time.perf_counter(), self.trainable.model, self.collectives
        answers = predict_validation(
            model, self.prepared, self.batcher.videos, self.device, collectives=together
        )
        weight = fit_trending_weight(answers, together)
        if weight is not None:
            model.trending.fill_(weight)
        figures = validate(answers, together, trending_weight=weight)
        return {**figures, "validate_s": time.perf_counter() - started}

    def _restore(self) -> None:
        with self.session.newest() as folder:
            if folder is not None:
                self.progress = restore(folder, self.trainable)
        if folder is None and self.job.stretch.start is not None:
            with local_folder(self.job.stretch.start) as start:
                self.progress = restore(start, self.trainable)
        elif folder is None and self.config.train.start_from is not None:
            with local_folder(RunFolder(self.config.run).start) as start:
                load(start, self.trainable)
        if self.job.trending is not None:
            self.trainable.model.trending.fill_(self.job.trending)

    def _run_epoch(self) -> None:
        self.trainable.module.train()
        total, since = self.schedule.num_partitions, 0
        if not self.progress.partitions:
            self.progress.seen_timelines = [0] * total
        rounds = self.schedule.rounds(self.progress)
        read = made_ahead(partial(self._timelines, partitions) for partitions in rounds)
        for partitions in rounds:
            with self.sums.waiting():
                timelines = next(read)
            self._run_round(partitions, timelines)
            workers = self.schedule.workers
            self.progress.partitions = min(self.progress.partitions + workers, total)
            since += workers
            leaving = self._is_told_of_an_end() and self.progress.partitions < total
            if leaving or self.schedule.checkpoint_is_due(self.progress, since):
                since = 0
                self._gather()
                self._report({"epoch": self.progress.epoch}, score=None)

    def _is_told_of_an_end(self) -> bool:
        """Whether another node has announced its end: what is learnt is kept before it goes.

        All workers ask equally often and get one answer; Ray Train brings the run back without
        counting it among `train.max_failures`.
        """
        leaving = self.session.leaving_nodes()
        others = leaving - self.leaving
        self.leaving |= leaving
        return bool(others)

    def _timelines(self, partitions: IntArray) -> Timelines:
        """This worker's partition of a round; the first one's where it has none to learn from."""
        rank = self.collectives.rank
        return self.prepared.timelines(int(partitions[rank if rank < len(partitions) else 0]))

    def _run_round(self, partitions: IntArray, timelines: Timelines) -> None:
        """Every worker takes one partition and as many steps as the one with the most."""
        if self._contents_are_old:
            self._refresh_contents()
        rank = self.collectives.rank
        rng = self.schedule.rng(self.progress, rank)
        torch.manual_seed(int(rng.integers(2**62)))
        mine = int(partitions[rank]) if rank < len(partitions) else None
        plan = [] if mine is None else self.batcher.plan(timelines, rng)
        most = self.collectives.max(len(plan))
        plan = in_step(plan, self.schedule.step_order(self.progress, most))
        num_learnt = self._mean(self.batcher.num_learnt(timelines, plan))
        makers = self._makers(timelines, plan, num_learnt, rng)
        batches = self._awaited(made_ahead(makers, threads=self._making))
        while (step := self.steps.next_step(batches)) is not None:
            self.progress.steps += 1
            self.sums.add(step[0])
            if self._pace.is_due():
                self._require_finite_sums()
                self._show()
        if mine is not None:
            self.seen[mine] += self.batcher.num_timelines(timelines)

    def _awaited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; how long the steps wait for them is counted."""
        while True:
            with self.sums.waiting():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _refresh_contents(self) -> None:
        """Makes the content vectors anew that stand for clips which a step does not read.

        After each checkpoint, so that training that goes on from one has the same.
        """
        model = self.trainable.model
        contents = shared_contents(model, self.batcher.videos, self.device, self.collectives)
        if contents is not None:
            model.video.cached_contents = contents
        self._contents_are_old = False
        self.trainable.module.train()

    def _gather(self) -> None:
        """Adds what all workers have learnt, and from what, since the last checkpoint."""
        self.trainable.agree()
        self._require_finite_sums()
        seen = self.collectives.sum(self.seen).tolist()
        before = self.progress.seen_timelines
        self.progress.seen_timelines = [a + b for a, b in zip(before, seen, strict=True)]
        self.seen.zero_()
        self.sums.gather(self.collectives.sum)
        self.progress.sums = self.sums.state()

    def _mean(self, mine_S2: IntArray) -> Tensor:
        """The mean over all workers, known before the round begins: no step waits for it."""
        return self.collectives.sum(torch.from_numpy(mine_S2)) / self.collectives.workers

    def _makers(
        self,
        timelines: Timelines,
        plan: Sequence[Windows],
        num_learnt_S2: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Callable[[], Batch]]:
        """What makes each of the planned steps; those without windows teach nothing."""
        share = self.schedule.id_dropout_at(self.progress)
        for windows, num_learnt, own in zip(plan, num_learnt_S2, rng.spawn(len(plan)), strict=True):
            yield partial(self._make, timelines, windows, num_learnt, own, share=share)

    def _make(
        self,
        timelines: Timelines,
        windows: Windows,
        num_learnt: Tensor,
        rng: np.random.Generator,
        *,
        share: float,
    ) -> Batch:
        batch = drop_ids(self.batcher.make(timelines, *windows, rng), share, rng)
        batch = replace(batch, num_learnt=num_learnt)
        return batch.pinned() if self.device.type == "cuda" else batch

    def _loss(self, losses: Losses, batch: Batch) -> Tensor:
        """The loss that a step minimizes; sets the learning rate of its place."""
        lr = self.schedule.lr(self.progress)
        for group in self.trainable.dense_optimizer.param_groups:
            group["lr"] = lr
        loss = self.loss_weights.combine(losses, batch)
        # On a GPU the question would wait for the step; its sums are asked before a checkpoint.
        if self.device.type == "cpu" and not is_finite(loss):
            raise self._no_number(
                f"is {loss.item()}", f" and the timelines of {shortened(batch.user_ids)}"
            )
        return loss

    def _require_finite_sums(self) -> None:
        if not self.sums.are_finite():
            raise self._no_number("has become no number", "")

    def _no_number(self, is_what: str, with_what: str) -> FloatingPointError:
        rate = self.trainable.dense_optimizer.param_groups[0]["lr"]
        return FloatingPointError(
            f"the loss {is_what} at step {self.progress.steps} of epoch {self.progress.epoch}, "
            f"after {self.progress.partitions} partitions, with learning rate {rate:.2g}{with_what}"
            "; the last checkpoint stands; lower train.lr or train.table_lr"
        )

    def _finish_epoch(self, figures: dict[str, float]) -> None:
        progress = self.progress
        figures["timelines"] = sum(progress.seen_timelines)
        progress.epoch, progress.partitions, progress.sums = progress.epoch + 1, 0, {}
        score = figures.get("score")
        if score is None or score > progress.best_score:
            progress.best_score = score if score is not None else progress.best_score
            progress.best_epoch = progress.epoch
        progress.history.append({"epoch": progress.epoch, **figures})
        self._report({"epoch": progress.epoch, **figures}, score=score)

    def _report(self, figures: dict[str, float], score: float | None) -> None:
        """Writes a checkpoint; a score of minus infinity never makes a checkpoint the best."""
        metrics = {**figures, "score": float("-inf") if score is None else score}
        metrics["best_epoch"] = self.progress.best_epoch
        with tempfile.TemporaryDirectory() as folder:
            save(folder, self.trainable, self.progress)
            self.session.report(metrics, folder)
        self._contents_are_old = self.batcher.step_clips is not None
        if self._progress_actor is not None and "retrieval_loss" in figures:
            self._progress_actor.epoch.remote(self.progress.history[-1])

    def _show(self) -> None:
        if self._progress_actor is not None:
            done = self.schedule.epochs_done(self.progress)
            self._progress_actor.step.remote(done, self.sums.figures())


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
        step_clips=train.step_clips,
    )


def read_ahead(cores: int, clip_bytes: int) -> int:
    """How many steps a worker on a GPU makes at a time.

    A GPU learns from a step sooner than a core makes one; where a core learns, one is enough.

    Args:
        cores: The worker's own; its thread that starts the GPU's work wants one of them.
        clip_bytes: Of a step's clips, which are in memory of each step that is made.

    >>> read_ahead(16, 0), read_ahead(1, 0), read_ahead(16, 5 * 10**9)
    (15, 1, 1)
    """
    most = AHEAD_BYTES // clip_bytes if clip_bytes else cores
    return max(1, min(cores - 1, most))


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
