"""Training that stopped inside an epoch, and went on from where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import ray.train
import torch

from recsys.config.run import RunConfig, load_config
from recsys.schema import VALID
from recsys.train.loop import Job, Worker
from tests.conftest import TrainedRun

TIMINGS = {"epoch_s", "validate_s", "events_per_s"}


class Stopped(Exception):
    """Stands for a worker's death."""


class Checkpoints:
    """Stands where Ray Train keeps checkpoints; stops the worker once it has kept some."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.folder, self.stop_after, self.kept = folder, stop_after, 0

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        self.kept += 1
        shutil.copytree(checkpoint.path, self.newest)
        if self.kept == self.stop_after:
            raise Stopped

    @property
    def newest(self) -> Path:
        return self.folder / str(self.kept)

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        yield str(self.newest)


@pytest.fixture
def config(trained_run: TrainedRun, tmp_path: Path) -> RunConfig:
    """The tiny run's data, three partitions, a checkpoint after each."""
    run = tmp_path / "run"
    for name in ("prepare", "decode"):
        shutil.copytree(trained_run.run / name, run / name)
    settings = ["train.tables=plain", "train.checkpoint_every_partitions=1", "train.patience=9"]
    return load_config(trained_run.config_path, [*trained_run.settings, f"run={run}", *settings])


class MakeWorker(Protocol):
    def __call__(self, kept: Checkpoints, *, start: Checkpoints | None = None) -> Worker: ...


@pytest.fixture
def make_worker(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> MakeWorker:
    """A worker of three epochs whose checkpoints are kept here, from the newest of `start` on."""

    def make(kept: Checkpoints, *, start: Checkpoints | None = None) -> Worker:
        monkeypatch.setattr(ray.train, "report", kept.report)
        monkeypatch.setattr(ray.train, "get_checkpoint", lambda: start)
        return Worker(Job(config, VALID, epochs=3), rank=0, workers=1)

    return make


@pytest.mark.ray
def test_training_resumed_inside_an_epoch_equals_uninterrupted(
    make_worker: MakeWorker, tmp_path: Path
) -> None:
    """The same loss curve to the last bit, and the same weights.

    Stopped after the fourth checkpoint: one of three partitions of the second epoch is done.
    """

    uninterrupted = make_worker(Checkpoints(tmp_path / "whole"))
    uninterrupted.run()
    died = Checkpoints(tmp_path / "died", stop_after=4)
    with pytest.raises(Stopped):
        make_worker(died).run()
    resumed = make_worker(Checkpoints(tmp_path / "after"), start=died)
    resumed.run()
    assert len(resumed.progress.history) == 3
    assert curve(resumed) == curve(uninterrupted)
    weights = (w.trainable.model.state_dict() for w in (resumed, uninterrupted))
    for ours, theirs in zip(*(state.values() for state in weights), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.ray
def test_a_loss_that_is_no_number_stops_and_the_last_checkpoint_stands(
    make_worker: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight breaks after the fourth checkpoint, one partition into the second epoch."""
    kept = Checkpoints(tmp_path / "kept")
    worker = make_worker(kept)

    def report(metrics: dict[str, Any], checkpoint: Any) -> None:
        kept.report(metrics, checkpoint)
        if kept.kept == 4:
            with torch.no_grad():
                worker.trainable.model.query[1].weight.fill_(torch.nan)

    monkeypatch.setattr(ray.train, "report", report)
    message = (
        r"the loss is nan at step \d+ of epoch 1, after 1 partitions, with learning rate [\d.e-]+ "
        r"and the timelines of .*u\d{4}.*; the last checkpoint stands; lower train\.lr"
    )
    with pytest.raises(FloatingPointError, match=message):
        worker.run()
    assert kept.kept == 4
    resumed = make_worker(Checkpoints(tmp_path / "after"), start=kept)
    resumed.run()
    losses = [epoch["retrieval_loss"] for epoch in resumed.progress.history]
    assert len(losses) == 3
    assert torch.isfinite(torch.tensor(losses)).all()


def curve(worker: Worker) -> list[dict[str, float]]:
    return [
        {name: value for name, value in epoch.items() if name not in TIMINGS}
        for epoch in worker.progress.history
    ]
