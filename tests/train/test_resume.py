"""Training that stopped inside an epoch and went on, against training that never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch

from recsys.config import RunConfig, load_config
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


@pytest.mark.ray
def test_training_resumed_inside_an_epoch_equals_uninterrupted(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same loss curve to the last bit, and the same weights.

    Stopped after the fourth checkpoint: one of three partitions of the second epoch is done.
    """

    def worker(checkpoints: Checkpoints, start: Checkpoints | None = None) -> Worker:
        monkeypatch.setattr(ray.train, "report", checkpoints.report)
        monkeypatch.setattr(ray.train, "get_checkpoint", lambda: start)
        return Worker(Job(config, VALID, epochs=3), rank=0, workers=1)

    uninterrupted = worker(Checkpoints(tmp_path / "whole"))
    uninterrupted.run()
    died = Checkpoints(tmp_path / "died", stop_after=4)
    with pytest.raises(Stopped):
        worker(died).run()
    resumed = worker(Checkpoints(tmp_path / "after"), start=died)
    resumed.run()
    assert len(resumed.progress.history) == 3
    assert curve(resumed) == curve(uninterrupted)
    weights = (w.trainable.model.state_dict() for w in (resumed, uninterrupted))
    for ours, theirs in zip(*(state.values() for state in weights), strict=True):
        assert torch.equal(ours, theirs)


def curve(worker: Worker) -> list[dict[str, float]]:
    return [
        {name: value for name, value in epoch.items() if name not in TIMINGS}
        for epoch in worker.progress.history
    ]
