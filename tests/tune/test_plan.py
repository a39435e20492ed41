"""What `recsys tune --dry-run` says."""

import os
from pathlib import Path

import pytest

import recsys.cluster
from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.storage import write_json
from recsys.errors import InputError
from recsys.tune.plan import plan_sweep
from recsys.tune.space import fit_space, read_space, with_settings
from recsys.tune.stage import tune_run
from recsys.tune.trials import Trial, open_table
from recsys.tune.tuner import make_tuner
from tests.inputs import write_input

SPACES = Path(__file__).parents[2] / "tuning" / "spaces"
QUICK, MODEL, POPULATION, RERANK = (
    str(SPACES / name) for name in ("quick.yaml", "model.yaml", "population.yaml", "rerank.yaml")
)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    settings = ["tune.trials=7", "train.epochs=3", "train.device=cpu"]
    return load_config(str(write_input(tmp_path)), settings)


def test_the_plan_as_it_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_input(tmp_path)
    assert main(["tune", "--config", str(path), "--space", QUICK, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "trial 0" in shown
    assert "train.lr 0.002" in shown, "first the config as it is"
    assert "no epoch has been measured yet" in shown
    assert not os.path.exists(tmp_path / "run"), "nothing is written"


def test_the_time_is_by_what_was_measured(config: RunConfig) -> None:
    """Two at a time: 4 rounds of 3 epochs, 30 s each; then 3 rounds by the 20 s of the trials."""
    history = [{"epoch_s": 25.0, "validate_s": 5.0}]
    write_json({"history": history}, f"{config.run}/train/report.json")
    plan = plan_sweep(config, QUICK)
    assert (plan["trials"], plan["done"], plan["at a time"]) == (7, 0, 2)
    assert plan["a trial takes"] == "1 CPU, at most 3 epochs"
    assert plan["time"] == (
        "at most 6.0 min, by the 30.0 s that an epoch took in this run's training; "
        "asha ends most sooner"
    )
    table = open_table(config, fit_space(read_space(QUICK), config))
    epochs = [{"epoch": 1, "score": 1.0, "epoch_s": 15.0, "validate_s": 5.0}]
    table.put(Trial(0, {}, "stopped", epochs))
    whole = with_settings(config, {"tune.concurrent": 1})
    assert plan_sweep(whole, QUICK)["time"] == (
        "at most 6.0 min, by the 20.0 s that an epoch took in the trials so far; "
        "asha ends most sooner"
    )


def test_a_populations_time_is_by_each_stretchs_own_epochs(config: RunConfig) -> None:
    """Three stretches of an epoch: one is done, and two rounds of two trials are left."""
    changed = with_settings(config, {"tune.scheduler": "pbt", "tune.trials": 2})
    table = open_table(changed, fit_space(read_space(POPULATION), changed))

    def epoch(number: int, seconds: float) -> dict[str, float]:
        return {"epoch": number, "score": 1.0, "epoch_s": seconds, "validate_s": 0.0}

    for trial in (Trial(0, {}, "finished", [epoch(1, 20.0)]), Trial(1, {}, "finished", [])):
        table.put(trial)
    after = [epoch(1, 20.0), epoch(2, 10.0)]
    table.put(Trial(2, {}, "finished", after, parent=0, num_inherited=1))
    plan = plan_sweep(changed, POPULATION)
    assert plan["trials"] == "6: 2 members, 3 stretches each"
    assert plan["a trial takes"] == "1 CPU, at most 1 epoch"
    assert plan["time"] == "at most 30 s, by the 15.0 s that an epoch took in the trials so far"


def test_what_no_population_can_be_trained_with_is_refused_before_ray_is(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = with_settings(config, {"tune.scheduler": "pbt"})
    monkeypatch.delattr(recsys.cluster, "connect")
    for refuses in (plan_sweep, tune_run):
        with pytest.raises(InputError, match="one cannot change there; allowed are train.lr"):
            refuses(changed, MODEL)
    with pytest.raises(InputError, match="one cannot change there; allowed are train.lr"):
        make_tuner(changed, read_space(MODEL))


def test_a_grid_that_is_cut_is_said(
    tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """By the plan, and by the sweep before it starts Ray."""
    space = tmp_path / "space.yaml"
    space.write_text("train.seed: {randint: [0, 12]}")
    cut = with_settings(config, {"tune.search": "grid"})
    line = "7 of 12 combinations are tried; without tune.trials all are"
    assert plan_sweep(cut, str(space))["grid"] == line
    whole = plan_sweep(with_settings(cut, {"tune.trials": None}), str(space))
    assert (whole["trials"], "grid" in whole) == (12, False)
    with caplog.at_level("WARNING", "recsys"), pytest.raises(InputError):
        tune_run(with_settings(cut, {"train.workers": 99}), str(space))
    assert caplog.messages == [f"tune: {line}"]


def test_re_ranking_trains_nothing(config: RunConfig) -> None:
    changed = with_settings(config, {"tune.objective": {"valid_new@10": 1}, "train.workers": 2})
    plan = plan_sweep(changed, RERANK)
    assert (plan["a trial takes"], plan["scheduler"], plan["at a time"]) == ("1 CPU", "none", 2)
    assert plan["time"] == "seconds a trial, after the lists are predicted once"
