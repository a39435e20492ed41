"""Training that stopped inside an epoch, and went on from where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest
import ray.train
import torch
from ray.train import PreemptionInfo

from recsys.schema import VALID
from recsys.train.loop import Job, Worker
from tests.train.memory import Checkpoints, Stopped, make_prepared, make_worker

TIMINGS = {"epoch_s", "validate_s", "events_per_s", "waiting_share"}
MODEL = {
    "content": {"frame_dim": 4, "dim": 4, "train_encoder": True},
    "dim": 8,
    "id_dim": 8,
    "feature_dim": 4,
    "state_dim": 8,
    "dropout": 0.3,
    "id_dropout": 0.2,
}
TRAIN = {"tables": "plain", "checkpoint_every_partitions": 1, "patience": 9, "batch_timelines": 4}


class MakeWorker(Protocol):
    def __call__(
        self, kept: Checkpoints, *, start: Checkpoints | None = None, step_clips: int | None = None
    ) -> Worker: ...


@pytest.fixture
def worker_of(monkeypatch: pytest.MonkeyPatch) -> MakeWorker:
    """A worker of three epochs of three partitions, with all the chance that training has."""

    def make(
        kept: Checkpoints, *, start: Checkpoints | None = None, step_clips: int | None = None
    ) -> Worker:
        train = {**TRAIN, "negatives": 20, "step_clips": step_clips}
        prepared = make_prepared(model=MODEL, train=train)
        job = Job(prepared.config, VALID, epochs=3)
        return make_worker(monkeypatch, job, prepared, kept, start=start)

    return make


@pytest.mark.parametrize("step_clips", [None, 5])
def test_training_resumed_inside_an_epoch_equals_uninterrupted(
    step_clips: int | None, worker_of: MakeWorker, tmp_path: Path
) -> None:
    """The same loss curve to the last bit, and the same weights.

    Stopped after the fourth checkpoint: one of three partitions of the second epoch is done. With a
    cap on the clips of a step too: what stands for the others is made anew after each checkpoint.
    """

    uninterrupted = worker_of(Checkpoints(tmp_path / "whole"), step_clips=step_clips)
    uninterrupted.run()
    died = Checkpoints(tmp_path / "died", stop_after=4)
    with pytest.raises(Stopped):
        worker_of(died, step_clips=step_clips).run()
    resumed = worker_of(Checkpoints(tmp_path / "after"), start=died, step_clips=step_clips)
    resumed.run()
    assert len(resumed.progress.history) == 3
    assert curve(resumed) == curve(uninterrupted)
    weights = (w.trainable.model.state_dict() for w in (resumed, uninterrupted))
    for ours, theirs in zip(*(state.values() for state in weights), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_that_is_no_number_stops_and_the_last_checkpoint_stands(
    worker_of: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight breaks after the fourth checkpoint, one partition into the second epoch."""
    kept = Checkpoints(tmp_path / "kept")
    worker = worker_of(kept)

    def report(metrics: dict[str, Any], checkpoint: Any) -> None:
        kept.report(metrics, checkpoint)
        if kept.kept == 4:
            with torch.no_grad():
                worker.trainable.model.query[1].weight.fill_(torch.nan)

    monkeypatch.setattr(ray.train, "report", report)
    message = (
        r"the loss is nan at step \d+ of epoch 1, after 1 partitions, with learning rate [\d.e-]+ "
        r"and the timelines of .*u\d.*; the last checkpoint stands; lower train\.lr"
    )
    with pytest.raises(FloatingPointError, match=message):
        worker.run()
    assert kept.kept == 4
    resumed = worker_of(Checkpoints(tmp_path / "after"), start=kept)
    resumed.run()
    losses = [epoch["retrieval_loss"] for epoch in resumed.progress.history]
    assert len(losses) == 3
    assert torch.isfinite(torch.tensor(losses)).all()


def curve(worker: Worker) -> list[dict[str, float]]:
    return [
        {name: value for name, value in epoch.items() if name not in TIMINGS}
        for epoch in worker.progress.history
    ]


def test_a_node_that_announces_its_end_is_used_for_one_more_checkpoint(
    worker_of: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told after the first of three partitions and ever after: one checkpoint inside the epoch.

    Another node of the second epoch is worth another one.
    """
    monkeypatch.setitem(TRAIN, "checkpoint_every_partitions", 9)
    kept = Checkpoints(tmp_path / "kept")
    worker = worker_of(kept)
    node, other = PreemptionInfo(None, {"a": [0]}), PreemptionInfo(None, {"a": [0], "b": [0]})
    told = iter([node, node, node, node, other, None, None, None, None])
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: next(told))
    places = []
    report = kept.report

    def noted(metrics: dict[str, Any], checkpoint: Any) -> None:
        places.append((worker.progress.epoch, worker.progress.partitions))
        report(metrics, checkpoint)

    monkeypatch.setattr(ray.train, "report", noted)
    worker.run()
    assert places == [(0, 1), (1, 0), (1, 2), (2, 0), (3, 0)]
