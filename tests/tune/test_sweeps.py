"""Sweeps on the trained run of the tiny world, with real trials."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import recsys.tune.population
from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.errors import InputError
from recsys.tune.stage import tune_run
from recsys.tune.trials import TrialTable
from tests.conftest import TrainedRun

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]  # each starts Ray several times
SPACES = Path(__file__).parents[2] / "tuning" / "spaces"


@pytest.fixture
def folder(trained_run: TrainedRun, tmp_path: Path) -> Path:
    """A copy of the trained run, for a sweep of its own."""
    copy = tmp_path / "run"
    shutil.copytree(trained_run.run, copy)
    return copy


def config_of(run: TrainedRun, folder: Path, *settings: str) -> RunConfig:
    return load_config(run.config_path, [*run.settings, f"run={folder}", *settings])


def test_a_trial_is_what_training_is(trained_run: TrainedRun, folder: Path, tmp_path: Path) -> None:
    """To the last bit: the first trial has the run's own settings, as `recsys train` had."""
    config = config_of(trained_run, folder, "tune.trials=1", "tune.concurrent=1")
    space = tmp_path / "space.yaml"
    space.write_text("train.lr: {loguniform: [1.0e-3, 1.0e-2]}")
    report = tune_run(config, str(space))
    (trial,) = TrialTable(RunFolder(str(folder))).trials
    trained = json.loads((folder / "train" / "report.json").read_text())["history"]
    times = ("epoch_s", "events_per_s", "validate_s", "waiting_share")
    assert [without(epoch, *times, "best_epoch") for epoch in trial.epochs] == [
        without(epoch, *times) for epoch in trained
    ]
    assert trial.state == "finished"
    test = report["test"]
    assert isinstance(test, dict)
    assert 0 < test["test_ndcg@10"] < 1


def without(figures: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in names}


def test_weights_of_the_re_ranking_are_swept_without_training(
    trained_run: TrainedRun, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = "tune.objective={valid_ndcg@10: 1, valid_creator_gini@10: -10}"
    arguments = [*trained_run.settings, f"run={folder}", "tune.trials=6", objective]
    command = ["tune", "--config", trained_run.config_path, "--space", str(SPACES / "rerank.yaml")]
    assert main([*command, *arguments]) == 0
    trials = json.loads((folder / "tune" / "report.json").read_text())
    assert (trials["trials"], trials["finished"]) == (6, 6)
    first, *others = TrialTable(RunFolder(str(folder))).trials
    assert first.settings["rerank.creator_exposure"] == 0
    weighed = [trial.epochs[0]["valid_creator_gini@10"] for trial in others]
    assert min(weighed) < first.epochs[0]["valid_creator_gini@10"], "weights do something"
    assert trials["winner"] != 0, "with such an objective"
    best = load_config(str(folder / "tune" / "best.yaml"))
    assert best.rerank.creator_exposure > 0
    assert "test_creator_gini@10" in trials["test"]


def test_re_ranking_for_relevance_alone_is_refused(trained_run: TrainedRun, folder: Path) -> None:
    with pytest.raises(InputError, match="tune.objective: re-ranking trades relevance for"):
        tune_run(config_of(trained_run, folder), str(SPACES / "rerank.yaml"))


def test_re_ranking_needs_a_trained_model(trained_run: TrainedRun, folder: Path) -> None:
    shutil.rmtree(folder / "train")
    config = config_of(trained_run, folder, "tune.objective={valid_new@10: 1}")
    with pytest.raises(InputError, match="there is no trained model whose lists could be"):
        tune_run(config, str(SPACES / "rerank.yaml"))


ASHA = ("quick.yaml", "tune.trials=4")
POPULATION = ("population.yaml", "tune.trials=2", "tune.scheduler=pbt", "train.epochs=3")
"""Two members, three stretches each."""


@pytest.mark.parametrize(("sweep_of", "at", "total"), [(ASHA, 2, 4), (POPULATION, 3, 6)])
def test_a_sweep_that_was_killed_ends_as_one_that_was_not(
    trained_run: TrainedRun,
    folder: Path,
    tmp_path: Path,
    sweep_of: tuple[str, ...],
    at: int,
    total: int,
) -> None:
    """kill -9 when some of its trials are done; these are not run again."""
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    sweep(trained_run, whole, sweep_of).wait(timeout=240)
    killed = sweep(trained_run, folder, sweep_of)
    wait_for_trials(folder, at, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {p.name: p.stat().st_mtime_ns for p in done(folder)}
    assert at <= len(before) < total, "it was killed in the middle"
    again = sweep(trained_run, folder, sweep_of, "--resume")
    assert again.wait(timeout=240) == 0
    after = {p.name: p.stat().st_mtime_ns for p in done(folder)}
    assert {name: after[name] for name in before} == before
    reports = [json.loads((at / "tune" / "report.json").read_text()) for at in (whole, folder)]
    same = [without(report, "best.yaml", "page") for report in reports]
    assert same[0] == same[1]
    assert reports[0]["trials"] == total


def sweep(
    run: TrainedRun, folder: Path, sweep_of: tuple[str, ...], *how: str
) -> "subprocess.Popen[bytes]":
    space, *own = sweep_of
    arguments = ["--config", run.config_path, "--space", str(SPACES / space), *how]
    settings = [*run.settings, f"run={folder}", "tune.concurrent=1", *own]
    return subprocess.Popen(
        [sys.executable, "-m", "recsys", "tune", *arguments, *settings],
        env={**os.environ, "RAY_ADDRESS": "local"},
        start_new_session=True,
    )


def done(folder: Path) -> list[Path]:
    paths = sorted((folder / "tune" / "trials").glob("*.json"))
    return [path for path in paths if json.loads(path.read_text())["state"] != "running"]


def wait_for_trials(folder: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 240
    while len(done(folder)) < count:
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < end
        time.sleep(0.01)


TIMES = ("epoch_s", "events_per_s", "validate_s", "waiting_share")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_member_takes_over_weights_optimizers_and_place(
    trained_run: TrainedRun, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """To the last bit: where nothing is changed, the worse one goes on as the better one does.

    The better one is the run's own config, and one worker's is what `recsys train` did.
    """
    monkeypatch.setattr(recsys.tune.population, "perturb", lambda _, __, settings, ___: settings)
    monkeypatch.setattr(recsys.tune.population, "value_now", lambda trial, _: -trial.number)
    settings = ["tune.trials=2", "train.epochs=2", f"train.workers={workers}", "tune.concurrent=1"]
    config = config_of(trained_run, folder, "tune.scheduler=pbt", *settings)
    tune_run(config, str(SPACES / "population.yaml"))
    first, second, *next_two = TrialTable(RunFolder(str(folder))).trials
    assert first.epochs[0]["retrieval_loss"] != second.epochs[0]["retrieval_loss"]
    assert [trial.parent for trial in next_two] == [0, 0]
    assert [trial.settings for trial in next_two] == [first.settings] * 2
    one, other = ([without(e, *TIMES) for e in trial.epochs] for trial in next_two)
    assert one == other
    assert [epoch["epoch"] for epoch in one] == [1, 2]
    if workers == 1:
        trained = json.loads((folder / "train" / "report.json").read_text())["history"]
        assert [without(epoch, "best_epoch") for epoch in one] == [
            without(epoch, *TIMES) for epoch in trained
        ]


def test_a_population_says_the_schedule_of_its_winner(
    trained_run: TrainedRun, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four members; after each epoch the worst goes on from the best."""
    space = ["--space", str(SPACES / "population.yaml")]
    settings = ["tune.scheduler=pbt", "tune.trials=4", "train.epochs=3", "tune.perturb_every=1"]
    command = ["tune", "--config", trained_run.config_path, *space, *trained_run.settings]
    assert main([*command, f"run={folder}", *settings, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "12: 4 members, 3 stretches each" in plan
    assert "1 CPU, at most 1 epoch" in plan
    assert "1 epochs" not in plan
    assert main([*command, f"run={folder}", *settings]) == 0
    trials = TrialTable(RunFolder(str(folder))).trials
    assert [len(trial.epochs) for trial in trials] == [1] * 4 + [2] * 4 + [3] * 4
    assert any(trial.parent != trial.number - 4 for trial in trials[4:])
    report = json.loads((folder / "tune" / "report.json").read_text())
    winner = trials[report["winner"]]
    best, page = ((folder / "tune" / name).read_text() for name in ("best.yaml", "sweep.html"))
    assert load_config(str(folder / "tune" / "best.yaml")).train.lr == winner.settings["train.lr"]
    told = "# The settings are those of the winner's last epochs" in best
    assert told == ("schedule" in report)
    for phase in report.get("schedule", []):
        epochs = f"epochs {phase['first_epoch']} to {phase['last_epoch']}: "
        assert f"#   {epochs}" in best
        assert epochs in page
    assert "goes on from" in page
    assert [p.name for p in (folder / "tune" / "trials").iterdir() if p.is_dir()] == [
        f"{winner.number:04d}"
    ]
    assert 0 < report["test"]["test_ndcg@10"] < 1
