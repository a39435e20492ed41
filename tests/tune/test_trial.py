"""What a trial keeps, without Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray._private.state import state

from recsys.schema import VALID
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker
from recsys.tune.trial import Reports
from tests.train.memory import MemoryPrepared, make_prepared

HERE = "a"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryPrepared:
    """Three partitions, and no checkpoint inside an epoch by itself."""
    here = SimpleNamespace(get_node_id=lambda: HERE)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    train = {"tables": "plain", "checkpoint_every_partitions": 9, "batch_timelines": 4}
    return make_prepared(run=str(tmp_path), train={**train, "negatives": 20})


def test_a_node_that_announces_its_end_is_used_for_one_more_checkpoint(
    prepared: MemoryPrepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node's end is nothing to this trial; its own is, once. Ray Tune hears of epochs."""
    told = iter([{"b": 0}, {HERE: 0, "b": 0}, {HERE: 0}, {HERE: 0}, {HERE: 0}, {}])
    monkeypatch.setattr(state, "get_draining_nodes", lambda: next(told))
    epochs: list[int] = []
    monkeypatch.setattr(tune, "report", lambda result: epochs.append(result["epoch"]))
    reports = Reports(prepared.config, 0)
    job = Job(prepared.config, VALID, epochs=2)
    worker = Worker(job, prepared, collectives=Collectives(), session=reports)
    places: list[tuple[int, int]] = []
    keep = reports.report

    def noted(figures: dict[str, Any], folder: str) -> None:
        places.append((worker.progress.epoch, worker.progress.partitions))
        keep(figures, folder)

    monkeypatch.setattr(reports, "report", noted)
    worker.run()
    assert places == [(0, 2), (1, 0), (2, 0)]
    assert epochs == [1, 2]
