"""The table of trials, and what follows from it."""

from pathlib import Path

import pytest

from recsys.config.run import RunConfig, TuneConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.errors import InputError
from recsys.tune.space import Space, fit_space, make_space, with_settings
from recsys.tune.trials import (
    Trial,
    TrialTable,
    front,
    held_fixed,
    objective,
    open_table,
    value_of,
    winner,
)
from tests.inputs import write_input

SPACE = {"train.lr": {"uniform": [0.1, 0.5]}}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


@pytest.fixture
def space(config: RunConfig) -> Space:
    return fit_space(make_space(SPACE), config)


def trial(number: int, *scores: float, **figures: float) -> Trial:
    epochs = [{"epoch": at + 1, "score": score, **figures} for at, score in enumerate(scores)]
    return Trial(number, {}, "finished", epochs)


def test_a_trial_is_worth_what_its_best_epoch_is() -> None:
    """The epoch is chosen by the score, whatever the objective: training keeps that model."""
    one = Trial(0, {}, "finished", [])
    one = one.with_epoch({"epoch": 2, "score": -1.0, "ndcg": 0.25, "gini": 0.5})
    one = one.with_epoch({"epoch": 1, "score": -2.0, "ndcg": 0.75, "gini": 0.5})
    config = TuneConfig(objective={"ndcg": 2, "gini": -1})
    assert [epoch["epoch"] for epoch in one.epochs] == [1, 2]
    assert value_of(one, config) == 0.0  # 2 · 0.25 - 0.5
    again = one.with_epoch({"epoch": 2, "score": -3.0, "ndcg": 0.25, "gini": 0.5})
    assert value_of(again, config) == 1.0  # 2 · 0.75 - 0.5


def test_an_objective_of_a_figure_that_is_not_measured_is_refused() -> None:
    figures = {"epoch": 1, "score": 1.0, "valid_hr@10": 0.5}
    with pytest.raises(InputError, match="hr=1: no such figure; allowed are score, va"):
        objective(figures, TuneConfig(objective={"hr": 1}))


def test_the_winner_is_the_first_of_the_best_that_did_not_fail() -> None:
    failed = Trial(2, {}, "failed", [{"epoch": 1, "score": 9.0}], "diverged")
    trials = [trial(0, 1.0, 0.5), trial(1, 1.0), failed, Trial(3, {})]
    best = winner(trials, TuneConfig())
    assert best is not None
    assert best.number == 0
    assert winner([failed, Trial(3, {})], TuneConfig()) is None


def test_the_front_is_what_no_other_trial_beats() -> None:
    """(0.5, 0.5) is beaten by (0.5, 0.25) and (0.75, 0.5); a large Gini is bad."""
    points = [(0.5, 0.5), (0.5, 0.25), (0.75, 0.5), (0.25, 0.125), (0.25, 0.25)]
    trials = [trial(at, 0.0, ndcg=ndcg, gini=gini) for at, (ndcg, gini) in enumerate(points)]
    config = TuneConfig(objective={"ndcg": 1, "gini": -1}, pareto=True, scheduler="none")
    assert [one.number for one in front(trials, config)] == [1, 2, 3]


def test_trials_outlive_the_process(config: RunConfig, space: Space) -> None:
    table = open_table(config, space)
    one = trial(0, 1.0, 2.0)
    table.put(one)
    table.put(Trial(11, {"train.lr": 0.25}))
    read = TrialTable(RunFolder(config.run))
    assert read.trials == [one, Trial(11, {"train.lr": 0.25})]
    assert read.done == [one]
    assert open_table(config, space, resume=True).trials == read.trials


def test_more_trials_may_be_asked_for_later_and_more_at_a_time(
    config: RunConfig, space: Space
) -> None:
    open_table(config, space).put(trial(0, 1.0))
    changed = {"tune.trials": 99, "tune.concurrent": 2, "serve.port": 0}
    assert len(open_table(with_settings(config, changed), space).trials) == 1


def test_a_sweep_goes_on_with_what_changes_no_trial(
    config: RunConfig, space: Space, tmp_path: Path
) -> None:
    """In a run folder that was moved, and with more tries where processes died too often."""
    open_table(config, space).put(trial(0, 1.0))
    Path(config.run).rename(tmp_path / "moved")
    moved = {
        "run": str(tmp_path / "moved"),
        "train.max_failures": 9,
        "train.device": "cpu",
        "train.refit": False,
        "decode.workers": 1,
        "evaluate.k": [5],
        "refresh.allowed_loss": 0.5,
    }
    assert len(open_table(with_settings(config, moved), space, resume=True).trials) == 1


@pytest.mark.parametrize("name", ["mask_history", "users", "seed", "tradeoff_users"])
def test_what_trials_are_measured_by_stays_as_it_was(
    config: RunConfig, space: Space, name: str
) -> None:
    open_table(config, space)
    changed = with_settings(config, {f"evaluate.{name}": name != "mask_history"})
    with pytest.raises(InputError, match=f"holds a sweep with another evaluate.{name} "):
        open_table(changed, space)


def test_stretches_say_nothing_of_a_sweep_without_a_population(
    config: RunConfig, space: Space
) -> None:
    population = with_settings(config, {"tune.scheduler": "pbt", "tune.perturb_every": 2})
    assert "tune.perturb_every" in held_fixed(population, space)
    assert "tune.perturb_every" not in held_fixed(config, space)
    message = "^tune.perturb_every=2 is for tune.scheduler=pbt, and it is asha; leave tune.pert"
    with pytest.raises(InputError, match=message.replace("^", "")):
        with_settings(config, {"tune.perturb_every": 2})


def test_another_sweep_in_the_run_folder_is_refused_or_removed(
    config: RunConfig, space: Space
) -> None:
    open_table(config, space).put(trial(0, 1.0))
    changed = with_settings(config, {"train.epochs": 7})
    with pytest.raises(InputError, match=r"another train.epochs \(1 then, 7 now\); give what it"):
        open_table(changed, space, resume=True)
    wider = fit_space(make_space({"train.lr": {"uniform": [0.1, 0.9]}}), config)
    with pytest.raises(InputError, match=r"holds a sweep with another --space train.lr; give"):
        open_table(config, wider)
    assert open_table(changed, space, anew=True).trials == []
    assert TrialTable(RunFolder(config.run)).trials == []


def test_there_must_be_something_to_resume(config: RunConfig, space: Space) -> None:
    with pytest.raises(InputError, match="--resume: .*tune holds no sweep; leave --resume out"):
        open_table(config, space, resume=True)
