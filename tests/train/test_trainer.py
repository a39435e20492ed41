"""The trainer on Ray Train, with the tiny run's data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

from recsys import cluster
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, VALID
from recsys.train.checkpoint import read_trending
from recsys.train.loop import Job
from recsys.train.stage import describe, root_cause, train, training_error
from recsys.train.trainer import make_trainer, use_gpu
from tests.conftest import TrainedRun
from tests.steps import make_config

FINGERPRINT = "0123456789ab"


@pytest.fixture(scope="module")
def config(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run folder with the tiny run's data and nothing trained; plain tables start faster."""
    run = tmp_path_factory.mktemp("trainer") / "run"
    for name in ("prepare", "decode"):
        shutil.copytree(trained_run.run / name, run / name)
    settings = [*trained_run.settings, f"run={run}", "train.tables=plain", "train.max_failures=0"]
    settings += ["train.checkpoint_every_partitions=2", "train.refit=false"]
    return load_config(trained_run.config_path, settings)


def state(result: Any) -> dict[str, Any]:
    with result.checkpoint.as_directory() as folder:
        return json.loads((Path(folder) / "progress.json").read_text())


@pytest.mark.ray
def test_training_goes_on_from_the_last_checkpoint(config: RunConfig) -> None:
    """One epoch; the same trainer asked for two; the stage, which finds both done.

    As if it had been stopped after the first epoch, and again before the report was written.
    """
    first = make_trainer(config, name=f"fit-{FINGERPRINT}", epochs=1).fit()
    assert first.metrics["epoch"] == 1
    begun = state(first)
    assert (begun["epoch"], begun["partitions"]) == (1, 0)
    second = make_trainer(config, name=f"fit-{FINGERPRINT}", epochs=2).fit()
    gone_on = state(second)
    assert gone_on["epoch"] == 2
    assert gone_on["history"][0] == begun["history"][0]
    assert gone_on["steps"] == 2 * begun["steps"]
    assert second.metrics["score"] == gone_on["history"][1]["score"]
    out = f"{config.run}/train"
    report = train(config, out, FINGERPRINT)
    assert report["history"] == gone_on["history"]
    kept = json.loads(Path(out, "model", "progress.json").read_text())
    assert kept["epoch"] == report["epochs"] == gone_on["best_epoch"]


@pytest.mark.ray
def test_two_workers_fit_and_refit(trained_run: TrainedRun, tmp_path: Path) -> None:
    """On Ray Train, as the command does: every timeline once an epoch, by both trainings.

    The refit learns the validation events too and keeps what trending was found to be worth.
    """
    run = tmp_path / "run"
    for name in ("prepare", "decode"):
        shutil.copytree(trained_run.run / name, run / name)
    settings = [*trained_run.settings, f"run={run}", "train.workers=2", "train.refit=true"]
    config = load_config(trained_run.config_path, [*settings, "train.epochs=1"])
    report = train(config, f"{run}/train", FINGERPRINT)
    prepared = Prepared(config)
    parts = [prepared.timelines(number) for number in range(len(prepared.partitions))]
    fitted, refitted = (
        [int((part.count_before(split) > 0).sum()) for part in parts] for split in (VALID, TEST)
    )
    (epoch,) = report["history"]
    assert (epoch["timelines"], report["epochs"], report["refit"]) == (sum(fitted), 1, True)
    assert 0 < epoch["valid_ndcg@10"] <= 1 and epoch["retrieval_loss"] > 0
    kept = json.loads((run / "train" / "model" / "progress.json").read_text())
    assert kept["seen_timelines"] == refitted
    assert "score" not in kept["history"][0]
    fit, refit = (
        newest_checkpoint(run / "train" / f"{name}-{FINGERPRINT}") for name in ("fit", "refit")
    )
    assert json.loads((fit / "progress.json").read_text())["seen_timelines"] == fitted
    weight = read_trending(str(run / "train" / "model"))
    assert weight == read_trending(str(fit)) == read_trending(str(refit)) != 0


def newest_checkpoint(folder: Path) -> Path:
    return max(folder.glob("checkpoint_*/progress.json")).parent


@pytest.mark.parametrize(
    ("device", "workers", "num_gpus", "on_gpus"),
    [
        ("auto", 1, 0, False),
        ("auto", 1, 1, True),
        ("auto", 2, 1, False),
        ("auto", 2, 2, True),
        ("auto", 2, 8, True),
        ("cpu", 1, 8, False),
        ("cuda", 2, 1, True),  # and refused, as the cluster has too few
    ],
)
def test_all_workers_have_a_gpu_or_none(
    device: str, workers: int, num_gpus: int, on_gpus: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backend, resources and device of the workers follow from one decision."""
    monkeypatch.setattr(cluster, "num_gpus", lambda: num_gpus)
    monkeypatch.setattr(cluster, "num_cpus", lambda: 8)
    config = make_config(train={"device": device, "workers": workers})
    assert use_gpu(config) == on_gpus
    if on_gpus and num_gpus < workers:
        with pytest.raises(InputError, match="each takes one GPU and the cluster has 1"):
            make_trainer(config)
        return
    trainer = make_trainer(config)
    assert trainer.scaling_config.use_gpu == on_gpus
    assert trainer.backend_config.backend == ("nccl" if on_gpus else "gloo")
    assert Job.from_dict(trainer.train_loop_config).gpu == on_gpus


def test_gpus_that_pytorch_does_not_see_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and PyTorch's CPU build, which has no NCCL."""
    monkeypatch.setattr(cluster, "num_gpus", lambda: 1)
    monkeypatch.setattr(cluster, "num_cpus", lambda: 8)
    monkeypatch.setattr(cluster, "gpus_compute", lambda: False)
    trainer = make_trainer(make_config(train={"device": "auto"}))
    assert not trainer.scaling_config.use_gpu and trainer.backend_config.backend == "gloo"
    with pytest.raises(InputError, match="train.device=cuda: .* PyTorch sees none"):
        use_gpu(make_config(train={"device": "cuda"}))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.workers=3"], "the cluster has 2; set train.workers to at most 2 or add nodes"),
        (["train.workers=2", "train.device=cuda"], "each takes one GPU and the cluster has 0"),
    ],
)
def test_more_workers_than_the_cluster_has_are_refused_at_once(
    trained_run: TrainedRun, settings: list[str], message: str
) -> None:
    changed = load_config(trained_run.config_path, [*trained_run.settings, *settings])
    with pytest.raises(InputError, match=message):
        make_trainer(changed)


@pytest.mark.ray
def test_missing_clips_are_said_before_any_worker_starts(config: RunConfig) -> None:
    clips, away = Path(config.run, "decode", "clips.lance"), Path(config.run, "decode", "away")
    clips.rename(away)
    try:
        with pytest.raises(InputError, match="clips.lance: there are no clips; run recsys decode"):
            train(config, f"{config.run}/train", "ffffffffffff")
    finally:
        away.rename(clips)


def worker_error(error: Exception) -> Exception:
    """As Ray Train hands over what a worker raised."""
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    text = f"Traceback (most recent call last):\n  …\n{type(error).__name__}: {error}\n"
    return WorkerGroupError("rank 1 failed", {1: UserExceptionWithTraceback(error, text)})


def test_a_workers_wrong_input_stays_wrong_input() -> None:
    error = training_error(worker_error(InputError("clips.lance: no clips there")))
    assert (type(error), str(error)) == (InputError, "clips.lance: no clips there")


def test_another_error_of_a_worker_is_its_last_line() -> None:
    error = training_error(worker_error(FloatingPointError("the loss is nan at step 3")))
    assert type(error) is RuntimeError
    assert str(error) == "training stopped: FloatingPointError: the loss is nan at step 3"
    assert root_cause(ValueError("")) == "ValueError('')"


@pytest.mark.ray
def test_wrong_input_met_by_a_ray_task_is_found(ray_local: None) -> None:
    from recsys.errors import find_input_error

    def refuse(batch: Any) -> Any:
        raise InputError("x=1: allowed is 2")

    with pytest.raises(Exception) as error:  # noqa: B017, PT011 - Ray chooses the type
        ray.data.range(1).map_batches(refuse).materialize()
    assert str(find_input_error(error.value)) == "x=1: allowed is 2"


def test_an_epochs_line_names_what_people_follow() -> None:
    figures = {"epoch": 1, "retrieval_loss": 7.25, "valid_ndcg@10": 0.03, "events_per_s": 1200.4}
    line = describe(figures)
    assert "retrieval loss 7.250" in line and "1,200 events/s" in line and "0.0300" in line
