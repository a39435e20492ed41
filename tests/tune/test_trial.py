"""What a trial keeps, without Ray."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray._private.state import state
from ray.train import Checkpoint

import recsys.tune.trial
from recsys.config.run import RunConfig
from recsys.schema import VALID
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker
from recsys.train.trainer import checkpoint_folder
from recsys.tune.trial import Reports, best_checkpoint, newest_checkpoint
from tests.steps import make_config
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


def test_a_checkpoint_in_a_bucket_is_found_by_its_uri() -> None:
    """Ray's own path of it has no scheme, since Ray keeps the filesystem apart."""
    checkpoint = Checkpoint("bucket/a #1/fit/checkpoint_x", filesystem=LocalFileSystem())
    folder = checkpoint_folder("s3://bucket/a #1/fit", checkpoint)
    assert folder == "s3://bucket/a #1/fit/checkpoint_x"


@pytest.mark.parametrize("find", [best_checkpoint, newest_checkpoint])
def test_checkpoints_of_several_workers_are_found_where_the_run_is(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[RunConfig, int], str]
) -> None:
    config = make_config(run="s3://bucket/run", train={"workers": 2})
    fit = "bucket/run/tune/trials/0003/fit"
    checkpoint = Checkpoint(f"{fit}/checkpoint_x", filesystem=LocalFileSystem())
    result = SimpleNamespace(checkpoint=checkpoint, get_best_checkpoint=lambda *_: checkpoint)
    monkeypatch.setattr(recsys.tune.trial, "read_result", lambda _: result)
    assert find(config, 3) == f"s3://{fit}/checkpoint_x"
