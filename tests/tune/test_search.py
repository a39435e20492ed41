"""Which config is tried next."""

import math
from pathlib import Path

import pytest

from recsys.config.run import RunConfig, load_config
from recsys.tune.search import num_trials, suggest
from recsys.tune.space import Space, fit_space, make_space, with_settings
from recsys.tune.trials import Trial
from tests.inputs import write_input

TREE = {
    "train.lr": {"loguniform": [1e-4, 1e-1]},
    "model.content.temporal": {"choice": ["lstm", "mean"]},
    "model.content.frame_dim": {
        "choice": [16, 32],
        "when": {"model.content.temporal": "lstm"},
    },
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)), ["tune.trials=24"])


@pytest.fixture
def space(config: RunConfig) -> Space:
    return fit_space(make_space(TREE), config)


def swept(space: Space, config: RunConfig, count: int) -> list[Trial]:
    """Trials whose score is the nearer to 0 the nearer the learning rate is to 0.01."""
    trials: list[Trial] = []
    for number in range(count):
        settings = suggest(space, config, trials, number)
        score = -abs(math.log10(float(str(settings["train.lr"]))) + 2)
        epochs = [{"epoch": 1, "score": score, "valid_hr@10": score / 2}]
        trials.append(Trial(number, settings, "finished", epochs))
    return trials


def test_the_first_trial_is_the_config_as_it_is(config: RunConfig, space: Space) -> None:
    first = suggest(space, config, [], 0)
    assert first == {
        "train.lr": config.train.lr,
        "model.content.temporal": "lstm",
        "model.content.frame_dim": 64,  # outside the space
    }


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_what_is_drawn_fits_the_space(config: RunConfig, space: Space, search: str) -> None:
    trials = swept(space, with_settings(config, {"tune.search": search}), 24)
    for trial in trials[1:]:
        with_settings(config, trial.settings)
        assert 1e-4 <= float(str(trial.settings["train.lr"])) <= 1e-1
        is_lstm = trial.settings["model.content.temporal"] == "lstm"
        assert ("model.content.frame_dim" in trial.settings) == is_lstm
    assert len({str(trial.settings) for trial in trials}) == 24


def test_the_search_learns_where_the_good_ones_are(config: RunConfig, space: Space) -> None:
    learnt = swept(space, config, 24)
    scores = [trial.epochs[0]["score"] for trial in learnt[12:]]
    random = swept(space, with_settings(config, {"tune.search": "random"}), 24)
    blind = [trial.epochs[0]["score"] for trial in random[12:]]
    assert sum(scores) / 12 > sum(blind) / 12 + 0.2


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_what_is_tried_next_follows_from_the_trials_so_far(
    config: RunConfig, space: Space, search: str
) -> None:
    """So that a sweep that was killed ends as one that was not."""
    changed = with_settings(config, {"tune.search": search})
    trials = swept(space, changed, 20)
    assert suggest(space, changed, trials[:13], 13) == trials[13].settings
    other = with_settings(changed, {"tune.seed": 1})
    assert suggest(space, other, trials[:13], 13) != trials[13].settings


def test_trials_that_failed_or_are_running_teach_nothing(config: RunConfig, space: Space) -> None:
    trials = swept(space, config, 12)
    others = [
        Trial(12, dict(trials[3].settings), "failed", trials[3].epochs, "diverged"),
        Trial(13, dict(trials[5].settings), "running", trials[5].epochs),
    ]
    assert suggest(space, config, [*trials, *others], 14) == suggest(space, config, trials, 14)


def test_several_figures_are_searched_for_their_trades(config: RunConfig, space: Space) -> None:
    settings = {
        "tune.objective": {"score": 1, "valid_hr@10": -1},
        "tune.pareto": True,
        "tune.scheduler": "none",
    }
    assert len(swept(space, with_settings(config, settings), 24)) == 24


def test_a_grid_is_walked_in_order_and_ends(config: RunConfig) -> None:
    space = fit_space(make_space({"train.seed": {"randint": [5, 8]}}), config)
    changed = with_settings(config, {"tune.search": "grid", "tune.trials": None})
    assert num_trials(space, changed) == 3
    assert [suggest(space, changed, [], n) for n in range(3)] == [
        {"train.seed": 5},
        {"train.seed": 6},
        {"train.seed": 7},
    ]
    assert num_trials(space, with_settings(changed, {"tune.trials": 2})) == 2
    more = fit_space(make_space({"train.seed": {"randint": [5, 17]}}), config)
    assert num_trials(more, changed) == 12, "more than the trials of other searches"
    assert num_trials(more, with_settings(changed, {"tune.trials": 20})) == 12
