"""What a sweep could never start with, found before the data stages and before Ray."""

from __future__ import annotations

from recsys.config.run import RunConfig
from recsys.errors import InputError
from recsys.train.validation import figure_names
from recsys.tune.population import num_members, require_population
from recsys.tune.reranking import fitted_model, require_trade, reranked_figure_names
from recsys.tune.space import Space, fit_space, is_reranking, read_space
from recsys.tune.trials import no_such_figure, require_begun, require_same_sweep


def require_sweep(
    config: RunConfig, space_path: str, *, resume: bool = False, anew: bool = False
) -> Space:
    """Reads a space and checks all of a sweep that can be checked without its data.

    Args:
        config: The run; its data stages need not be done.
        space_path: The file of the space.
        resume: Whether there must be a sweep to go on with.
        anew: Whether an earlier sweep is to be removed, so that it may be any.

    Returns:
        The space, as the config's settings hold its values.

    Raises:
        InputError: The space, the objective or another setting is wrong, or the run folder holds
            another sweep, or none where there must be one.
    """
    space = require_settings(config, space_path)
    if is_reranking(space):
        fitted_model(config)  # must be there
    if resume:
        require_begun(config)
    if not anew:
        require_same_sweep(config, space, with_data=False)
    return space


def require_settings(config: RunConfig, space_path: str) -> Space:
    """Reads a space and checks it and the settings of the sweep; the run folder may hold anything.

    Raises:
        InputError: The space or a setting is wrong.
    """
    space = fit_space(read_space(space_path), config, space_path)
    require_population(space, config)
    num_members(space, config)  # a grid of what cannot be listed is refused
    require_objective(space, config)
    if is_reranking(space):
        require_trade(config)
    else:
        require_epochs(space, config, space_path)
    return space


def require_epochs(space: Space, config: RunConfig, source: str) -> None:
    """Refuses trials that would train nothing.

    Raises:
        InputError: The config or the space has 0 epochs.
    """
    entry = space.get("train.epochs")
    if entry is not None and entry.values is not None and 0 in entry.values:
        raise InputError(f"{source}: train.epochs: 0 trains nothing; let it be at least 1")
    if not config.train.epochs:
        raise InputError("train.epochs=0: there is nothing to train; set it to at least 1")


def require_objective(space: Space, config: RunConfig) -> None:
    """Refuses an objective of a figure that no trial will have.

    Raises:
        InputError: Such an objective.
    """
    reranked = is_reranking(space)
    known = reranked_figure_names(config) if reranked else figure_names(config)
    for name in config.tune.objective:
        if name not in known:
            raise InputError(no_such_figure(name, config.tune, known))
