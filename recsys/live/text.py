"""Text from outside: one rule for every id, name and value that the live parts keep.

A text is kept as it came or refused in one line, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from recsys.errors import InputError

LONGEST = 256
"""Most characters of an id, a name or a value."""

MOST_ENTRIES = 64
"""Most entries of a mapping: labels or context of one event."""


def check_text(value: object, name: str, *, longest: int = LONGEST) -> str:
    r"""The text itself, if every database and every reader of JSON can keep it.

    Args:
        value: What was given.
        name: Of the field, for the message.
        longest: Most characters.

    Raises:
        InputError: It is no text, empty or too long, or it holds a lone surrogate (half of a
            character, which UTF-8 cannot carry) or a NUL character (which PostgreSQL refuses).

    >>> check_text("caf\u00e9", "user_id") == "caf\u00e9"
    True
    >>> check_text("a\ud83d", "user_id")
    Traceback (most recent call last):
    recsys.errors.InputError: user_id='a\ud83d': half of a character (a lone surrogate) at place 2; send whole characters
    """  # noqa: E501
    if not isinstance(value, str):
        raise InputError(f"{name}={shown(value)}: must be text")
    if not 1 <= len(value) <= longest:
        raise InputError(
            f"{name}={shown(value)}: has {len(value)} characters; allowed are 1 to {longest}"
        )
    if value.isascii():
        if "\0" not in value:
            return value
    else:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name}={shown(value)}: half of a character (a lone surrogate) at place "
                f"{error.start + 1}; send whole characters"
            ) from None
    if "\0" in value:
        raise InputError(
            f"{name}={shown(value)}: a NUL character at place {value.index(chr(0)) + 1}; leave it "
            "out"
        )
    return value


def check_id(value: object, name: str) -> str:
    """An id as text; an integer is written as one.

    >>> check_id(17, "user_id")
    '17'

    Raises:
        InputError: It is neither text nor an integer, or `check_text` refuses it.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return check_text(str(value), name)
    if not isinstance(value, str):
        raise InputError(f"{name}={shown(value)}: must be text or an integer")
    return check_text(value, name)


def check_entries(value: object, name: str) -> Mapping[str, object]:
    """A mapping with names that `check_text` takes, and not too many; values are not looked at.

    Raises:
        InputError: It is no such mapping.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name}={shown(value)}: must be a mapping of names to values")
    if len(value) > MOST_ENTRIES:
        raise InputError(f"{name}: has {len(value)} entries; allowed are at most {MOST_ENTRIES}")
    for key in value:
        check_text(key, f"a name in {name}")
    return value


def shown(value: object) -> str:
    r"""A value for a message: plain ASCII, so that it can be printed anywhere, and short.

    >>> shown("\ud83d"), len(shown("x" * 1000))
    ("'\\ud83d'", 61)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a very large integer"
    if isinstance(value, str):
        value = value[:60]
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}...'"
