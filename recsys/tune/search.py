"""Which config a sweep tries next: it follows from the trials so far and the number of the next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys.config.run import RunConfig, TuneConfig
from recsys.tune.population import (
    TRIALS,
    is_extinct,
    num_members,
    num_stretches,
    successor,
)
from recsys.tune.space import Settings, Space, SpaceEntry, choose, grid, value_at
from recsys.tune.trials import Trial, objective, parts

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as OptunaTrial

MOST_AT_RANDOM = 10
"""Trials at random before the search learns from them; of a short sweep a quarter, at least 4."""


def num_trials(space: Space, config: RunConfig) -> int:
    """How many trials the sweep has."""
    return num_members(space, config) * num_stretches(config)


def is_over(space: Space, config: RunConfig, trials: Sequence[Trial]) -> bool:
    """Whether no other trial is to begin."""
    if len(trials) >= num_trials(space, config):
        return True
    return config.tune.is_population and is_extinct(space, config, trials)


def early_end(space: Space, config: RunConfig, trials: Sequence[Trial]) -> str | None:
    """Why a sweep that is over has fewer trials than it was to have; None where it has all."""
    done, planned = len(trials), num_trials(space, config)
    if done >= planned or not is_over(space, config, trials):
        return None
    return f"all members of the population failed in one stretch, after {done} of {planned} trials"


def next_trial(space: Space, config: RunConfig, trials: Sequence[Trial]) -> Trial | None:
    """The trial behind those so far; None while it hangs on one that is running."""
    number = len(trials)
    if number < num_members(space, config):
        return Trial(number, suggest(space, config, trials, number))
    return successor(space, config, trials, number)


def suggest(
    space: Space, config: RunConfig, trials: Sequence[Trial], number: int
) -> dict[str, object]:
    """The settings of a trial.

    Args:
        space: What may be tried.
        config: The run; what it has itself is the first trial, but in a grid.
        trials: Those so far; a search learns from those that are done.
        number: Of the trial, from 0.
    """
    if config.tune.search == "grid":
        return grid(space, config)[number]
    if number == 0:
        return choose(space, config, lambda entry: value_at(config, entry.setting))
    study = make_study(space, trials, config.tune, number)
    asked = study.ask()
    return choose(space, config, lambda entry: _suggested(asked, entry))


def make_study(space: Space, trials: Sequence[Trial], tune: TuneConfig, number: int) -> Study:
    """Optuna's study of the trials that are done, as the search and the report read it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = len(tune.objective) if tune.pareto else 1
    study = optuna.create_study(sampler=_sampler(tune, number), directions=["maximize"] * count)
    distributions = {name: distribution(entry) for name, entry in space.items()}
    for trial in trials:
        params = _params(space, trial.settings, distributions)
        if trial.is_done and trial.state != "failed" and trial.best and params is not None:
            values = parts(trial.best, tune) if tune.pareto else [objective(trial.best, tune)]
            told = {name: distributions[name] for name in params}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=told, values=values)
            )
    return study


def importance(space: Space, trials: Sequence[Trial], tune: TuneConfig) -> dict[str, float]:
    """How much each setting accounts for, from 0 to 1, the largest first.

    Of PED-ANOVA (S. Watanabe, A. Bansal and F. Hutter, IJCAI 2023), which compares the best tenth
    of the trials with all. Empty where there are too few to say.
    """
    import optuna

    study = make_study(space, trials, tune.model_copy(update={"pareto": False}), 0)
    if len(study.trials) < MOST_AT_RANDOM:
        return {}
    with warnings.catch_warnings():
        # Optuna 4 calls it experimental; its own default there is fANOVA, which needs scikit-learn.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        ped_anova = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=ped_anova))


def _sampler(tune: TuneConfig, number: int) -> BaseSampler:
    import optuna

    seed = tune.seed * 1_000_003 + number  # each trial its own, whoever draws it
    if tune.search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    at_random = min(MOST_AT_RANDOM, max(4, (tune.trials or TRIALS) // 4))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random)


def distribution(entry: SpaceEntry) -> BaseDistribution:
    """Optuna's distribution of an entry; a choice is the place of a value in its list."""
    from optuna import distributions

    if entry.kind == "choice":
        return distributions.CategoricalDistribution(range(len(entry.arguments)))
    low, high = entry.bounds
    if entry.kind == "randint":
        return distributions.IntDistribution(int(low), int(high))
    return distributions.FloatDistribution(low, high, log=entry.kind == "loguniform")


def _suggested(asked: OptunaTrial, entry: SpaceEntry) -> object:
    """A value of an entry, as the sampler draws it."""
    if entry.kind == "choice":
        return entry.arguments[
            asked.suggest_categorical(entry.setting, range(len(entry.arguments)))
        ]
    low, high = entry.bounds
    if entry.kind == "randint":
        return asked.suggest_int(entry.setting, int(low), int(high))
    return asked.suggest_float(entry.setting, low, high, log=entry.kind == "loguniform")


def _params(
    space: Space, settings: Settings, distributions: Mapping[str, BaseDistribution]
) -> dict[str, Any] | None:
    """Settings as Optuna has them; None where one lies outside the space, as the config's may."""
    params: dict[str, Any] = {}
    for name, value in settings.items():
        entry = space[name]
        if entry.kind == "choice":
            if value not in entry.arguments:
                return None
            params[name] = list(entry.arguments).index(value)
        elif isinstance(value, int | float) and entry.bounds[0] <= value <= entry.bounds[1]:
            params[name] = value
        else:
            return None
    return params
