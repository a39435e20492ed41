"""What a sweep reports, by a table of trials that were not run."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import recsys.tune.stage
from recsys.config.run import RunConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.tune.population import go_on
from recsys.tune.space import Space, fit_space, make_space
from recsys.tune.trials import Trial, TrialTable, open_table
from tests.inputs import write_input

EARLY = "all members of the population failed in one stretch, after 4 of 6 trials"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Two members, three stretches each of an epoch; nothing is read of the test events."""
    monkeypatch.setattr(recsys.tune.stage, "_read_test", lambda *_: {"test_ndcg@10": 0.25})
    settings = ["tune.trials=2", "tune.scheduler=pbt", "train.epochs=3"]
    return load_config(str(write_input(tmp_path)), settings)


@pytest.fixture
def space(config: RunConfig) -> Space:
    return fit_space(make_space({"train.lr": {"loguniform": [1e-4, 1e-1]}}), config)


def with_epoch(trial: Trial, score: float) -> Trial:
    """The trial, done with one more epoch."""
    figures = {"epoch": len(trial.epochs) + 1, "score": score}
    return replace(trial.with_epoch(figures), state="finished")


def four_trials() -> list[Trial]:
    """Trial 2 went on as trial 0, and got worse; trial 3 took over trial 0's weights, and won."""
    first = with_epoch(Trial(0, {"train.lr": 0.002}), 1.0)
    second = with_epoch(Trial(1, {"train.lr": 0.05}), 0.5)
    third = with_epoch(go_on(first, 2, {"train.lr": 0.002}), 0.25)
    return [first, second, third, with_epoch(go_on(first, 3, {"train.lr": 0.00123456}), 2.0)]


def opened(config: RunConfig, space: Space, trials: list[Trial]) -> TrialTable:
    table = open_table(config, space)
    for trial in trials:
        table.put(trial)
    return table


def test_a_winner_whose_settings_changed_is_told_with_its_schedule(
    config: RunConfig, space: Space
) -> None:
    table = opened(config, space, four_trials())
    report = recsys.tune.stage._report(config, space, table)
    assert (report["winner"], report["score"]) == (3, 2.0)
    folder = RunFolder(config.run)
    written = json.loads(Path(folder.report_of("tune")).read_text())
    assert written["schedule"] == report["schedule"]
    assert report["schedule"] == [
        {"first_epoch": 1, "last_epoch": 1, "settings": {"train.lr": 0.002}},
        {"first_epoch": 2, "last_epoch": 2, "settings": {"train.lr": 0.00123456}},
    ]
    note, first, second, *_ = Path(folder.best_config).read_text().splitlines()
    assert note.startswith("# The settings are those of the winner's last epochs")
    assert first == "#   epochs 1 to 1: train.lr=0.002"
    assert second == "#   epochs 2 to 2: train.lr=0.001235"
    assert load_config(folder.best_config).train.lr == 0.00123456
    assert "train.lr=0.002; epochs 2 to 2" in Path(folder.sweep_page).read_text()


def test_a_row_has_the_figures_of_its_own_epochs(config: RunConfig, space: Space) -> None:
    """Trial 2 has its parent's better epoch behind it, which is its parent's alone."""
    recsys.tune.stage._report(config, space, opened(config, space, four_trials()))
    rows = pq.read_table(RunFolder(config.run).trials_table).to_pylist()
    assert [row["objective"] for row in rows] == [1.0, 0.5, 0.25, 2.0]
    assert [row["score"] for row in rows] == [1.0, 0.5, 0.25, 2.0]
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]
    assert [row["epochs"] for row in rows] == [1, 1, 2, 2]
    assert [row["parent"] for row in rows] == [None, None, 0, 0]


def test_settings_that_never_changed_are_no_schedule(config: RunConfig, space: Space) -> None:
    trials = four_trials()
    trials[2] = with_epoch(go_on(trials[0], 2, trials[0].settings), 3.0)
    report = recsys.tune.stage._report(config, space, opened(config, space, trials))
    assert report["winner"] == 2
    assert "schedule" not in report
    assert not Path(RunFolder(config.run).best_config).read_text().startswith("#")


def test_a_population_that_died_out_is_said_once(
    config: RunConfig, space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    trials = four_trials()
    dead = [replace(trial, state="failed", error="diverged") for trial in trials[2:]]
    table = opened(config, space, [*trials[:2], *dead])
    with caplog.at_level(logging.WARNING, "recsys"):
        report = recsys.tune.stage._report(config, space, table)
    assert [line for line in caplog.messages if "failed in one" in line] == [
        f"tune: {EARLY}; the sweep ends with the best of these"
    ]
    assert (report["ended early"], report["winner"], report["failed"]) == (EARLY, 0, 2)
    caplog.clear()
    others = Path(config.run).parent / "others"
    whole = config.model_copy(update={"run": str(others)})
    assert "ended early" not in recsys.tune.stage._report(
        whole, space, opened(whole, space, trials)
    )
    assert caplog.messages == []
