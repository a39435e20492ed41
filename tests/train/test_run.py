"""The course of a training: epochs, the best of them, checkpoints, and what the driver is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch

from recsys import cluster
from recsys.schema import TEST, VALID
from recsys.train import loop
from recsys.train.loop import Job, Worker
from recsys.train.schedule import lr_share
from recsys.train.sharding import PipelinedSteps
from recsys.train.steps import SingleSteps
from tests.train.memory import Checkpoints, make_prepared, make_worker

INF = float("inf")


@dataclass
class Calls:
    """Stands for a method of an actor."""

    given: list[Any] = field(default_factory=list)

    def remote(self, *values: Any) -> None:
        self.given.append(values)


@dataclass
class FakeActor:
    """Stands for the actor that the driver reads."""

    begin: Calls = field(default_factory=Calls)
    step: Calls = field(default_factory=Calls)
    epoch: Calls = field(default_factory=Calls)


class OneStep:
    """Stands where steps are taken: every batch is one, and nothing is learnt."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def next_step(self, batches: Iterator[Any]) -> Any:
        batch = next(batches, None)
        return None if batch is None else (self.worker.trainable.model.eval()(batch), batch)


def worker_of(
    monkeypatch: pytest.MonkeyPatch,
    kept: Checkpoints,
    *,
    split: int = VALID,
    epochs: int = 3,
    scores: tuple[float, ...] = (),
    place: tuple[int, int] = (0, 1),
    actor: Any = None,
    **train: Any,
) -> Worker:
    """Of three partitions, whose validation gives the scores one after the other."""
    prepared = make_prepared(train={"tables": "plain", "batch_timelines": 100, **train})
    job = Job(prepared.config, split, epochs, progress_actor=actor)
    worker = make_worker(monkeypatch, job, prepared, kept, place=place)
    left = iter(scores)
    monkeypatch.setattr(loop, "predict_validation", lambda *_, **__: None)
    monkeypatch.setattr(loop, "fit_trending_weight", lambda *_: None)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: {"score": next(left)})
    worker.steps = OneStep(worker)  # type: ignore[assignment]
    return worker


@pytest.mark.parametrize(
    ("patience", "scores", "epochs", "best"),
    [
        (1, (0.3, 0.2), 2, 1),
        (2, (0.3, 0.2, 0.3), 3, 1),  # no better is not better
        (2, (0.1, 0.2, 0.15, 0.2), 4, 2),
        (9, (0.1, 0.2, 0.3, 0.4), 4, 4),
        (1, (-0.5, -0.2, -0.3), 3, 2),
    ],
)
def test_training_stops_once_validation_gets_no_better(
    patience: int,
    scores: tuple[float, ...],
    epochs: int,
    best: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    kept = Checkpoints(tmp_path)
    worker = worker_of(monkeypatch, kept, epochs=4, scores=scores, patience=patience)
    begun = time.perf_counter()
    worker.run()
    took = time.perf_counter() - begun
    progress = worker.progress
    assert (progress.epoch, progress.best_epoch) == (epochs, best)
    assert progress.best_score == max(scores[:epochs])
    assert [epoch["score"] for epoch in progress.history] == list(scores[:epochs])
    assert [epoch["epoch"] for epoch in progress.history] == list(range(1, epochs + 1))
    reports = kept.metrics
    assert [report["score"] for report in reports] == list(scores[:epochs])
    assert [report["epoch"] for report in reports] == list(range(1, epochs + 1))
    assert reports[-1]["best_epoch"] == best
    assert 0 < sum(epoch["validate_s"] for epoch in progress.history) < took


def test_a_refit_takes_all_its_epochs_and_none_is_the_best(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = Checkpoints(tmp_path)
    worker = worker_of(monkeypatch, kept, split=TEST, epochs=4, patience=1)
    worker.run()
    assert worker.progress.epoch == 4
    assert [report["score"] for report in kept.metrics] == [-INF] * 4
    assert worker.progress.best_score == -INF
    assert all("score" not in epoch for epoch in worker.progress.history)


@pytest.mark.parametrize(
    ("partitions", "every", "workers", "places"),
    [
        (5, 1, 1, [1, 2, 3, 4]),
        (5, 2, 1, [2]),  # after 4 the epoch's own is near
        (6, 2, 1, [2, 4]),
        (5, 9, 1, []),
        (4, 1, 2, [2]),
        (7, 2, 2, [2, 4]),
        (7, 3, 2, [4]),
    ],
)
def test_checkpoints_fall_between_partitions(
    partitions: int,
    every: int,
    workers: int,
    places: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """So many partitions done; then the epoch's own, with none of the next."""
    users = tuple(3 for _ in range(partitions))
    train = {"tables": "plain", "batch_timelines": 100, "checkpoint_every_partitions": every}
    prepared = make_prepared(users, train=train)
    job = Job(prepared.config, TEST, epochs=1)
    worker = make_worker(monkeypatch, job, prepared, Checkpoints(tmp_path))
    worker.schedule, done = replace(worker.schedule, workers=workers), []
    monkeypatch.setattr(worker, "_run_round", lambda *_: None)
    monkeypatch.setattr(
        worker, "_report", lambda figures, score: done.append((worker.progress.partitions, score))
    )
    worker.run()
    assert done == [(place, None) for place in [*places, 0]]


def test_a_checkpoint_inside_an_epoch_is_never_the_best(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has the epoch's number so far, and no figures."""
    kept = Checkpoints(tmp_path)
    worker = worker_of(monkeypatch, kept, epochs=1, scores=(0.5,), checkpoint_every_partitions=1)
    worker.run()
    assert [report["score"] for report in kept.metrics] == [-INF, -INF, 0.5]
    assert [report["epoch"] for report in kept.metrics] == [0, 0, 1]
    assert "retrieval_loss" not in kept.metrics[1] and "retrieval_loss" in kept.metrics[2]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_worker_tells_the_driver(
    rank: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tables' plan, each step with its place and figures, each epoch."""
    actor = FakeActor()
    worker = worker_of(
        monkeypatch,
        Checkpoints(tmp_path),
        epochs=2,
        scores=(0.1, 0.2),
        actor=actor,
        checkpoint_every_partitions=1,
    )
    worker.collectives = replace(worker.collectives, rank=rank)
    order = [0, 1, 2] if rank == 0 else []
    if rank:
        monkeypatch.setattr(worker, "_run_round", lambda *_: worker._show())
    worker.run()
    if rank:
        assert not actor.begin.given and not actor.step.given and not actor.epoch.given
        return
    assert actor.begin.given == [("plain torch tables, a copy on each worker", 0)]
    places = [done for done, _ in actor.step.given]
    assert places == pytest.approx([epoch + part / 3 for epoch in (0, 1) for part in order])
    assert all(figures["retrieval_loss"] > 0 for _, figures in actor.step.given)
    assert [epoch["score"] for (epoch,) in actor.epoch.given] == [0.1, 0.2]


def test_an_epochs_figures_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is learnt, so that two epochs' are the same; each counts its own timelines."""
    worker = worker_of(
        monkeypatch,
        Checkpoints(tmp_path),
        epochs=2,
        scores=(0.1, 0.2),
        checkpoint_every_partitions=1,
    )
    worker.run()
    first, second = worker.progress.history
    assert first["retrieval_loss"] == pytest.approx(second["retrieval_loss"], rel=1e-6)
    assert first["timelines"] == second["timelines"] == sum(worker.progress.seen_timelines)
    assert worker.progress.steps == 6
    assert (worker.progress.partitions, worker.progress.sums) == (0, {})


def test_steps_are_taken_at_the_learning_rate_of_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The third of six steps of two epochs, in the last of the first one's three partitions."""
    prepared = make_prepared(train={"tables": "plain", "batch_timelines": 100, "lr": 0.5})
    job = Job(prepared.config, TEST, epochs=2)
    worker = make_worker(monkeypatch, job, prepared, Checkpoints(tmp_path))
    rates: list[float] = []

    def show() -> None:
        rates.extend(group["lr"] for group in worker.trainable.dense_optimizer.param_groups)

    monkeypatch.setattr(worker, "_show", show)
    worker.run()
    expected = [0.5 * lr_share(step, step / 3, 2) for step in range(6)]
    assert rates == pytest.approx(expected)


def test_workers_begin_with_the_seeds_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All the same ones, and those of another seed are others."""

    def weights(seed: int) -> torch.Tensor:
        worker = worker_of(monkeypatch, Checkpoints(tmp_path), seed=seed)
        return worker.trainable.model.query[1].weight.detach().clone()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("device", "sharded", "kind"),
    [
        ("cuda", True, PipelinedSteps),
        ("cuda", False, SingleSteps),
        ("cpu", True, SingleSteps),
    ],
)
def test_steps_are_overlapped_where_that_helps(
    device: str,
    sharded: bool,
    kind: type,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    worker = worker_of(monkeypatch, Checkpoints(tmp_path), clip_norm=3.0)
    made: list[tuple[type, Any]] = []
    for each in (PipelinedSteps, SingleSteps):
        monkeypatch.setattr(
            loop, each.__name__, lambda *given, each=each: made.append((each, given))
        )
    worker.device, worker.trainable.sharded = torch.device(device), sharded
    worker._make_steps()
    ((used, given),) = made
    assert used is kind
    assert given == (worker.trainable, worker._loss, torch.device(device), 3.0)


@pytest.mark.parametrize(
    ("tables", "there", "made"),
    [
        ("auto", True, "sharded"),
        ("auto", False, "plain"),
        ("torchrec", True, "sharded"),
        ("torchrec", False, "sharded"),  # which says what is missing
        ("plain", True, "plain"),
    ],
)
def test_tables_are_sharded_where_torchrec_is_there(
    tables: str, there: bool, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, device = make_prepared(train={"tables": tables}), torch.device("cpu")
    for name in ("sharded", "plain"):
        monkeypatch.setattr(loop, f"build_{name}", lambda *given, name=name: (name, given))
    monkeypatch.setattr(loop, "have_torchrec", lambda: there)
    expected = (made, (prepared.config, prepared.sizes, device))
    assert loop.make_trainable(prepared.config, prepared, device) == expected


@pytest.mark.parametrize(
    ("cores", "local", "threads"), [(8, 2, 4), (8, 1, 8), (3, 2, 1), (1, 4, 1)]
)
def test_workers_of_a_node_share_its_cores(
    cores: int, local: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 4, get_local_world_size=lambda: local
    )
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(cluster, "num_cores", lambda: cores)
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    idle = SimpleNamespace(run=lambda: None)
    monkeypatch.setattr(loop, "Worker", lambda *_, **__: idle)
    loop.train_worker(Job(make_prepared().config, VALID, epochs=1).to_dict())
    assert given == [threads]
