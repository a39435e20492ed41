"""The trials of a sweep: a file each, so that a sweep that was killed goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from recsys.config.run import EvaluateConfig, RunConfig, TuneConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, list_files, read_json, remove, write_json
from recsys.errors import InputError
from recsys.tune.space import Settings, Space

Figures = Mapping[str, float]
"""What was measured on the validation events, by name; `epoch` is the number of the epoch."""
EPOCH, OBJECTIVE, FIGURES, ERROR = "epoch", "objective", "figures", "error"
"""What Ray Tune is told of an epoch."""


State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One config that was tried, or is being tried."""

    number: int
    settings: dict[str, object]
    state: State = "running"
    """`stopped` is a trial that the scheduler ended before its last epoch."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """The figures of each epoch behind its weights."""
    error: str | None = None
    """Why it failed."""
    parent: int | None = None
    """The trial whose weights and epochs it went on from, in a population."""
    num_inherited: int = 0
    """How many of the epochs, the first ones, are its parent's."""

    @property
    def is_done(self) -> bool:
        """Whether it is never to run again."""
        return self.state != "running"

    @property
    def own_epochs(self) -> list[dict[str, float]]:
        """The figures of the epochs that it trained itself."""
        return self.epochs[self.num_inherited :]

    @property
    def best(self) -> dict[str, float] | None:
        """The figures of its own epoch whose model training would keep; None before the first."""
        return best_epoch(self.own_epochs)

    def with_epoch(self, figures: Figures) -> Trial:
        """The trial with one more epoch, or with the same one again."""
        others = [epoch for epoch in self.epochs if epoch[EPOCH] != figures[EPOCH]]
        return replace(self, epochs=sorted([*others, dict(figures)], key=lambda e: e[EPOCH]))


def best_epoch(epochs: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """Of the epochs the one with the best score; of equal ones the first."""
    return max(epochs, key=lambda figures: figures["score"], default=None)


def objective(figures: Figures, config: TuneConfig) -> float:
    """The weighted sum that the sweep makes as large as it can.

    >>> objective({"ndcg": 0.5, "gini": 0.25}, TuneConfig(objective={"ndcg": 2, "gini": -1}))
    0.75

    Raises:
        InputError: The objective names a figure that was not measured.
    """
    return sum(parts(figures, config))


def title(config: TuneConfig) -> str:
    """What people read for the objective: the name of its figure, where it is of one alone.

    >>> title(TuneConfig()), title(TuneConfig(objective={"score": 1, "valid_hr@10": 2}))
    ('score', 'objective')
    """
    return next(iter(config.objective)) if list(config.objective.values()) == [1.0] else OBJECTIVE


def parts(figures: Figures, config: TuneConfig) -> list[float]:
    """The objective's figures with their weights: all are to be large."""
    for name in config.objective:
        if name not in figures:
            known = [name for name in figures if name == "score" or name.startswith("valid_")]
            raise InputError(no_such_figure(name, config, sorted(known)))
    return [weight * figures[name] for name, weight in config.objective.items()]


def no_such_figure(name: str, config: TuneConfig, known: Sequence[str]) -> str:
    """The message for a figure of the objective that no trial has."""
    weight = config.objective[name]
    return f"tune.objective.{name}={weight:g}: no such figure; allowed are {', '.join(known)}"


def value_of(trial: Trial, config: TuneConfig) -> float:
    """What a trial is worth; minus infinity before its first epoch, and where it failed."""
    if trial.best is None or trial.state == "failed":
        return float("-inf")
    return objective(trial.best, config)


def winner(trials: Sequence[Trial], config: TuneConfig) -> Trial | None:
    """The trial with the largest objective, the first of equal ones; None where all failed."""
    there = [trial for trial in trials if value_of(trial, config) > float("-inf")]
    return max(there, key=lambda trial: value_of(trial, config), default=None)


def front(trials: Sequence[Trial], config: TuneConfig) -> list[Trial]:
    """The trials that no other one beats or equals in every figure of the objective."""
    points = {t.number: parts(t.best, config) for t in trials if t.best and t.state != "failed"}

    def beaten(mine: list[float]) -> bool:
        return any(
            all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in points.values()
        )

    return [t for t in trials if t.number in points and not beaten(points[t.number])]


def short(value: object) -> str:
    """A value for people to read.

    >>> short(0.00123456), short("lstm")
    ('0.001235', 'lstm')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class TrialTable:
    """The trials of the sweep in a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        paths = list_files(folder.trials, ".json") if exists(folder.trials) else []
        read = [Trial(**row) for row in map(read_json, paths)]
        self._trials = {trial.number: trial for trial in read}

    @property
    def trials(self) -> list[Trial]:
        """All of them, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def done(self) -> list[Trial]:
        """Those that are never to run again, by number."""
        return [trial for trial in self.trials if trial.is_done]

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def put(self, trial: Trial) -> None:
        """Keeps a trial, new or changed; it is on disk when this returns."""
        self._trials[trial.number] = trial
        write_json(asdict(trial), self.folder.trial(trial.number))


VALIDATED = {"mask_history", "users", "seed", "tradeoff_users"}
"""Settings of the evaluation by which trials are measured too."""
DATA = "the output of "
"""What stands before a data stage's name among what trials have in common."""


FREE: dict[str, Any] = {
    "run": True,
    "decode": {"workers"},
    "train": {"device", "max_failures", "mlflow", "refit"},
    "evaluate": set(EvaluateConfig.model_fields) - VALIDATED,
    "tune": {"concurrent"},
    **dict.fromkeys(("publish", "serve", "refresh"), True),
}
"""Settings that change no trial's figures, so that a sweep goes on with others."""


def held_fixed(config: RunConfig, space: Space) -> dict[str, object]:
    """Everything that all trials of a sweep must have in common, by dotted name."""
    tree = config.model_dump(mode="json", exclude=FREE)
    if not config.tune.is_population:  # with more members others would be the worst
        del tree["tune"]["trials"], tree["tune"]["perturb_every"]
    folder = RunFolder(config.run)
    data = {
        f"{DATA}{stage}": (read_json(folder.report_of(stage)) or {}).get("fingerprint")
        for stage in ("prepare", "decode")
    }
    named = {f"--space {name}": asdict(entry) for name, entry in space.items()}
    return {**_flat(tree), **data, **named}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def open_table(
    config: RunConfig, space: Space, *, resume: bool = False, anew: bool = False
) -> TrialTable:
    """The trials so far of this very sweep, or an empty table.

    Args:
        config: The run.
        space: What is searched.
        resume: Whether there must be some.
        anew: Whether an earlier sweep in the run folder is removed.

    Raises:
        InputError: The run folder holds another sweep, or none where there must be one.
    """
    folder = RunFolder(config.run)
    if anew:
        remove(folder.tune)
    table = read_table(config, space)
    if resume:
        require_begun(config)
    if not exists(folder.sweep):
        write_json(held_fixed(config, space), folder.sweep)
    return table


def read_table(config: RunConfig, space: Space) -> TrialTable:
    """The trials so far of this very sweep; nothing is written.

    Raises:
        InputError: The run folder holds another sweep.
    """
    require_same_sweep(config, space)
    return TrialTable(RunFolder(config.run))


def require_same_sweep(config: RunConfig, space: Space, *, with_data: bool = True) -> None:
    """Refuses to go on with the run folder's sweep where it is another one.

    Args:
        config: The run.
        space: What is searched.
        with_data: Whether the data must be the same too; before the data stages they are not known.

    Raises:
        InputError: The run folder holds another sweep.
    """
    folder = RunFolder(config.run)
    wanted, there = held_fixed(config, space), read_json(folder.sweep)
    if there is None:
        return
    changed = [name for name in {*wanted, *there} if wanted.get(name) != there.get(name)]
    named = sorted(name for name in changed if with_data or not name.startswith(DATA))
    if named:
        raise InputError(
            f"{folder.tune} holds a sweep with another {_first(named, there, wanted)}; give "
            "what it had, another run folder, or --anew, which removes that sweep"
        )


def require_begun(config: RunConfig) -> None:
    """Refuses `--resume` where there is nothing to go on with.

    Raises:
        InputError: The run folder holds no sweep.
    """
    folder = RunFolder(config.run)
    if not exists(folder.sweep):
        raise InputError(f"--resume: {folder.tune} holds no sweep; leave --resume out")


def _first(names: Sequence[str], before: Settings, now: Settings) -> str:
    """The first name with both values, and how many more there are."""
    name = names[0]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    if not isinstance(before.get(name), str | int | float | None):
        return f"{name}{more}"
    return f"{name} ({before.get(name)} then, {now.get(name)} now){more}"
