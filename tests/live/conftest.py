"""An empty log's address on each database, and a clock that tests set."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.live.events import EventLog
from tests.benchmarks._postgres import find_binaries, make_database, postgres_server

NOW = 1_764_143_103_000
"""2025-11-26 07:45:03 (UTC)."""

_numbers = itertools.count()


@dataclass
class Clock:
    """The server's time, as a test sets it."""

    now_ms: int = NOW

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server for all tests; without fsync, since it is never killed here."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed; apt-get install postgresql")
    with postgres_server(binaries, fsync=False) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty log, on each database in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "log" / "live.sqlite")
    return make_database(request.getfixturevalue("postgres"), f"test_{next(_numbers)}")


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
