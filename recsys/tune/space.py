"""The search space of a sweep: which settings it may change, and to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recsys.config.run import RunConfig, parse_config
from recsys.config.values import read_yaml_text
from recsys.errors import InputError

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain

Choice = Mapping[str, Sequence[Any]]
"""One entry of a space: {kind: arguments}."""
KINDS = ("uniform", "loguniform", "randint", "choice")


def read_space(path: str) -> dict[str, Choice]:
    """Reads a search space: setting → {kind: arguments}.

    For example `train.lr: {loguniform: [1e-4, 1e-2]}` or `model.dim: {choice: [32, 64]}`.

    Raises:
        InputError: The file or an entry is wrong.
    """
    try:
        tree = read_yaml_text(Path(path).read_text(encoding="utf-8"), object)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot read the space ({reason}); check --space") from None
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{path}: a space maps settings to {{kind: arguments}}")
    for setting, choice in tree.items():
        problem = _problem(choice)
        if problem:
            raise InputError(f"{path}: {setting}={choice!r}: {problem}")
    return tree


def _problem(choice: object) -> str | None:
    """What is wrong with an entry of a space."""
    if not isinstance(choice, dict) or len(choice) != 1 or next(iter(choice)) not in KINDS:
        kinds = ", ".join(KINDS)
        return f"allowed is one of {kinds} with its arguments, e.g. {{uniform: [0, 0.5]}}"
    ((kind, arguments),) = choice.items()
    if kind == "choice":
        good = isinstance(arguments, list) and len(arguments) > 0
        return None if good else "choice takes a list of values, e.g. {choice: [32, 64]}"
    try:
        low, high = (float(value) for value in arguments)
    except (TypeError, ValueError):
        return f"{kind} takes two numbers, e.g. {{{kind}: [1, 10]}}"
    if not low < high:
        return f"{kind} takes the smaller number first"
    return f"{kind} takes numbers above 0" if kind == "loguniform" and low <= 0 else None


def to_domain(choice: Choice) -> Domain:
    """Ray Tune's domain of one entry of a space."""
    from ray import tune

    ((kind, arguments),) = choice.items()
    if kind == "choice":
        return tune.choice(arguments)
    low, high = (float(value) for value in arguments)
    if kind == "randint":
        return tune.randint(int(low), int(high))
    return getattr(tune, kind)(low, high)


def with_settings(config: RunConfig, settings: Mapping[str, object]) -> RunConfig:
    """The config with some dotted settings changed; wrong ones are an `InputError`."""
    tree = config.model_dump(mode="json")
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = tree
        for key in sections:
            if not isinstance(section.get(key), dict):
                raise InputError(f"{name}: {key} is no section of the config; check --space")
            section = section[key]
        section[last] = value
    return parse_config(tree, "search space")


def any_value(choice: Choice) -> object:
    """A value that an entry of a space allows: its first one, or its lower end."""
    ((kind, arguments),) = choice.items()
    return int(arguments[0]) if kind == "randint" else arguments[0]
