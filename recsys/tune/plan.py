"""What a sweep would do, on what, and for how long: `recsys tune --dry-run`."""

from __future__ import annotations

from recsys import cluster
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import read_json
from recsys.train.trainer import use_gpu
from recsys.tune.checks import require_settings
from recsys.tune.population import grid_cut, num_members, num_stretches
from recsys.tune.search import num_trials, suggest
from recsys.tune.space import Space, is_reranking
from recsys.tune.trials import Trial, read_table, title
from recsys.tune.tuner import most_epochs, require_room

SHOWN = 5
"""Trials whose settings are shown beforehand."""
MEASURED = ("epoch_s", "validate_s")


def plan_sweep(config: RunConfig, space_path: str) -> dict[str, object]:
    """Says what `tune_run` would do; runs nothing and writes nothing.

    Raises:
        InputError: As `tune_run`.
    """
    space = require_settings(config, space_path)
    cluster.connect()
    room = require_room(config, space)
    table = read_table(config, space)
    total, done = num_trials(space, config), len(table.done)
    cut = grid_cut(space, config)
    return {
        "trials": _trials(config, space, total),
        "done": done,
        "at a time": room,
        "a trial takes": _each(config, space),
        "cluster": f"{cluster.num_cpus()} CPUs, {cluster.num_gpus()} GPUs",
        "search": config.tune.search,
        **({"grid": cut} if cut else {}),
        "scheduler": "none" if is_reranking(space) else config.tune.scheduler,
        "objective": title(config.tune),
        **_first(config, space, table.trials),
        "time": _time(config, space, table.done, left=total - done, room=room),
    }


def _trials(config: RunConfig, space: Space, total: int) -> int | str:
    if not config.tune.is_population:
        return total
    return f"{total}: {num_members(space, config)} members, {num_stretches(config)} stretches each"


def _each(config: RunConfig, space: Space) -> str:
    if is_reranking(space):
        return "1 CPU"
    workers, kind = config.train.workers, "GPU" if use_gpu(config) else "CPU"
    epochs = _epochs(config, space)
    most = f"at most {epochs} epoch{'s' if epochs > 1 else ''}"
    return f"{workers} {kind}{'s' if workers > 1 else ''}, {most}"


def _first(config: RunConfig, space: Space, trials: list[Trial]) -> dict[str, object]:
    """The settings of the next trials, as far as they do not hang on what earlier ones find."""
    start = len(trials)
    known = range(start, min(start + SHOWN, num_members(space, config)))
    return {f"trial {number}": suggest(space, config, trials, number) for number in known}


def _time(config: RunConfig, space: Space, done: list[Trial], *, left: int, room: int) -> str:
    """The longest that it can take, by an epoch that was measured."""
    if is_reranking(space):
        return "seconds a trial, after the lists are predicted once"
    epoch_s, whose = _epoch_s(config, done)
    if epoch_s is None:
        return "unknown: no epoch has been measured yet; the first trial or `recsys train` does it"
    members = num_members(space, config) if config.tune.is_population else left
    rounds = -(-left // members) * -(-members // room) if left else 0
    most = rounds * _epochs(config, space) * epoch_s
    ends = config.tune.scheduler in ("asha", "hyperband")
    early = f"; {config.tune.scheduler} ends most sooner" if ends else ""
    return f"at most {_span(most)}, by the {epoch_s:.1f} s that an epoch took {whose}{early}"


def _epochs(config: RunConfig, space: Space) -> int:
    """Epochs of the longest trial."""
    return config.tune.perturb_every if config.tune.is_population else most_epochs(config, space)


def _epoch_s(config: RunConfig, done: list[Trial]) -> tuple[float | None, str]:
    """Mean seconds of an epoch with its validation, and where they were measured."""
    epochs, whose = [epoch for trial in done for epoch in trial.own_epochs], "in the trials so far"
    if not epochs:
        report = read_json(RunFolder(config.run).report_of("train")) or {}
        epochs, whose = report.get("history", []), "in this run's training"
    spent = [sum(epoch.get(name) or 0.0 for name in MEASURED) for epoch in epochs]
    return (sum(spent) / len(spent), whose) if spent else (None, whose)


def _span(seconds: float) -> str:
    """A span of time.

    >>> _span(42.4), _span(150), _span(9000)
    ('42 s', '2.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
