"""What a worker learns from, and what it may know."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.train.torch
import torch

from recsys.features.inputs import Batch
from recsys.features.timelines import Timelines
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, TRAIN, VALID
from recsys.train import loop
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker, make_batcher, train_worker
from tests.steps import make_config
from tests.train.memory import Checkpoints, MemoryPrepared, make_prepared, make_worker

FRESH, UNSEEN = 49, 50
"""A video of the validation days, and one that nobody was shown."""


def make_world(**train: Any) -> MemoryPrepared:
    """Every user's validation event is of the fresh video, which was in no event before."""
    prepared = make_prepared((6, 9, 4), train={"tables": "plain", "batch_timelines": 4, **train})
    parts = []
    for part in prepared.parts:
        rows = np.where(part.video_rows >= FRESH, 1, part.video_rows)
        rows = np.where(part.split == VALID, FRESH, rows)
        parts.append(replace(part, video_rows=rows, positive=np.ones_like(part.positive)))
    return replace(prepared, parts=tuple(parts))


@pytest.mark.parametrize("learn_before", [VALID, TEST])
def test_the_fit_knows_nothing_of_the_validation_days(learn_before: int) -> None:
    """No ID, no candidate, no count of targets; the refit learns from all three."""
    prepared, refit = make_world(), learn_before == TEST
    batcher = make_batcher(Job(prepared.config, learn_before, epochs=1), prepared)
    assert batcher.videos.id_rows[FRESH] == (FRESH if refit else 0)
    assert batcher.candidates.pool is not None
    assert (FRESH in batcher.candidates.pool) == refit
    shown = sum(int((part.split == VALID).sum()) for part in prepared.parts)
    assert batcher.candidates.positives[FRESH] == (shown if refit else 0)
    rng = np.random.default_rng(0)
    plan = batcher.plan(prepared.parts[0], rng)
    splits = [TRAIN, VALID] if refit else [TRAIN]
    learnt = np.isin(prepared.parts[0].split, splits).sum()
    assert batcher.num_learnt(prepared.parts[0], plan).sum(0).tolist() == [learnt, learnt]


@pytest.mark.parametrize("negatives", [20, 8192])
def test_what_nobody_was_shown_is_never_a_negative(negatives: int) -> None:
    prepared = make_world(negatives=negatives)
    batcher = make_batcher(Job(prepared.config, VALID, epochs=1), prepared)
    rng, drawn = np.random.default_rng(0), set()
    for _ in range(50):
        drawn |= set(batcher.candidates.draw(np.zeros(0, np.int64), rng)[0].tolist())
    shown = np.flatnonzero(prepared.catalog.train_events)
    assert drawn == set(shown.tolist())
    assert not drawn & {0, FRESH, UNSEEN}


class Recorder:
    """Stands where steps are taken: keeps the batches and learns nothing."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def next_step(self, batches: Iterator[Batch]) -> None:
        self.batches += batches


def recorded(monkeypatch: pytest.MonkeyPatch, folder: Path, prepared: MemoryPrepared) -> Worker:
    worker = make_worker(
        monkeypatch, Job(prepared.config, TEST, epochs=4), prepared, Checkpoints(folder)
    )
    worker.steps = Recorder()  # type: ignore[assignment]
    return worker


def share_dropped(batches: list[Batch]) -> float:
    """Of the videos that have an ID of their own."""
    rows = torch.cat([batch.videos.id_rows[1:] for batch in batches])
    return (rows == 0).float().mean().item()


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_ids_are_left_out_at_random(
    share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = {**make_config().model.model_dump(), "id_dropout": share}
    prepared = make_prepared(model=model, train={"tables": "plain", "batch_timelines": 4})
    worker = recorded(monkeypatch, tmp_path, prepared)
    worker.run()
    assert share_dropped(worker.steps.batches) == pytest.approx(share, abs=0.04)


def test_content_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In half of four epochs no video has an ID, then all have."""
    train = {"tables": "plain", "batch_timelines": 4, "content_first": 0.5}
    worker = recorded(monkeypatch, tmp_path, make_prepared(train=train))
    shares = []
    for epoch in range(4):
        worker.steps = Recorder()  # type: ignore[assignment]
        worker.progress.epoch, worker.progress.partitions = epoch, 0
        worker._run_epoch()
        shares.append(share_dropped(worker.steps.batches))
    assert shares == [1, 1, 0, 0]


def test_an_epoch_learns_all_and_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared = make_world()
    worker = recorded(monkeypatch, tmp_path, prepared)
    worker.run()
    batches = worker.steps.batches
    users = [user for batch in batches for user in batch.user_ids]
    assert worker.progress.epoch == 4
    learnt = [int((part.count_before(TEST) > 0).sum()) for part in prepared.parts]
    assert worker.progress.seen_timelines == learnt
    assert len(users) == 4 * sum(learnt)
    quarter = len(batches) // 4
    epochs = [batches[i * quarter : (i + 1) * quarter] for i in range(4)]
    orders = [[batch.user_ids for batch in epoch] for epoch in epochs]
    assert len({str(order) for order in orders}) == 4
    assert len({str(sorted(sum(order, ()))) for order in orders}) == 1


def test_the_next_partition_is_read_while_one_is_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each once, in the order of the rounds."""
    prepared, read, ahead = make_world(), list[int](), Event()
    worker = recorded(monkeypatch, tmp_path, prepared)

    def timelines(self: MemoryPrepared, partition: int) -> Timelines:
        read.append(partition)
        if len(read) == 2:
            ahead.set()
        return self.parts[partition]

    learnt: list[int] = []

    def run_round(partitions: np.ndarray, timelines: Timelines) -> None:
        assert ahead.wait(timeout=60)
        learnt.extend(partitions.tolist())
        assert timelines is prepared.parts[partitions[0]]

    monkeypatch.setattr(MemoryPrepared, "timelines", timelines)
    monkeypatch.setattr(worker, "_run_round", run_round)
    worker._run_epoch()
    assert sorted(learnt) == [0, 1, 2]
    assert read == learnt


def test_a_refit_takes_the_weight_of_what_is_trending(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no days to find it by: what it was given is in its checkpoints, and no figures."""
    prepared, kept = make_world(), Checkpoints(tmp_path)
    job = Job(prepared.config, TEST, epochs=1, trending=0.75)
    worker = make_worker(monkeypatch, job, prepared, kept)
    worker.run()
    assert float(worker.trainable.model.trending) == 0.75
    assert not any(name.startswith("valid_") for name in worker.progress.history[0])


@pytest.mark.parametrize("gpu", [False, True])
def test_a_worker_takes_the_device_that_it_was_given(
    gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that PyTorch sees, but that Ray Train gave to nobody here, stays alone."""
    made: dict[str, Any] = {}

    class Made:
        def __init__(self, job: Job, prepared: Prepared, **place: Any) -> None:
            made.update(place)

        def run(self) -> None:
            made["ran"] = True

    context = SimpleNamespace(
        get_world_rank=lambda: 1, get_world_size=lambda: 2, get_local_world_size=lambda: 2
    )
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cuda", 3))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(loop, "Worker", Made)
    train_worker(Job(make_config(), VALID, epochs=1, gpu=gpu).to_dict())
    device = torch.device("cuda", 3) if gpu else torch.device("cpu")
    assert made == {"collectives": Collectives(1, 2, device), "ran": True}
