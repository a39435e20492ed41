"""The search space of a sweep: which settings it may change, to what, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from recsys.config.run import RunConfig, parse_config
from recsys.config.values import read_yaml_text
from recsys.errors import InputError

KINDS = ("uniform", "loguniform", "randint", "choice")
WHEN = "when"
Settings = Mapping[str, object]
"""Dotted settings → their values."""


@dataclass(frozen=True)
class SpaceEntry:
    """What one setting may be."""

    setting: str
    kind: str
    """One of `KINDS`."""
    arguments: Sequence[object]
    """The values of a choice; the bounds of any other kind, of which randint leaves the upper one
    out."""
    when: Mapping[str, Sequence[object]]
    """Setting → values; the entry counts where every one of these settings has one of them."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The lower and the upper bound, both among the values, of what is no choice."""
        low, high = (float(value) for value in self.arguments)  # type: ignore[arg-type]
        return (low, high - 1) if self.kind == "randint" else (low, high)

    @property
    def values(self) -> Sequence[object] | None:
        """All values of a choice or of whole numbers; None where there are too many to list."""
        if self.kind == "choice":
            return self.arguments
        low, high = self.bounds
        return range(int(low), int(high) + 1) if self.kind == "randint" else None

    @property
    def ends(self) -> Sequence[object]:
        """The smallest and the largest value of what is no choice."""
        low, high = self.bounds
        return (int(low), int(high)) if self.kind == "randint" else (low, high)

    @property
    def largest(self) -> float:
        """The largest value of an entry of numbers."""
        tried = self.arguments if self.kind == "choice" else self.ends
        return max(float(value) for value in tried)  # type: ignore[arg-type]

    def draw(self, rng: np.random.Generator) -> object:
        """Any value, each as likely as the entry's kind says."""
        if self.values is not None:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.bounds
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        drawn = math.exp(rng.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)  # which rounding may have left

    @property
    def any_value(self) -> object:
        """A value that is allowed: the first one, or the lower bound."""
        return self.values[0] if self.values else self.bounds[0]


Space = Mapping[str, SpaceEntry]
"""Setting → entry; whatever an entry's `when` asks for stands before it."""


def read_space(path: str) -> Space:
    """Reads a search space: setting → {kind: arguments}, and `when` it counts, if not always.

    For example `train.lr: {loguniform: [1e-4, 1e-2]}` or
    `model.content.frame_dim: {choice: [32, 64], when: {model.content.temporal: lstm}}`.

    Raises:
        InputError: The file or an entry is wrong.
    """
    try:
        tree = read_yaml_text(Path(path).read_text(encoding="utf-8"), object)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot read the space ({reason}); check --space") from None
    try:
        return make_space(tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def make_space(tree: object) -> Space:
    """Makes a space of a plain tree as a file holds it.

    Raises:
        InputError: An entry is wrong.
    """
    if not isinstance(tree, dict) or not tree:
        raise InputError("a space maps settings to {kind: arguments}")
    entries = {}
    for setting, choice in tree.items():
        problem = _problem(choice)
        if problem:
            raise InputError(f"{setting}={choice!r}: {problem}")
        ((kind, arguments),) = ((k, v) for k, v in choice.items() if k != WHEN)
        when = {name: _listed(values) for name, values in choice.get(WHEN, {}).items()}
        entries[str(setting)] = SpaceEntry(str(setting), kind, arguments, when)
    return {entry.setting: entry for entry in _in_order(entries)}


def _listed(values: object) -> Sequence[object]:
    return values if isinstance(values, list) else [values]


def _problem(choice: object) -> str | None:
    """What is wrong with an entry of a space."""
    kinds = [key for key in choice if key != WHEN] if isinstance(choice, dict) else []
    if not isinstance(choice, dict) or len(kinds) != 1 or kinds[0] not in KINDS:
        known = ", ".join(KINDS)
        return f"allowed is one of {known} with its arguments, e.g. {{uniform: [0, 0.5]}}"
    if WHEN in choice and (not isinstance(choice[WHEN], dict) or not choice[WHEN]):
        return "when takes settings and their values, e.g. {when: {model.content.temporal: lstm}}"
    (kind,) = kinds
    return _problem_of(kind, choice[kind])


def _problem_of(kind: str, arguments: object) -> str | None:
    if kind == "choice":
        good = isinstance(arguments, list) and len(arguments) > 0
        return None if good else "choice takes a list of values, e.g. {choice: [32, 64]}"
    try:
        low, high = (float(value) for value in arguments)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return f"{kind} takes two numbers, e.g. {{{kind}: [1, 10]}}"
    if not low < high:
        return f"{kind} takes the smaller number first"
    if kind == "randint" and not (low.is_integer() and high.is_integer()):
        return "randint takes whole numbers, of which the upper one is left out"
    return f"{kind} takes numbers above 0" if kind == "loguniform" and low <= 0 else None


def _in_order(entries: Mapping[str, SpaceEntry]) -> Iterator[SpaceEntry]:
    """The entries, each after those that its condition asks for."""
    waiting = dict(entries)
    while waiting:
        ready = [e for e in waiting.values() if not (e.when.keys() & waiting.keys())]
        if not ready:
            raise InputError(f"{', '.join(waiting)}: their conditions (when) go in a circle")
        for entry in ready:
            yield waiting.pop(entry.setting)


def choose(
    space: Space, config: RunConfig, pick: Callable[[SpaceEntry], object]
) -> dict[str, object]:
    """Settings out of a space: a value for every entry whose condition holds.

    Args:
        space: The space.
        config: What settings are that the space leaves alone.
        pick: Gives an entry's value.
    """
    chosen: dict[str, object] = {}
    for entry in space.values():
        if counts(entry, config, chosen):
            chosen[entry.setting] = pick(entry)
    return chosen


def counts(entry: SpaceEntry, config: RunConfig, chosen: Settings) -> bool:
    """Whether an entry's condition holds among the settings that are chosen already."""
    return all(
        (chosen[name] if name in chosen else value_at(config, name)) in allowed
        for name, allowed in entry.when.items()
    )


def grid(space: Space, config: RunConfig) -> list[dict[str, object]]:
    """Every combination of the values of a space, the last entry changing fastest.

    Raises:
        InputError: An entry has no list of values.
    """
    points: list[dict[str, object]] = [{}]
    for entry in space.values():
        if entry.values is None:
            raise InputError(
                f"tune.search=grid: {entry.setting} is {entry.kind}, and a grid takes choice and "
                "randint alone; list its values or set tune.search to tpe or random"
            )
        points = [
            {**point, **new}
            for point in points
            for new in (
                [{entry.setting: value} for value in entry.values]
                if counts(entry, config, point)
                else [{}]
            )
        ]
    return points


def value_at(config: RunConfig, name: str) -> object:
    """What a dotted setting is in a config.

    Raises:
        InputError: There is no such setting.
    """
    value: object = config.model_dump(mode="json")
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise InputError(f"{name}: {key} is no setting; check --space")
        value = value[key]
    return value


SPACE = "search space"
"""What messages call a space whose file is not known any more."""


def with_settings(config: RunConfig, settings: Settings, source: str = SPACE) -> RunConfig:
    """The config with some dotted settings changed.

    Args:
        config: What is changed.
        settings: The new values.
        source: Where they are from, for the message.

    Raises:
        InputError: One is wrong.
    """
    tree = config.model_dump(mode="json")
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = tree
        for key in sections:
            if not isinstance(section.get(key), dict):
                raise InputError(
                    f"{source}: {name}: {key} is no section of the config; check --space"
                )
            section = section[key]
        section[last] = value
    return parse_config(tree, source)


RERANK = "rerank."
SWEPT = ("model.", "train.", "prepare.min_video_events", RERANK)
"""What a space may name: the rest changes what trials share, or nothing that is measured."""
SHARED = (
    "train.workers",
    "train.device",
    "train.start_from",
    "train.mlflow",
    "train.max_failures",
    "train.refit",
)
CHECKPOINTS = "train.checkpoint_every_partitions"
"""It changes a figure only where `_checkpoints_count`."""


def is_reranking(space: Space) -> bool:
    """Whether the space is of re-ranking weights, for which nothing is trained."""
    return all(name.startswith(RERANK) for name in space)


def fit_space(space: Space, config: RunConfig, source: str = SPACE) -> Space:
    """The space with its values as the config's settings hold them.

    What would end every trial, or be without effect, is found here and not in the trials.

    Args:
        space: As its file has it.
        config: The run.
        source: The file, for messages.

    Raises:
        InputError: A setting is wrong, or is none that a sweep may change.
    """
    for name, entry in space.items():
        with_settings(config, {name: entry.any_value}, source)  # says what a wrong name is near to
        idle = name == CHECKPOINTS and not _checkpoints_count(space, config)
        if not name.startswith(SWEPT) or name in SHARED or idle:
            allowed = ", ".join(each + "*" * each.endswith(".") for each in SWEPT)
            raise InputError(
                f"{source}: {name}: a sweep cannot change it, since it changes no validation "
                f"figure or what all trials share; allowed are {allowed}, but for "
                f"{', '.join(SHARED)}"
            )
    if not is_reranking(space) and any(name.startswith(RERANK) for name in space):
        raise InputError(
            f"{source}: rerank.*: re-ranking changes nothing in training; give its settings a "
            "space of their own, such as tuning/spaces/rerank.yaml, and sweep it on the trained "
            "model"
        )
    fitted = {name: _fitted(entry, config, source) for name, entry in space.items()}
    for entry in fitted.values():
        _require_reachable(entry, fitted, config, source)
    return fitted


def _checkpoints_count(space: Space, config: RunConfig) -> bool:
    """Whether something of the model follows each checkpoint: stored contents, or a mean."""
    names = {"train.step_clips", "train.average_every"}
    return bool(names & space.keys() or config.train.step_clips or config.train.average_every > 1)


def _require_reachable(entry: SpaceEntry, space: Space, config: RunConfig, source: str) -> None:
    """Refuses a condition that no trial meets: the entry would be without effect."""
    for name, allowed in entry.when.items():
        other = space.get(name)
        # What is drawn from a range meets no single value; what does not count is the config's.
        possible = [] if other is None else other.values or []
        from_config = other is None or other.when
        if not any(
            value in possible or (from_config and value == value_at(config, name))
            for value in allowed
        ):
            raise InputError(
                f"{source}: {entry.setting}: no trial meets its condition, for {name} is never "
                f"{' or '.join(map(str, allowed))}; correct when, or leave the setting out"
            )


def _fitted(entry: SpaceEntry, config: RunConfig, source: str) -> SpaceEntry:
    def typed(name: str, value: object) -> object:
        return value_at(with_settings(config, {name: value}, source), name)

    tried = entry.arguments if entry.kind == "choice" else entry.ends
    for value in tried:
        changed = with_settings(config, {entry.setting: value}, source)
        require_same_data(config, changed, f"{source}: {entry.setting}")
    when = {name: [typed(name, value) for value in values] for name, values in entry.when.items()}
    if entry.kind == "choice":
        return replace(entry, arguments=[typed(entry.setting, v) for v in tried], when=when)
    if entry.kind != "randint":
        _require_fractions(entry, config, source)
    return replace(entry, when=when)


def _require_fractions(entry: SpaceEntry, config: RunConfig, source: str) -> None:
    """Refuses to draw any number for a setting that takes whole ones; the ends may be whole."""
    low, high = entry.bounds
    try:
        with_settings(config, {entry.setting: low + (high - low) / math.pi}, source)
    except InputError as error:
        raise InputError(f"{error}; where whole numbers are meant, use randint") from None


def require_same_data(config: RunConfig, changed: RunConfig, name: str) -> None:
    """Refuses settings with which `decode` would have to write something else.

    Raises:
        InputError: Such a setting.
    """

    def decoded(of: RunConfig) -> object:
        return of.decodes, of.decodes and of.stores_features and of.model.content.encoder

    if decoded(config) != decoded(changed):
        raise InputError(
            f"{name}: all trials share what `recsys decode` wrote, and this changes it; leave it "
            "out, or set decode.features=false where frames are to be kept for every encoder"
        )
