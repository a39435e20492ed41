"""What a trial keeps, without Ray."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.tune.integration.ray_train
import torch
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray._private.state import state
from ray.train import Checkpoint

import recsys.tune.trial
from recsys import cluster
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import write_json
from recsys.schema import VALID
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker
from recsys.train.schedule import Stretch
from recsys.train.trainer import checkpoint_folder
from recsys.tune.trial import Reports, best_checkpoint, newest_checkpoint, run_trial
from recsys.tune.trials import Trial
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


@pytest.mark.parametrize(
    ("has", "gpu", "room", "threads"),
    [
        ({"CPU": 8, "GPU": 1}, True, 4, 8),  # one of four such nodes, whatever the head has
        ({"CPU": 8, "GPU": 2}, True, 8, 4),
        ({"CPU": 8}, False, 32, 1),
        ({"CPU": 8}, False, 2, 4),  # no more at a time
        ({"CPU": 16}, False, 32, 1),  # more CPUs than cores
    ],
)
def test_a_trials_threads_are_its_share_of_its_nodes_cores(
    has: dict[str, int],
    gpu: bool,
    room: int,
    threads: int,
    prepared: MemoryPrepared,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight cores are on the node."""
    monkeypatch.setattr(cluster, "node_has", lambda resource: has.get(resource, 0))
    monkeypatch.setattr(cluster, "num_cores", lambda: 8)
    monkeypatch.setattr(recsys.tune.trial, "_train_here", lambda *_, **__: None)
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    told: list[object] = []
    monkeypatch.setattr(tune, "report", told.append)
    asked = {"number": 0, "settings": {}, "parent": None, "stretch": 0}
    tree = prepared.config.model_dump(mode="json")
    run_trial(asked, config_tree=tree, gpu=gpu, room=room)
    assert (given, told) == ([threads], [])


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
    monkeypatch.setattr(recsys.tune.trial, "exists", lambda _: True)
    assert find(config, 3) == f"s3://{fit}/checkpoint_x"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray Tune is told."""
    results: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", results.append)
    return results


def second_stretch(tmp_path: Path, workers: int = 1) -> Reports:
    """Of a member whose first stretch, trial 0, had an epoch with a score of 9."""
    settings = {"scheduler": "pbt", "perturb_every": 2, "trials": 2}
    config = make_config(run=str(tmp_path), train={"workers": workers, "epochs": 5}, tune=settings)
    folder = RunFolder(config.run)
    write_json(asdict(Trial(0, {}, "finished", [epoch(1, 9.0)])), folder.trial(0))
    write_json({"count": 1, "newest": "a", "best": "a"}, f"{folder.trained_trial(0)}/kept.json")
    return Reports(config, 2, parent=0, stretch_number=1)


def epoch(number: int, score: float) -> dict[str, float]:
    return {"epoch": number, "score": score, "retrieval_loss": 1.0}


def test_a_stretch_ends_where_its_number_says(tmp_path: Path) -> None:
    """Its parent's row lacks an epoch, which changes nothing."""
    start = f"{tmp_path}/tune/trials/0000/a"
    assert second_stretch(tmp_path).stretch == Stretch(start, last_epoch=4)


def test_the_best_checkpoint_of_a_stretch_is_one_of_its_own(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    """Though its parent was better."""
    reports, new = second_stretch(tmp_path), tmp_path / "new"
    new.mkdir()
    reports.report(epoch(2, 1.0), str(new))
    reports.report(epoch(3, 0.5), str(new))
    kept = json.loads(Path(reports.out, "kept.json").read_text())
    assert (kept["best"], kept["newest"]) == ("checkpoint-0000", "checkpoint-0001")
    assert [result["objective"] for result in told] == [1.0, 1.0]


def write_history(folder: Path) -> None:
    """A checkpoint that an earlier try left after two epochs of its own."""
    history = [epoch(1, 9.0), epoch(2, 1.0), epoch(3, 0.5)]
    write_json({"history": history}, str(folder / "progress.json"))


def test_a_trial_that_is_tried_again_tells_its_own_epochs_first(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    reports = second_stretch(tmp_path)
    out = Path(reports.out)
    write_history(out / "b")
    write_json({"count": 1, "newest": "b", "best": "b"}, str(out / "kept.json"))
    with reports.newest() as folder:
        assert folder == str(out / "b")
    assert [(result["epoch"], result["objective"]) for result in told] == [(2, 1.0), (3, 1.0)]


def test_so_does_one_of_several_workers(
    tmp_path: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recsys.tune.trial, "newest_checkpoint", lambda *_: "start")
    reports = second_stretch(tmp_path, workers=2)
    fit = Path(reports.out, "fit")
    write_history(fit / "checkpoint_x")
    checkpoint = Checkpoint(str(fit / "checkpoint_x"), filesystem=LocalFileSystem())
    result = SimpleNamespace(checkpoint=checkpoint)
    monkeypatch.setattr(recsys.tune.trial, "read_result", lambda _: result)
    monkeypatch.setattr(ray.tune.integration.ray_train, "TuneReportCallback", object)
    monkeypatch.setattr(recsys.tune.trial.cluster, "connect", lambda: None)
    trainer = SimpleNamespace(fit=lambda: None)
    monkeypatch.setattr(recsys.tune.trial, "make_trainer", lambda *_, **__: trainer)
    recsys.tune.trial._train_apart(reports.config, reports)
    assert not told, "Ray Train has kept none yet"
    write_json({}, str(fit / "checkpoint_manager_snapshot.json"))
    recsys.tune.trial._train_apart(reports.config, reports)
    assert [result["epoch"] for result in told] == [2, 3]
