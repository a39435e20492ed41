"""Population-based training: who goes on from whose weights, and with what."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recsys.config.run import RunConfig, TuneConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.errors import InputError
from recsys.tune.page import sweep_page
from recsys.tune.population import (
    Phase,
    first_needed,
    go_on,
    last_epoch,
    perturbed,
    require_population,
    schedule,
)
from recsys.tune.search import early_end, is_over, next_trial, num_trials
from recsys.tune.space import Space, SpaceEntry, fit_space, make_space, with_settings
from recsys.tune.trials import Trial, TrialTable, open_table, value_of, winner
from recsys.tune.tuner import make_keeper
from tests.inputs import write_input

TREE = {
    "train.lr": {"loguniform": [1e-4, 1e-1]},
    "model.dropout": {"uniform": [0.0, 0.5]},
}
MEMBERS = 8
PLAIN = {"tune.scheduler": "none", "tune.perturb_every": 1}
"""No population."""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Eight members, three stretches of two, two and one epoch."""
    settings = [f"tune.trials={MEMBERS}", "tune.scheduler=pbt", "tune.perturb_every=2"]
    return load_config(str(write_input(tmp_path)), [*settings, "train.epochs=5"])


@pytest.fixture
def space(config: RunConfig) -> Space:
    return fit_space(make_space(TREE), config)


def begun(space: Space, config: RunConfig) -> list[Trial]:
    """The first stretch, not done yet."""
    trials: list[Trial] = []
    while len(trials) < MEMBERS:
        trial = next_trial(space, config, trials)
        assert trial is not None
        trials.append(trial)
    return trials


def trained(trial: Trial, *scores: float) -> Trial:
    """A stretch that is done, with so many more epochs."""
    start = len(trial.epochs)
    new = [{"epoch": start + at + 1, "score": score} for at, score in enumerate(scores)]
    return replace(trial, state="finished", epochs=[*trial.epochs, *new])


def first_stretch(space: Space, config: RunConfig) -> list[Trial]:
    """A member is the better the larger its number, by what it is at last and not by its best."""
    return [
        trained(trial, float(MEMBERS - trial.number), float(trial.number))
        for trial in begun(space, config)
    ]


def second_stretch(space: Space, config: RunConfig, trials: list[Trial]) -> list[Trial]:
    trials = list(trials)
    for _ in range(MEMBERS):
        trial = next_trial(space, config, trials)
        assert trial is not None
        trials.append(trial)
    return trials[-MEMBERS:]


def test_a_population_begins_as_any_search_does(config: RunConfig, space: Space) -> None:
    plain = with_settings(config, PLAIN)
    assert begun(space, config) == begun(space, plain)
    assert (num_trials(space, config), num_trials(space, plain)) == (24, 8)
    assert [last_epoch(config, stretch) for stretch in (0, 1, 2)] == [2, 4, 5]
    assert last_epoch(plain, 0) is None


def test_the_worst_quarter_goes_on_from_the_best_with_other_settings(
    config: RunConfig, space: Space
) -> None:
    """Of eight the worst two are members 0 and 1, the best 6 and 7; the others go on unchanged."""
    first = first_stretch(space, config)
    second = second_stretch(space, config, first)
    for trial, own in zip(second[2:], first[2:], strict=True):
        assert (trial.parent, trial.settings) == (own.number, own.settings)
    for trial in second[:2]:
        assert trial.parent in (6, 7)
        parent = first[trial.parent]
        assert all(trial.settings[name] != parent.settings[name] for name in TREE)
        with_settings(config, trial.settings)
    assert all(trial.epochs == first[trial.parent or 0].epochs for trial in second)
    assert all(trial.num_inherited == 2 and trial.best is None for trial in second)
    assert [trial.number for trial in second] == list(range(8, 16))
    assert second == second_stretch(space, config, first), "as after a stop"
    other = with_settings(config, {"tune.seed": 1})
    assert second != second_stretch(space, other, first)


def test_both_of_the_best_are_taken_over(config: RunConfig, space: Space) -> None:
    first = first_stretch(space, config)
    seeds = [with_settings(config, {"tune.seed": seed}) for seed in range(8)]
    assert {second_stretch(space, of, first)[0].parent for of in seeds} == {6, 7}


def test_a_stretch_waits_for_all_of_the_one_before(config: RunConfig, space: Space) -> None:
    first = first_stretch(space, config)
    running = [*first[:5], replace(first[5], state="running"), *first[6:]]
    assert next_trial(space, config, running) is None
    assert next_trial(space, config, first) is not None


def test_one_that_failed_is_replaced(config: RunConfig, space: Space) -> None:
    """The best of all diverged after its last figures: it is the worst, and nobody's parent."""
    first = first_stretch(space, config)
    first[7] = replace(first[7], state="failed", error="diverged")
    second = second_stretch(space, config, first)
    assert second[7].parent in (5, 6)
    assert second[0].parent in (5, 6)
    assert second[1].parent == 1, "two are the worst: 7 and 0"


def test_more_that_failed_than_a_quarter_are_all_replaced(config: RunConfig, space: Space) -> None:
    first = [replace(trial, state="failed") for trial in first_stretch(space, config)]
    first[3] = replace(first[3], state="finished")
    assert not is_over(space, config, first)
    second = second_stretch(space, config, first)
    assert [trial.parent for trial in second] == [3] * MEMBERS
    assert second[3].settings == first[3].settings, "it is no worst one"


def test_a_population_that_died_out_ends(config: RunConfig, space: Space) -> None:
    first = first_stretch(space, config)
    assert not is_over(space, config, [])
    assert is_over(space, config, [replace(trial, state="failed") for trial in first])


@pytest.mark.parametrize(
    ("kind", "arguments", "value", "allowed"),
    [
        ("uniform", [0.0, 0.5], 0.25, {0.2, 0.3}),
        ("uniform", [0.0, 0.5], 0.45, {0.36, 0.5}),
        ("uniform", [0.0, 0.5], 0.5, {0.4}),
        ("loguniform", [0.01, 1.0], 0.01, {0.012}),
        ("randint", [1, 201], 100, {80, 120}),
        ("randint", [1, 4], 2, {1, 3}),
        ("randint", [1, 4], 3, {2}),
        ("randint", [1, 3], 2, {1}),
        ("choice", [8, 16, 32], 16, {8, 32}),
        ("choice", [8, 16, 32], 8, {16}),
        ("choice", [8, 16, 32], 32, {16}),
    ],
)
def test_a_setting_is_a_fifth_more_or_less_or_now_and_then_any(
    kind: str, arguments: list[float], value: float, allowed: set[float]
) -> None:
    entry = SpaceEntry("train.lr", kind, arguments, {})
    drawn = [perturbed(entry, value, np.random.default_rng(seed)) for seed in range(400)]
    numbers = [float(str(one)) for one in drawn]
    near = [one for one in numbers if any(one == pytest.approx(other) for other in allowed)]
    assert all(any(one == pytest.approx(other) for one in near) for other in allowed)
    assert len(near) >= 0.65 * len(numbers)
    assert value not in numbers
    assert all(type(one) is type(value) for one in drawn)
    tried = arguments if kind == "choice" else entry.bounds
    assert min(tried) <= min(numbers) <= max(numbers) <= max(tried)


@pytest.mark.parametrize(
    ("kind", "arguments", "value"),
    [
        ("choice", [8, 16], 128),
        ("randint", [8, 17], 128),
        ("uniform", [0.1, 0.5], 0.0),
        ("uniform", [0.0, 0.5], 0.0),
        ("loguniform", [0.1, 0.5], 9.0),
        ("loguniform", [0.1, 0.5], None),
    ],
)
def test_a_value_without_one_near_it_is_drawn_anew(
    kind: str, arguments: list[float], value: float | None
) -> None:
    """It lies outside the space, or a fifth of it is nothing."""
    entry = SpaceEntry("model.dropout", kind, arguments, {})
    drawn = [perturbed(entry, value, np.random.default_rng(seed)) for seed in range(50)]
    low, high = (min(arguments), max(arguments)) if kind == "choice" else entry.bounds
    assert all(low <= float(str(one)) <= high for one in drawn)
    assert value not in drawn
    assert len(set(drawn)) == (2 if kind == "choice" else 9 if kind == "randint" else 50)


def test_an_entry_of_one_value_keeps_it() -> None:
    for kind, arguments in (("choice", [8]), ("randint", [8, 9])):
        entry = SpaceEntry("train.batch_timelines", kind, arguments, {})
        assert {perturbed(entry, 8, np.random.default_rng(seed)) for seed in range(20)} == {8}


@pytest.mark.parametrize(
    ("tree", "settings", "message"),
    [
        ({"model.dim": {"choice": [8, 16]}}, {}, "^model.dim: .* cannot change there; allowed are"),
        ({"train.epochs": {"randint": [2, 9]}}, {}, "^train.epochs: .* cannot change there"),
        ({"train.lr_": {"uniform": [0, 1]}}, {}, "^train.lr_: "),
        (TREE, {"tune.trials": 1}, "^tune.trials=1: a population .* has 2 or more"),
        (TREE, {"tune.perturb_every": 5}, "^tune.perturb_every=5: with train.epochs=5 nothing"),
    ],
)
def test_what_no_population_can_be_trained_with_is_refused(
    config: RunConfig, tree: dict[str, object], settings: dict[str, object], message: str
) -> None:
    changed = with_settings(config, settings)
    with pytest.raises(InputError, match=message):
        require_population(make_space(tree), changed)
    require_population(make_space(tree), with_settings(changed, PLAIN))


def test_weights_are_kept_as_long_as_another_may_start_from_them(
    config: RunConfig, space: Space
) -> None:
    first = first_stretch(space, config)
    assert first_needed(space, config, first[:3]) == 0
    assert first_needed(space, config, first) == 0
    second = second_stretch(space, config, first)
    assert first_needed(space, config, [*first, *second]) == 0, "the second has just begun"
    done = [trained(trial, 0.0, float(trial.number)) for trial in second]
    assert first_needed(space, config, [*first, *done]) == 8
    third = second_stretch(space, config, [*first, *done])
    assert first_needed(space, config, [*first, *done, *third]) == 8
    ended = [trained(trial, 0.0) for trial in third]
    assert first_needed(space, config, [*first, *done, *ended]) == 24, "nothing starts any more"


def test_checkpoints_are_removed_once_nothing_starts_from_them(
    config: RunConfig, space: Space
) -> None:
    """Member 7 of the first stretch has the best epoch of all: its checkpoint is the winner's."""
    table = TrialTable(RunFolder(config.run))
    first = first_stretch(space, config)
    keeper, kept = make_keeper(config, space, table), Path(config.run, "tune", "trials")

    def run(trial: Trial) -> None:
        table.put(trial)
        folder = Path(table.folder.trained_trial(trial.number))
        folder.mkdir(parents=True)

    def end(trial: Trial) -> None:
        keeper.on_trial_complete(0, [], SimpleNamespace(config={"number": trial.number}))

    def there() -> list[int]:
        return sorted(int(path.name) for path in kept.iterdir() if path.is_dir())

    best = replace(first[7], epochs=[{"epoch": 1, "score": 99.0}, {"epoch": 2, "score": 7.0}])
    for trial in [*first[:7], best]:
        run(replace(trial, state="running"))
    for trial in first:
        end(trial)
    assert there() == list(range(8))
    second = second_stretch(space, config, table.trials)
    for trial in second:
        run(trained(trial, 0.0, 1.0))
        end(trial)
    assert there() == list(range(7, 16))
    for trial in second_stretch(space, config, table.trials):
        run(trial)
        failed = SimpleNamespace(config={"number": trial.number})
        keeper.on_trial_result(0, [], failed, {"error": "diverged"})
        end(trial)
    assert there() == [7], "nothing starts any more"


def test_nothing_is_kept_for_a_population_that_died_out(config: RunConfig, space: Space) -> None:
    """In its second stretch of three."""
    first = first_stretch(space, config)
    dead = [replace(trial, state="failed") for trial in second_stretch(space, config, first)]
    assert first_needed(space, config, [*first, *dead]) == 16
    early = "all members of the population failed in one stretch, after 16 of 24 trials"
    assert early_end(space, config, [*first, *dead]) == early
    assert early_end(space, config, first) is None
    assert early in sweep_page(space, config, [*first, *dead], {})
    assert "ended early" not in sweep_page(space, config, first, {})


def test_a_population_is_gone_on_with_as_large_as_it_was(config: RunConfig, space: Space) -> None:
    open_table(config, space)
    with pytest.raises(InputError, match=r"another tune.trials \(8 then, 9 now\)"):
        open_table(with_settings(config, {"tune.trials": 9}), space)


def test_the_schedule_of_a_winner_is_told_by_its_changes() -> None:
    """Trial 3 went on as trial 1; trial 5 took over trial 3's weights."""
    one = trained(Trial(1, {"train.lr": 0.1}), 0.0, 0.0)
    three = trained(go_on(one, 3, {"train.lr": 0.1}), 0.0, 0.0)
    five = trained(go_on(three, 5, {"train.lr": 0.2}), 0.0)
    trials = [Trial(0, {}), one, Trial(2, {}), three, Trial(4, {}), five]
    unchanged = Phase(1, 4, {"train.lr": 0.1})
    assert schedule(trials, five) == [unchanged, Phase(5, 5, {"train.lr": 0.2})]
    assert schedule(trials, three) == [unchanged]
    assert schedule(trials, one) == [Phase(1, 2, {"train.lr": 0.1})]


def test_a_stretch_is_worth_what_its_own_epochs_are() -> None:
    """Where the last stretch is worse than the one before, that one wins."""
    one = trained(Trial(0, {"train.lr": 0.1}), 1.0, 3.0)
    two = trained(go_on(one, 2, {"train.lr": 0.2}), 2.0, 1.5)
    assert (value_of(one, TuneConfig()), value_of(two, TuneConfig())) == (3.0, 2.0)
    assert two.own_epochs == [{"epoch": 3, "score": 2.0}, {"epoch": 4, "score": 1.5}]
    assert winner([one, two], TuneConfig()) == one
    three = trained(go_on(two, 4, {"train.lr": 0.3}), 4.0)
    assert winner([one, two, three], TuneConfig()) == three
