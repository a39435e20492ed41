"""YAML and `key=value` texts into a tree of settings, and a tree's mistakes into one line."""

from __future__ import annotations

import difflib
import logging
import os
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from recsys.config.values import kind_at, read_override, read_yaml_text
from recsys.errors import InputError

logger = logging.getLogger(__name__)

Place = tuple[int | str, ...]
"""Where a setting stands in the tree, e.g. ("train", "lr")."""


def read_yaml(path: str, kind: type[BaseModel]) -> dict[str, object]:
    """Reads a file of settings, each as its type in `kind` asks.

    Raises:
        InputError: It cannot be read, or is no mapping, or holds a setting twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{path}: cannot read the config ({reason}); check --config") from None
    try:
        tree = read_yaml_text(text, kind)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a config is a mapping of sections (run, data, split, …)")
    # A section of which everything is commented out.
    return {name: value for name, value in tree.items() if value is not None}


def apply_overrides(tree: dict[str, object], overrides: Iterable[str], kind: object) -> None:
    """Sets `dotted.key=value` texts in a tree, each as its type in `kind` asks.

    Where a setting is given twice, the last text counts, and a line says so.

    >>> tree = {"train": {"lr": 1}}
    >>> apply_overrides(tree, ["train.lr=0.5", "model.dim=8"], dict[str, dict[str, float]])
    >>> tree
    {'train': {'lr': 0.5}, 'model': {'dim': 8}}

    Raises:
        InputError: A text is no setting, or asks for a setting inside a value.
    """
    given: dict[str, str] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise InputError(f"{override!r} is no setting; write key=value, e.g. train.epochs=3")
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            if section.get(name) is None:
                section[name] = {}
            inner = section[name]
            if not isinstance(inner, dict):
                raise InputError(f"{override!r}: {name} is a value, not a section")
            section = inner
        try:
            section[last] = read_override(text, kind_at(kind, key.split(".")))
        except InputError as error:
            raise InputError(f"{override!r}: {error}") from None
        _say_what_is_overruled(given, override)
        given[key] = override


def _say_what_is_overruled(given: dict[str, str], override: str) -> None:
    """Names the earlier texts that this one takes the place of."""
    key = override.partition("=")[0]
    for other, earlier in given.items():
        if earlier != override and f"{other}.".startswith(f"{key}."):
            logger.warning("%s is given too: %s comes after it and counts", earlier, override)


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """The first mistake, in one line, with a likely spelling for an unknown key."""
    details = error.errors()
    places = [_written(root, detail["loc"]) for detail in details]
    first, place = details[0], places[0]
    where = ".".join(str(part) for part in place)
    here = [detail for detail, at in zip(details, places, strict=True) if at == place]
    others = len(details) - len(here)
    more = f" (and {others} more)" if others else ""
    if first["type"] == "missing":
        return f"{where} is missing; add it{more}"
    if first["type"] == "extra_forbidden":
        known = _keys_at(root, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where} is not a setting; {hint}{more}"
    if first["type"] == "value_error":  # a check of ours across settings, which names them
        message = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {message}{more}" if where else f"{message}{more}"
    allowed = " or ".join(dict.fromkeys(_lower(str(detail["msg"])) for detail in here))
    given = first["input"]
    if first["type"] == "tuple_type" and not str(given).startswith(("[", "{")):
        allowed += f"; a list of one is written [{given}]"
    return f"{where}={given!r}: {allowed}{more}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _written(root: type[BaseModel], place: Sequence[int | str]) -> Place:
    """The part of a place that the user wrote: pydantic adds the type that it tried of a union."""
    section: Any = root
    for depth, key in enumerate(place):
        fields = getattr(section, "model_fields", {})
        if key not in fields:
            break
        section = fields[str(key)].annotation
        if typing.get_origin(section) in (typing.Union, types.UnionType):
            return tuple(place[: depth + 1])
    return tuple(place)


def _keys_at(root: type[BaseModel], place: Place) -> list[str]:
    section: Any = root
    for key in place:
        section = section.model_fields[str(key)].annotation
    return list(section.model_fields)


def absolute(path: str) -> str:
    """A local path from the root on; a URI as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


SectionT = TypeVar("SectionT", bound=BaseModel)


def parse_section(kind: type[SectionT], overrides: Sequence[str], name: str) -> SectionT:
    """One section of its own, from `name.key=value` texts alone.

    Raises:
        InputError: An override is wrong or of another section.
    """
    tree: dict[str, object] = {}
    apply_overrides(tree, overrides, dict[str, kind])  # type: ignore[valid-type]
    for other in tree.keys() - {name}:
        raise InputError(f"{other} is not a setting here; allowed is {name}.key=value")
    try:
        return kind.model_validate(tree.get(name, {}))
    except ValidationError as error:
        raise InputError(f"{name}: {explain(error, kind)}") from None
