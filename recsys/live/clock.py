"""The server's clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Gives the time in Unix milliseconds (UTC)."""


def now() -> int:
    """The time of the machine's own clock, in Unix milliseconds (UTC)."""
    return time.time_ns() // 1_000_000
