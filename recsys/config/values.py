"""Texts into values, each as the type of its setting asks.

YAML 1.1 takes `no` for false, `2024-05-01` for a date, `007` for 7 and `run #1` for `run`. So a
setting whose type is text gets the text as it stands, a number is read in base ten, and only a
setting that may be true or a date gets those. Which type a setting has is read off the tree of
pydantic models, and never tried.
"""

from __future__ import annotations

import types
import typing
from datetime import datetime
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel

from recsys.errors import InputError

NONE = "null"
"""What is typed for a text setting that may be left out, where it is to be left out."""
_STANDARD = "tag:yaml.org,2002:"
_ENDLESS = "it holds itself, or is nested too deep"


def read_override(text: str, kind: object) -> object:
    """The value of a `key=value` text.

    Args:
        text: What stands after the sign.
        kind: Type of the setting, as `kind_at` gives it.

    Returns:
        The text as typed where the type is text (None for `null` where the setting may be left
        out), else what YAML makes of it; what is no YAML stays text, for pydantic to refuse.

    Raises:
        InputError: A key is given twice in it.

    >>> read_override("run #1", str), read_override("null", str), read_override("null", str | None)
    ('run #1', 'null', None)
    >>> read_override("[yes, 007]", tuple[str, ...]), read_override("007", int)
    (['yes', '007'], 7)
    """
    if _is_text(kind):
        return None if text == NONE and type(None) in _members(kind) else text
    try:
        return read_yaml_text(text, kind, whole=True)
    except yaml.YAMLError:
        return text


def read_yaml_text(text: str, kind: object, *, whole: bool = False) -> object:
    """The value of a YAML document.

    Args:
        text: The document.
        kind: Type of what it holds.
        whole: Whether the text is the value and nothing else, without a comment after it.

    Returns:
        None for an empty document; scalars as the module says, with YAML's null as None.

    Raises:
        yaml.YAMLError: It is not YAML, or holds itself.
        InputError: A key is given twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        end = 0 if node is None else node.end_mark.index
        if whole and (node is None or text[end:].strip()):
            return text
        return None if node is None else _Reader(loader).value(node, kind)
    except RecursionError:
        raise yaml.YAMLError(_ENDLESS) from None


def kind_at(root: object, place: typing.Iterable[str]) -> object:
    """The type of the setting at a place in a tree of settings; `object` where there is none.

    >>> kind_at(dict[str, dict[str, int]], ["a", "b"])
    <class 'int'>
    """
    for key in place:
        root = _child(root, key)
    return root


class _Reader:
    """Makes values of a document's nodes."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._merged: set[int] = set()

    def value(self, node: yaml.Node, kind: object) -> object:
        """The value of a node, and of all that it holds."""
        if not node.tag.startswith(_STANDARD):
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {node.tag!r} is not read here", node.start_mark
            )
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(n, _child(kind, key)) for key, n in self._entries(node)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, _item(kind)) for child in node.value]
        return self._scalar(node, kind)

    def _entries(self, node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
        """Keys, which are always text, and values; those that `<<` brings in stand first."""
        if id(node) not in self._merged:  # an alias leads to the same node again
            self._merged.add(id(node))
            _require_different_keys(node)
            self._loader.flatten_mapping(node)
        return [(str(key.value), value) for key, value in node.value]

    def _scalar(self, node: yaml.Node, kind: object) -> object:
        text, tag = node.value, node.tag.removeprefix(_STANDARD)
        if "\0" in text:  # no path and no column has one, and systems end a name there
            raise yaml.constructor.ConstructorError(None, None, "a zero byte", node.start_mark)
        if tag == "null":
            return None
        if _is_text(kind):
            return text
        if tag in ("int", "float"):
            return _number(text)
        made_by_yaml = {"bool": bool, "timestamp": datetime}
        if made_by_yaml.get(tag) not in _members(kind):
            return text
        try:
            return self._loader.construct_object(node)
        except ValueError:  # the thirteenth month
            return text


def _require_different_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"line {line}: a key is a name, not a list or mapping")
        if key.value in seen:
            raise InputError(f"line {line}: {key.value} is given twice; keep one of them")
        seen.add(key.value)


def _number(text: str) -> object:
    """A number in base ten; what is none stays text (YAML 1.1 has 1:30 for 90 and 010 for 8)."""
    for make in (int, float):
        try:
            return make(text)
        except ValueError:
            continue
    return text


def _members(kind: object) -> list[object]:
    """The types that a type allows: those of a union, without the bounds around them."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _members(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(kind) for member in _members(part)]
    return [kind]


def _is_text(kind: object) -> bool:
    return any(m is str or typing.get_origin(m) is Literal for m in _members(kind))


def _child(kind: object, key: str) -> object:
    """The type of an entry of a section or dict."""
    for member in _members(kind):
        if isinstance(member, type) and issubclass(member, BaseModel):
            field = member.model_fields.get(key)
            return object if field is None else field.annotation
        if typing.get_origin(member) is dict:
            return typing.get_args(member)[1]
    return object


def _item(kind: object) -> object:
    """The type of an entry of a list."""
    for member in _members(kind):
        if typing.get_origin(member) in (tuple, list):
            return typing.get_args(member)[0]
    return object
