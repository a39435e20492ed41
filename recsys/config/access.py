"""Where a secret lies: a config names the place and never holds the secret itself.

A run's config is written into its folder and into every bundle, where many may read it.
"""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator

from recsys.errors import InputError

ENV, FILE = "env:", "file:"


def check_reference(text: str) -> str:
    """The reference itself, if it is one; what it is not is never shown, for it may be the secret.

    >>> check_reference("env:EVENTS_TOKEN")
    'env:EVENTS_TOKEN'

    Raises:
        ValueError: It is neither a variable's name nor an absolute path.
    """
    if text.startswith(ENV):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text.removeprefix(ENV)):
            raise ValueError("env: takes the name of an environment variable, as env:EVENTS_TOKEN")
    elif text.startswith(FILE):
        if not os.path.isabs(text.removeprefix(FILE)):
            raise ValueError("file: takes an absolute path, as file:/run/secrets/events_token")
    else:
        raise ValueError(
            "a token itself does not belong in a config, which is copied into the run folder and "
            "every bundle; give env:NAME or file:/PATH, where it can be found"
        )
    return text


TokenReference = Annotated[str, AfterValidator(check_reference)]
"""`env:NAME` or `file:/PATH`."""


def read_reference(reference: str, setting: str) -> str:
    """What stands where a reference leads.

    Args:
        reference: As `check_reference` takes it.
        setting: Its name, for the message.

    Raises:
        InputError: The variable is not set, or the file cannot be read as text.
    """
    if reference.startswith(ENV):
        text = os.environ.get(reference.removeprefix(ENV))
        if text is None:
            raise InputError(f"{setting}={reference}: this variable is not set; export it first")
        return text
    try:
        with open(reference.removeprefix(FILE), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{setting}={reference}: cannot be read ({reason})") from None
