import logging
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import recsys.tune.tuner
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.tune.space import with_settings
from recsys.tune.tuner import make_tuner, tune_run
from tests.conftest import RUN_NAME, TrainedRun
from tests.inputs import write_input

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """With a run folder of a name that would be a pattern and a chain elsewhere."""
    return load_config(str(write_input(tmp_path)), [f"run={tmp_path}/{RUN_NAME}"])


def test_a_space_of_no_setting_is_refused_before_any_trial(config: RunConfig) -> None:
    with pytest.raises(InputError, match="train.lrr is not a setting"):
        make_tuner(config, {"train.lrr": {"uniform": [0, 1]}})


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tune.concurrent=2", "train.workers=2"], "tune.concurrent=2: .*set tune.concurrent to"),
        (["train.workers=3"], "train.workers=3: each takes one CPU and the cluster has 2"),
    ],
)
def test_a_sweep_that_the_cluster_cannot_hold_is_refused(
    trained_run: TrainedRun, settings: list[str], message: str
) -> None:
    config = load_config(trained_run.config_path, [*trained_run.settings, *settings])
    with pytest.raises(InputError, match=message):
        tune_run(config, str(ROOT / "tuning" / "spaces" / "quick.yaml"))


def fake_trial(settings: dict[str, Any], config_tree: dict[str, Any]) -> None:
    """Scores by the learning rate alone; or fails as a worker would."""
    if config_tree["train"]["seed"] == 13:
        raise InputError("clips.lance: no clips there")
    for epoch in (1, 2):
        tune.report({"epoch": epoch, "score": -abs(settings["train.lr"] - 0.003), "best_epoch": 1})


@pytest.mark.ray
def test_a_sweep_writes_the_best_settings(
    ray_local: None,
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a trial that trains nothing; the sweep as the README types it has a test of its own."""
    monkeypatch.setattr(recsys.tune.tuner, "run_trial", fake_trial)
    monkeypatch.setattr(recsys.tune.tuner, "require_inputs", lambda config: None)
    space = tmp_path / "space.yaml"
    space.write_text("train.lr: {choice: [0.003, 0.1]}")
    changed = with_settings(config, {"tune.trials": 4, "train.epochs": 2})
    with caplog.at_level(logging.INFO, "recsys"):
        report = tune_run(changed, str(space))
    lines = [line for line in caplog.messages if line.startswith("tune: trial")]
    assert len(lines) == 4
    assert lines[0].startswith("tune: trial 1 of 4: score ")
    assert (report["trials"], report["failed"]) == (4, 0)
    assert report["best"] == {"train.lr": 0.003}
    assert report["score"] == 0
    best = load_config(report["best.yaml"])
    assert best == with_settings(changed, {"train.lr": 0.003})


@pytest.mark.ray
def test_a_sweep_whose_trials_all_fail_says_why(
    ray_local: None, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recsys.tune.tuner, "run_trial", fake_trial)
    monkeypatch.setattr(recsys.tune.tuner, "require_inputs", lambda config: None)
    space = tmp_path / "space.yaml"
    space.write_text("train.lr: {uniform: [0.1, 0.2]}")
    changed = with_settings(config, {"tune.trials": 1, "train.seed": 13})
    with pytest.raises(InputError, match=r"^clips.lance: no clips there$"):
        tune_run(changed, str(space))
