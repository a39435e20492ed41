"""An open log on each database, with a clock that tests set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from recsys.live.log.events import EventLog

NOW = 1_764_143_103_000
"""2025-11-26 07:45:03 (UTC)."""


@dataclass
class Clock:
    """The server's time, as a test sets it."""

    now_ms: int = NOW

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_log(address: str, clock: Clock) -> Iterator[Callable[[], EventLog]]:
    """Opens the log of the test; each call as another process would."""
    opened: list[EventLog] = []

    def open_again() -> EventLog:
        opened.append(EventLog(address, clock=clock))
        return opened[-1]

    yield open_again
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: Callable[[], EventLog]) -> EventLog:
    return open_log()
