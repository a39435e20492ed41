import logging
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import recsys.tune.tuner
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.tune.tuner import make_tuner, read_space, to_domain, tune_run, with_settings
from tests.conftest import TrainedRun
from tests.inputs import write_input

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


@pytest.mark.parametrize("path", sorted((ROOT / "tuning" / "spaces").glob("*.yaml")))
def test_the_spaces_that_come_with_the_project_fit_the_config(
    path: Path, config: RunConfig
) -> None:
    space = read_space(str(path))
    assert space
    for name, choice in space.items():
        ((kind, arguments),) = choice.items()
        with_settings(config, {name: int(arguments[0]) if kind == "randint" else arguments[0]})
        assert to_domain(choice).sample() is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a space maps settings to {kind: arguments}"),
        ("- train.lr", "a space maps settings to {kind: arguments}"),
        ("train.lr: 3", "train.lr=3: allowed is one of uniform, loguniform, randint, choice"),
        ("train.lr: {normal: [0, 1]}", "allowed is one of uniform, loguniform, randint, choice"),
        ("train.lr: {uniform: [1]}", "uniform takes two numbers, e.g. {uniform: [1, 10]}"),
        ("train.lr: {uniform: [a, b]}", "uniform takes two numbers"),
        ("train.lr: {uniform: 3}", "uniform takes two numbers"),
        ("train.lr: {uniform: [2, 1]}", "uniform takes the smaller number first"),
        ("train.lr: {loguniform: [0, 1]}", "loguniform takes numbers above 0"),
        ("model.dim: {choice: []}", "choice takes a list of values"),
        ("model.dim: {choice: 32}", "choice takes a list of values"),
        ("train.lr: [", "cannot read the space"),
    ],
)
def test_a_wrong_space_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_space(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.yaml: cannot read the space .*check --space"):
        read_space(str(tmp_path / "none.yaml"))


def test_domains() -> None:
    uniform = to_domain({"uniform": ["1e-1", 0.5]})
    assert (uniform.lower, uniform.upper) == (0.1, 0.5)
    assert isinstance(uniform.get_sampler(), tune.search.sample.Uniform)
    log = to_domain({"loguniform": [0.001, 0.1]})
    assert isinstance(log.get_sampler(), tune.search.sample.LogUniform)
    whole = to_domain({"randint": [1, 4]})
    assert {whole.sample() for _ in range(100)} == {1, 2, 3}
    assert to_domain({"choice": [32, "x"]}).categories == [32, "x"]


def test_settings_are_laid_over_the_config(config: RunConfig) -> None:
    changed = with_settings(config, {"train.lr": 0.5, "model.content.dim": 8})
    assert (changed.train.lr, changed.model.content.dim) == (0.5, 8)
    assert changed.train.epochs == config.train.epochs
    assert with_settings(config, {}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.lrr": 1}, "train.lrr is not a setting; did you mean lr"),
        ({"trian.lr": 1}, "trian.lr: trian is no section of the config; check --space"),
        ({"train.lr.x": 1}, "train.lr.x: lr is no section of the config"),
        ({"train.lr": -1}, "train.lr=-1: input should be greater than 0"),
    ],
)
def test_a_wrong_setting_of_a_space_is_named(
    config: RunConfig, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_settings(config, settings)


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
