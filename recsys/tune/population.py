"""Population-based training: stretches of training, and from whose weights each of them goes on.

All members of a population train `tune.perturb_every` epochs at a time. Then each of the worst
quarter takes the weights, optimizers and settings of one of the best quarter, and its settings are
changed a little (M. Jaderberg et al., Population Based Training of Neural Networks, 2017, where
members wait for each other as in appendix A.1). A stretch of a member is a trial of its own, whose
number is stretch · members + member: so it follows from the trials so far, as in every search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.config.run import RunConfig, TuneConfig
from recsys.errors import InputError
from recsys.tune.space import Settings, Space, SpaceEntry, choose, grid
from recsys.tune.trials import Trial, objective

TRIALS = 8
"""Configs that are tried where `tune.trials` does not say how many, and there is no grid."""
QUANTILE = 0.25
"""Share of the members that are the worst, and that are the best."""
PERTURBATION = 0.2
"""A changed number is so much more or less than it was."""
RESAMPLE_PROBABILITY = 0.25
"""How often a changed setting is drawn anew from its whole range."""
CHANGEABLE = (
    "train.lr",
    "train.table_lr",
    "train.weight_decay",
    "train.clip_norm",
    "train.batch_timelines",
    "train.negatives",
    "train.step_clips",
    "train.retrieval_weight",
    "train.task_weights",
    "model.dropout",
    "model.id_dropout",
)
"""Settings with which a checkpoint of other values goes on."""


def num_members(space: Space, config: RunConfig) -> int:
    """How many configs the sweep begins with: all trials, but in a population."""
    trials = config.tune.trials
    if config.tune.search != "grid":
        return trials or TRIALS
    combinations = len(grid(space, config))
    return min(trials or combinations, combinations)


def grid_cut(space: Space, config: RunConfig) -> str | None:
    """How much of the grid is tried, where that is not all of it."""
    if config.tune.search != "grid":
        return None
    tried, combinations = num_members(space, config), len(grid(space, config))
    if tried == combinations:
        return None
    return f"{tried} of {combinations} combinations are tried; without tune.trials all are"


def num_stretches(config: RunConfig) -> int:
    """How many trials each of them is: one after the other, in a population."""
    if not config.tune.is_population:
        return 1
    return -(-config.train.epochs // config.tune.perturb_every)


def last_epoch(config: RunConfig, stretch_number: int) -> int | None:
    """The epoch that a stretch ends with; None where training ends by itself.

    Args:
        config: The run.
        stretch_number: Which of its member's stretches it is, from 0.
    """
    if not config.tune.is_population:
        return None
    return min((stretch_number + 1) * config.tune.perturb_every, config.train.epochs)


def require_population(space: Space, config: RunConfig) -> None:
    """Refuses what a population cannot be trained with.

    Raises:
        InputError: A setting that cannot change in the middle of training, one member, or one
            stretch.
    """
    if not config.tune.is_population:
        return
    for name in space:
        if not f"{name}.".startswith(tuple(f"{allowed}." for allowed in CHANGEABLE)):
            raise InputError(
                f"{name}: tune.scheduler=pbt changes settings in the middle of training, and this "
                f"one cannot change there; allowed are {', '.join(CHANGEABLE)}"
            )
    members, stretches = num_members(space, config), num_stretches(config)
    if members < 2:
        raise InputError(f"tune.trials={members}: a population (tune.scheduler=pbt) has 2 or more")
    if stretches < 2:
        raise InputError(
            f"tune.perturb_every={config.tune.perturb_every}: with train.epochs="
            f"{config.train.epochs} nothing would change before the end (tune.scheduler=pbt)"
        )


def is_extinct(space: Space, config: RunConfig, trials: Sequence[Trial]) -> bool:
    """Whether all members failed in the same stretch, so that nothing is left to go on from."""
    members = num_members(space, config)
    whole = len(trials) - len(trials) % members
    newest = trials[max(0, whole - members) : whole]
    return bool(newest) and all(trial.state == "failed" for trial in newest)


def successor(
    space: Space, config: RunConfig, trials: Sequence[Trial], number: int
) -> Trial | None:
    """A stretch that is not its member's first; None while one of the stretch before is running.

    Args:
        space: What may be tried.
        config: The run.
        trials: Those so far, by number.
        number: Of the trial; not all trials of the stretch before failed.
    """
    members = num_members(space, config)
    member, start = number % members, (number // members - 1) * members
    before = trials[start : start + members]
    if not all(trial.is_done for trial in before):
        return None
    ranked = sorted(before, key=lambda trial: -value_now(trial, config.tune))
    count = math.ceil(QUANTILE * members)
    best = [trial for trial in ranked[:count] if trial.state != "failed"]
    own, rng = before[member], np.random.default_rng([config.tune.seed, number])
    if own.state != "failed" and own not in ranked[members - count :]:
        return go_on(own, number, own.settings)
    parent = best[rng.integers(len(best))]
    return go_on(parent, number, perturb(space, config, parent.settings, rng))


def go_on(parent: Trial, number: int, settings: Settings) -> Trial:
    """A trial that begins with another's weights, and with the epochs behind them."""
    epochs = parent.epochs
    return Trial(
        number, dict(settings), epochs=epochs, parent=parent.number, num_inherited=len(epochs)
    )


def value_now(trial: Trial, config: TuneConfig) -> float:
    """What a trial's weights are worth as they are by now, whatever they were before."""
    failed = trial.state == "failed" or not trial.epochs
    return float("-inf") if failed else objective(trial.epochs[-1], config)


def perturb(
    space: Space, config: RunConfig, settings: Settings, rng: np.random.Generator
) -> dict[str, object]:
    """The settings, each of them changed, unless its entry has one value alone."""

    def pick(entry: SpaceEntry) -> object:
        return perturbed(entry, settings.get(entry.setting), rng)

    return choose(space, config, pick)


def perturbed(entry: SpaceEntry, value: object, rng: np.random.Generator) -> object:
    """Another value of an entry: near the one that it has, or now and then any.

    Args:
        entry: Whose bounds are kept.
        value: What it is; None, or one outside the entry, gets any.
        rng: Decides.
    """
    anew, up = rng.random() < RESAMPLE_PROBABILITY, rng.random() < 0.5
    near = [other for other in _neighbours(entry, value) if other != value]
    if near and not anew:
        return near[-1 if up else 0]  # at an end of the entry there is one direction alone
    others = [other for other in entry.values or () if other != value]
    return others[rng.integers(len(others))] if others else entry.draw(rng)


def _neighbours(entry: SpaceEntry, value: object) -> Sequence[object]:
    """The values a step below and above, as far as the entry goes; none of one outside it."""
    if entry.kind == "choice":
        values = list(entry.arguments)
        at = values.index(value) if value in values else None
        return [] if at is None else values[max(at - 1, 0) : at + 2]
    low, high = entry.bounds
    if not isinstance(value, int | float) or not low <= value <= high:
        return []
    step = PERTURBATION * abs(value)
    if entry.kind == "randint":
        whole = max(1, round(step))
        return [int(max(value - whole, low)), int(min(value + whole, high))]
    return [float(max(value - step, low)), float(min(value + step, high))]


def first_needed(space: Space, config: RunConfig, trials: Sequence[Trial]) -> int:
    """The lowest number of a trial whose weights a coming trial may start from.

    Args:
        space: What is tried.
        config: The run.
        trials: Those so far, by number; one at least.

    Returns:
        The number of trials where none may.
    """
    if not config.tune.is_population or is_extinct(space, config, trials):
        return len(trials)
    members = num_members(space, config)
    stretch = trials[-1].number // members
    first = stretch * members
    if len(trials) < first + members or not all(trial.is_done for trial in trials[first:]):
        return max(0, first - members)
    return len(trials) if stretch == num_stretches(config) - 1 else first


def last_with_same_settings(trials: Sequence[Trial], trial: Trial) -> Trial:
    """The last stretch of a trial's weights that was trained with its settings too."""
    for other in trials:
        if other.parent == trial.number and other.settings == trial.settings:
            return last_with_same_settings(trials, other)
    return trial


@dataclass(frozen=True)
class Phase:
    """Epochs that were trained with the same settings, one after the other."""

    first_epoch: int
    last_epoch: int
    settings: Settings


def schedule(trials: Sequence[Trial], trial: Trial) -> list[Phase]:
    """The settings that a trial's weights were trained with, from the first epoch to the last.

    Args:
        trials: All of them, each at the place of its number.
        trial: Whose weights; the last phase has its own settings.
    """
    before = [] if trial.parent is None else schedule(trials, trials[trial.parent])
    first = trial.num_inherited + 1
    if before and before[-1].settings == trial.settings:
        first = before.pop().first_epoch
    return [*before, Phase(first, len(trial.epochs), trial.settings)]
