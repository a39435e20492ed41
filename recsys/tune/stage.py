"""The sweep: runs the trials, then says what the best of them is worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa
import torch

from recsys import cluster
from recsys.config.run import RunConfig, dump_config
from recsys.data.run_folder import RunFolder
from recsys.data.storage import read_json, write_json, write_table, write_text
from recsys.errors import InputError
from recsys.schema import TEST
from recsys.train.collectives import Collectives
from recsys.train.stage import require_inputs
from recsys.train.trained import load_trained
from recsys.train.validation import predict_validation, validate
from recsys.train.warm_start import warm_start
from recsys.tune.checks import require_sweep
from recsys.tune.page import SCHEDULE_NOTE, schedule_text, sweep_page
from recsys.tune.population import Phase, grid_cut, schedule
from recsys.tune.reranking import reranked_test_figures
from recsys.tune.search import early_end, is_over
from recsys.tune.space import Space, is_reranking, with_settings
from recsys.tune.trial import best_checkpoint
from recsys.tune.trials import Trial, TrialTable, open_table, title, value_of, winner
from recsys.tune.tuner import make_tuner, require_room

logger = logging.getLogger(__name__)


def tune_run(
    config: RunConfig, space_path: str, *, resume: bool = False, anew: bool = False
) -> dict[str, object]:
    """Runs a sweep, or what is left of it, and writes its table, its page and RUN/tune/best.yaml.

    Args:
        config: The run; its data stages are done.
        space_path: The file of the space.
        resume: Whether there must be a sweep to go on with.
        anew: Whether an earlier sweep is removed first.

    Returns:
        What is shown to the user.

    Raises:
        InputError: The space or the settings are wrong, the cluster is too small, the run folder
            holds another sweep, or all trials failed.
    """
    space = require_sweep(config, space_path, resume=resume, anew=anew)
    cut = grid_cut(space, config)
    if cut is not None:
        logger.warning("tune: %s", cut)
    # Where the scheduler stops a trial, Ray Train frees its workers' CPUs once it learns from the
    # dashboard's service that the trial is dead; without it the next trials would wait for ever.
    cluster.connect(dashboard=config.train.workers > 1)
    require_room(config, space)
    if not is_reranking(space):
        require_inputs(config)
    table = open_table(config, space, resume=resume, anew=anew)
    if config.train.start_from is not None and not is_reranking(space):
        warm_start(config, RunFolder(config.run).start)
    if not is_over(space, config, table.done):
        make_tuner(config, space, table).fit()
    return _report(config, space, table)


def _report(config: RunConfig, space: Space, table: TrialTable) -> dict[str, object]:
    best, folder = winner(table.trials, config.tune), RunFolder(config.run)
    if best is None:
        error = table.trials[0].error
        raise InputError(f"all {len(table.trials)} trials failed: {error}")
    early = early_end(space, config, table.trials)
    if early is not None:
        logger.warning("tune: %s; the sweep ends with the best of these", early)
    phases = schedule(table.trials, best)
    write_text(_best_config(config, best, phases), folder.best_config)
    write_table(as_table(table.trials, config), folder.trials_table)
    test = _read_test(config, space, table, best)
    write_text(sweep_page(space, config, table.trials, test), folder.sweep_page)
    report = {
        "trials": len(table.trials),
        **({"ended early": early} if early else {}),
        **{state: _count(table.trials, state) for state in ("finished", "stopped", "failed")},
        "winner": best.number,
        "best": best.settings,
        **({"schedule": [asdict(phase) for phase in phases]} if len(phases) > 1 else {}),
        title(config.tune): value_of(best, config.tune),
        "test": test,
        "best.yaml": folder.best_config,
        "page": folder.sweep_page,
    }
    write_json(report, folder.report_of("tune"))
    return report


def _best_config(config: RunConfig, best: Trial, phases: Sequence[Phase]) -> str:
    """The config with the best settings, and what it cannot say: how they changed on the way."""
    lines = schedule_text(phases)
    told = [f"# {SCHEDULE_NOTE}", *(f"#   {line}" for line in lines)] if lines else []
    return "\n".join([*told, dump_config(with_settings(config, best.settings))])


def test_figures(config: RunConfig, model: str) -> dict[str, float]:
    """What a trial's model is worth on the test events, which no trial looked at.

    Args:
        config: The trial's.
        model: Folder of its checkpoint, which has not learnt from the validation events.
    """
    trained, alone = load_trained(config, model), Collectives()
    answers = predict_validation(
        trained.model,
        trained.prepared,
        trained.videos,
        torch.device("cpu"),
        collectives=alone,
        split=TEST,
    )
    weight = float(trained.model.trending)
    figures = validate(answers, alone, trending_weight=weight, prefix="test")
    return {name: value for name, value in figures.items() if name.startswith("test_")}


def _read_test(config: RunConfig, space: Space, table: TrialTable, best: Trial) -> dict[str, float]:
    """The winner's test figures: read once, by the first command that knows the winner."""
    before = read_json(table.folder.report_of("tune")) or {}
    if before.get("winner") == best.number:
        known: dict[str, float] = before["test"]
        return known
    import ray

    chosen = with_settings(config, best.settings)
    if is_reranking(space):
        asked = ray.remote(reranked_test_figures).remote(chosen)
    else:
        model = best_checkpoint(chosen, best.number)
        asked = ray.remote(test_figures).remote(chosen, model)
    measured: dict[str, float] = ray.get(asked)
    return measured


def _count(trials: list[Trial], state: str) -> int:
    return sum(trial.state == state for trial in trials)


def as_table(trials: list[Trial], config: RunConfig) -> pa.Table:
    """A row a trial: its settings, what became of it, and the figures of its best epoch."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "epochs": len(trial.epochs),
            "objective": value_of(trial, config.tune),
            "error": trial.error,
            **({"parent": trial.parent} if config.tune.is_population else {}),
            **{f"config/{name}": str(value) for name, value in trial.settings.items()},
            **(trial.best or {}),
        }
        for trial in trials
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})
