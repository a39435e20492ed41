"""What `recsys tune --dry-run` says."""

import os
from pathlib import Path

import pytest

from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.storage import write_json
from recsys.tune.plan import plan_sweep
from recsys.tune.space import fit_space, read_space, with_settings
from recsys.tune.trials import Trial, open_table
from tests.inputs import write_input

SPACES = Path(__file__).parents[2] / "tuning" / "spaces"
QUICK, RERANK = (str(SPACES / name) for name in ("quick.yaml", "rerank.yaml"))
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


def test_re_ranking_trains_nothing(config: RunConfig) -> None:
    changed = with_settings(config, {"tune.objective": {"valid_new@10": 1}, "train.workers": 2})
    plan = plan_sweep(changed, RERANK)
    assert (plan["a trial takes"], plan["scheduler"], plan["at a time"]) == ("1 CPU", "none", 2)
    assert plan["time"] == "seconds a trial, after the lists are predicted once"
