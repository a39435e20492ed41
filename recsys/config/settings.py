"""Every setting of a run as people read it: name, type, default, bounds and meaning.

All of it is read off the config tree, whose attribute docstrings are the meanings, so that nothing
is written down twice. Imports neither torch nor ray.
"""

from __future__ import annotations

import difflib
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys.config.run import RunConfig
from recsys.errors import InputError

NAMES: dict[object, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
}
"""What the types of single values are called."""
COMPARISONS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
LENGTHS = {"min_length": "at least", "max_length": "at most"}
INDENT = "    "


@dataclass(frozen=True)
class Setting:
    """One setting of the config tree."""

    name: str
    """Dotted, as it is typed: `train.lr`."""
    type: str
    default: object
    """As YAML and JSON have it; None where there is none."""
    required: bool
    """Whether it must be given."""
    bounds: str
    """In words, e.g. "at least 1, at most 512"; empty where every value of the type is allowed."""
    meaning: str
    """In Markdown, in one line."""

    @property
    def facts(self) -> str:
        """Type, bounds and default in one line."""
        default = "required" if self.required else f"default {_written(self.default)}"
        return "; ".join(part for part in (self.type, self.bounds, default) if part)


def all_settings(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """The settings of a section and of the sections in it, in the order of the config tree."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if _is_section(inner):
            yield from all_settings(inner, f"{prefix}{name}.")
        else:
            yield _setting(f"{prefix}{name}", field)


def find_settings(prefix: str) -> list[Setting]:
    """The settings of a section, or the one of a name; all of them for an empty prefix.

    >>> [setting.name for setting in find_settings("publish")]
    ['publish.index']

    Raises:
        InputError: There is no such section and no such setting.
    """
    known = list(all_settings())
    wanted = prefix.rstrip(".")
    settings = [s for s in known if not wanted or f"{s.name}.".startswith(f"{wanted}.")]
    if not settings:
        near = _near(wanted, [setting.name for setting in known])
        sections = ", ".join(dict.fromkeys(s.name.split(".")[0] for s in known if "." in s.name))
        hint = f"did you mean {' or '.join(near)}?" if near else f"the sections are {sections}"
        raise InputError(f"{prefix} is neither a setting nor a section of settings; {hint}")
    return settings


def describe_settings(settings: Sequence[Setting], *, width: int = 100) -> str:
    """A page for people: a line of facts for each setting and its meaning below."""
    wrap = textwrap.TextWrapper(width, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join(
        line for s in settings for line in (f"{s.name}: {s.facts}", *wrap.wrap(s.meaning))
    )


def _setting(name: str, field: FieldInfo) -> Setting:
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True)
    return Setting(
        name=name,
        type=_type_name(field.annotation),
        default=list(default) if isinstance(default, tuple) else default,
        required=required,
        bounds=", ".join([*_bounds(field.metadata), *_bounds_of_items(field.annotation)]),
        meaning=" ".join((field.description or "").split()),
    )


def _is_section(annotation: object) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type_name(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        kinds = [_type_name(kind) for kind in arguments if kind is not type(None)]
        return " or ".join(dict.fromkeys(kinds))
    if origin in (tuple, list):
        return f"list ({_type_name(arguments[0])})"
    if origin is dict:
        return f"mapping ({_type_name(arguments[0])}: {_type_name(arguments[1])})"
    return NAMES.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _bounds(metadata: Sequence[object]) -> Iterator[str]:
    for constraint in metadata:
        for name, word in COMPARISONS.items():
            if (value := getattr(constraint, name, None)) is not None:
                yield f"{word} {value}"
        for name, word in LENGTHS.items():
            if (value := getattr(constraint, name, None)) is not None:
                yield f"{word} {value} of them"
        if (pattern := getattr(constraint, "pattern", None)) is not None:
            yield f"like {pattern}"


def _bounds_of_items(annotation: object) -> Iterator[str]:
    """What holds for each entry of a list, or for one of several types."""
    for argument in typing.get_args(annotation):
        if typing.get_origin(argument) is Annotated:
            for extra in typing.get_args(argument)[1:]:
                inner = extra.metadata if isinstance(extra, FieldInfo) else [extra]
                yield from (f"each {bound}" for bound in _bounds(inner))


def _written(value: object) -> str:
    """A value as it would be typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_written(item) for item in value)}]"
    return str(value)


def _near(wanted: str, names: Sequence[str]) -> list[str]:
    """Names that somebody who typed this may have meant: by their last part or as a whole."""
    last = wanted.rpartition(".")[2]
    same_end = [name for name in names if name.rpartition(".")[2] == last]
    sections = {name[:at] for name in names for at, sign in enumerate(name) if sign == "."}
    alike = difflib.get_close_matches(wanted, [*names, *sorted(sections)], n=3, cutoff=0.7)
    if not same_end and not alike:
        ends = {name.rpartition(".")[2]: name for name in reversed(names)}
        alike = [ends[end] for end in difflib.get_close_matches(last, list(ends), n=3)]
    return list(dict.fromkeys([*same_end, *alike]))[:3]
