"""A log that fails slowly is left alone for nine times as long; one that refuses at once is not."""

import pytest

from recsys.live.store.database import LogError
from recsys.serve.users.log_gate import LogGate


class Log:
    """Takes some seconds of a clock of its own to answer or to fail."""

    def __init__(self) -> None:
        self.time_s, self.takes_s, self.is_away, self.asked = 100.0, 0.0, False, 0

    def answer(self) -> str:
        self.asked += 1
        self.time_s += self.takes_s
        if self.is_away:
            raise LogError("gone")
        return "here"


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def gate(log: Log) -> LogGate:
    return LogGate(lambda: log.time_s)


def test_a_log_that_hangs_is_left_alone_for_nine_times_as_long(gate: LogGate, log: Log) -> None:
    assert gate.ask(log.answer) == "here" and gate.is_open
    log.is_away, log.takes_s = True, 2.0
    with pytest.raises(LogError, match="gone"):
        gate.ask(log.answer)
    assert not gate.is_open
    log.is_away = False
    log.time_s += 17.9
    with pytest.raises(LogError, match="is not asked for a while"):
        gate.ask(log.answer)
    assert log.asked == 2
    log.time_s += 0.2
    assert gate.ask(log.answer) == "here" and gate.is_open


def test_a_log_that_refuses_at_once_is_asked_every_time(gate: LogGate, log: Log) -> None:
    log.is_away, log.takes_s = True, 0.05
    for _ in range(3):
        with pytest.raises(LogError, match="gone"):
            gate.ask(log.answer)
    assert log.asked == 3


def test_it_is_told_once_that_the_log_is_away_and_once_that_it_is_back(
    gate: LogGate, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    log.is_away = True
    for _ in range(3):
        with pytest.raises(LogError):
            gate.ask(log.answer)
    log.is_away = False
    for _ in range(3):
        gate.ask(log.answer)
    assert caplog.messages == [
        "answers are stale from now on: gone",
        "the event log answers again",
    ]
