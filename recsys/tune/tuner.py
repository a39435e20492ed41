"""A sweep: Ray Tune around the very training that `recsys train` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys import cluster
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import join, remove
from recsys.errors import InputError
from recsys.train.trainer import storage_path, use_gpu
from recsys.tune.population import first_needed, num_members, require_population
from recsys.tune.reranking import rerank_trainable
from recsys.tune.search import is_over, next_trial, num_trials
from recsys.tune.space import Space, fit_space, is_reranking, with_settings
from recsys.tune.trial import NUMBER, PARENT, SETTINGS, STRETCH, run_trial
from recsys.tune.trials import (
    EPOCH,
    ERROR,
    FIGURES,
    OBJECTIVE,
    State,
    Trial,
    TrialTable,
    best_epoch,
    objective,
    open_table,
    short,
    title,
    value_of,
    winner,
)

if TYPE_CHECKING:
    from ray.tune import Callback, Tuner
    from ray.tune.experiment import Trial as RayTrial
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

logger = logging.getLogger(__name__)

RAY_FOLDER = "ray"
"""Where Ray Tune keeps its own state inside RUN/tune; ours is the table of trials."""


def make_tuner(config: RunConfig, space: Space, table: TrialTable | None = None) -> Tuner:
    """A `ray.tune.Tuner` over a space, for a run whose data stages are done.

    Args:
        config: The run.
        space: What is searched.
        table: The trials so far; those that are done are not run again.

    Raises:
        InputError: The space names no setting that a sweep may change, a population cannot be
            trained with it, or the cluster is too small.
    """
    from ray import tune

    space = fit_space(space, config)
    require_population(space, config)
    table = table or open_table(config, space)
    room = require_room(config, space)
    left = num_trials(space, config) - len(table.done)
    remove(join(RunFolder(config.run).tune, RAY_FOLDER))
    if is_reranking(space):
        trainable, resources = rerank_trainable(config, space), {"cpu": 1.0}
    else:
        trainable, resources = _trainable(config, room), _resources(config)
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            num_samples=max(left, 1),
            max_concurrent_trials=room,
            search_alg=make_search(config, space, table),
            scheduler=make_scheduler(config, space, table.trials),
            reuse_actors=config.train.workers == 1,
        ),
        run_config=tune.RunConfig(
            name=RAY_FOLDER,
            storage_path=storage_path(RunFolder(config.run).tune),
            failure_config=tune.FailureConfig(max_failures=config.train.max_failures),
            verbose=0,
            callbacks=[make_keeper(config, space, table)],
        ),
    )


def _trainable(config: RunConfig, room: int) -> object:
    from ray import tune

    return tune.with_parameters(
        run_trial,
        config_tree=config.model_dump(mode="json"),
        gpu=use_gpu(config),
        room=room,
    )


def _resources(config: RunConfig) -> dict[str, float]:
    """What a trial's own process takes; where it has workers, they take theirs themselves."""
    if config.train.workers > 1:
        return {"cpu": 0, "memory": 2**20}  # something, as Ray wants
    return {"gpu": 1} if use_gpu(config) else {"cpu": 1}


def require_room(config: RunConfig, space: Space) -> int:
    """How many trials run at a time.

    Raises:
        InputError: The cluster can never run so many, or not even one.
    """
    gpu = use_gpu(config) and not is_reranking(space)
    kind, there = ("GPU", cluster.num_gpus()) if gpu else ("CPU", cluster.num_cpus())
    each = 1 if is_reranking(space) else config.train.workers
    cluster.require(each, gpu=gpu)
    fits, wanted = there // each, config.tune.concurrent
    if wanted is not None and wanted > fits:
        raise InputError(
            f"tune.concurrent={wanted}: a trial takes {each} {kind}s and the cluster has {there}; "
            f"set tune.concurrent to at most {fits}, leave it out, or add nodes"
        )
    return min(wanted or fits, num_members(space, config))


def make_search(config: RunConfig, space: Space, table: TrialTable) -> Searcher:
    """Ray Tune's searcher: first the trials that were cut off, then new ones."""
    from ray.tune.search import Searcher

    waiting = [trial.number for trial in table.trials if not trial.is_done]
    members = num_members(space, config)

    class TableSearcher(Searcher):  # type: ignore[misc]
        def suggest(self, trial_id: str) -> dict[str, object] | str | None:
            number = waiting.pop(0) if waiting else len(table.trials)
            if number == len(table.trials):
                if is_over(space, config, table.trials):
                    return str(Searcher.FINISHED)
                trial = next_trial(space, config, table.trials)
                if trial is None:
                    return None
                table.put(trial)
            trial = table[number]
            return {
                NUMBER: number,
                SETTINGS: trial.settings,
                PARENT: trial.parent,
                STRETCH: number // members,
            }

        def on_trial_complete(self, trial_id: str, *_: object, **__: object) -> None:
            """The table knows it already."""

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the table is on disk."""
            Path(checkpoint_path).touch()

    return TableSearcher(metric=OBJECTIVE, mode="max")


def make_scheduler(config: RunConfig, space: Space, trials: Sequence[Trial]) -> TrialScheduler:
    """Ray Tune's scheduler, which has seen the trials that are done."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if config.tune.scheduler == "none" or config.tune.is_population or is_reranking(space):
        return FIFOScheduler()
    np.random.seed(config.tune.seed)  # which trials Ray leaves alone for longer
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode="max",
        max_t=most_epochs(config, space) + 1,  # so that a trial ends by itself after the last one
        grace_period=1,
        brackets=3 if config.tune.scheduler == "hyperband" else 1,
    )
    for trial in trials:
        if trial.is_done:
            _replay(scheduler, trial, config)
    return scheduler


def _replay(scheduler: TrialScheduler, trial: Trial, config: RunConfig) -> None:
    """Tells a scheduler of a trial of before, as Ray Tune would have."""
    past = SimpleNamespace(trial_id=f"past-{trial.number}")
    scheduler.on_trial_add(None, past)
    for at, figures in enumerate(trial.epochs):
        best = best_epoch(trial.epochs[: at + 1])
        assert best is not None
        value = objective(best, config.tune)
        scheduler.on_trial_result(None, past, {EPOCH: figures[EPOCH], OBJECTIVE: value})


def most_epochs(config: RunConfig, space: Space) -> int:
    """Epochs of the longest trial."""
    entry = space.get("train.epochs")
    return config.train.epochs if entry is None else int(entry.largest)


def make_keeper(config: RunConfig, space: Space, table: TrialTable) -> Callback:
    """A Ray Tune callback that keeps the table, and says a line when a trial ends."""
    from ray import tune

    class Keeper(tune.Callback):  # type: ignore[misc]
        def on_trial_result(
            self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any]
        ) -> None:
            row = table[trial.config[NUMBER]]
            if result.get(ERROR) is not None:
                table.put(replace(row, error=str(result[ERROR])))
            else:
                table.put(row.with_epoch(result[FIGURES]))

        def on_trial_complete(
            self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
        ) -> None:
            _end(config, space, table, table[trial.config[NUMBER]])

        def on_trial_error(
            self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
        ) -> None:
            row = table[trial.config[NUMBER]]
            line = f"its process died {config.train.max_failures + 1} times"
            _end(config, space, table, replace(row, error=line))

    return Keeper()


def _end(config: RunConfig, space: Space, table: TrialTable, trial: Trial) -> None:
    """Keeps what became of a trial, and removes the checkpoints that nothing needs any more.

    Needed are those of the best trial, and those that a coming trial may start from.
    """
    best_before = winner(table.done, config.tune)
    trial = replace(trial, state=state_of(config, space, trial))
    table.put(trial)
    best = winner(table.done, config.tune)
    kept_from = first_needed(space, config, table.trials)
    ended = {trial.number, best_before.number if best_before else trial.number}
    if config.tune.is_population:
        # When the last stretch ends, nothing starts any more from it or from the one before.
        ended |= set(range(max(0, kept_from - 2 * num_members(space, config)), kept_from))
    for number in ended - {best.number if best else None}:
        if number < kept_from:
            remove(table.folder.trained_trial(number))
    settings = ", ".join(f"{name}={short(value)}" for name, value in trial.settings.items())
    # The page, the table and the report name a trial by its number; trials end in any order.
    which = f"trial {trial.number} ({len(table.done)} of {num_trials(space, config)})"
    if trial.error is not None:
        logger.warning("tune: %s failed: %s; %s", which, trial.error, settings)
    else:
        how = f"stopped after epoch {len(trial.epochs)}, " if trial.state == "stopped" else ""
        name, value = title(config.tune), value_of(trial, config.tune)
        logger.info("tune: %s: %s%s %.4f, %s", which, how, name, value, settings)


def state_of(config: RunConfig, space: Space, trial: Trial) -> State:
    """What became of a trial that has ended."""
    if trial.error is not None:
        return "failed"
    if is_reranking(space) or config.tune.is_population:
        return "finished"
    train, best = with_settings(config, trial.settings).train, trial.best
    waited = len(trial.epochs) - best[EPOCH] if best else 0
    over = len(trial.epochs) >= train.epochs or waited >= train.patience
    return "finished" if over else "stopped"
