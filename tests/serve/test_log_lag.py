"""How far behind the log a replica is, told while its own thread is busy."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys.live.clock import now
from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.serve import log_lag
from recsys.serve.follower import Followed
from recsys.serve.log_lag import LogLag
from recsys.serve.metrics import Metrics
from tests.live.conftest import Clock


def told(metrics: Metrics, name: str) -> float:
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise AssertionError(name)


@pytest.fixture
def clock() -> Clock:
    return Clock(now())


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[EventLog]:
    with EventLog(str(tmp_path / "live.sqlite"), clock=clock) as log:
        yield log


def test_the_age_is_that_of_the_oldest_event_that_is_not_followed(
    log: EventLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the time since the newest that is: after a quiet night the first one is young."""
    monkeypatch.setattr(log_lag, "LOOKS_S", 3600.0)
    metrics, followed = Metrics("r1"), Followed(unknown_videos=3)
    lag = LogLag(log, lambda: followed, metrics)
    log.append([Event("u1", VIEW, "v1")])
    followed.seq = log.latest_seq()
    clock.now_ms += 10 * 3_600_000
    lag.look()
    assert told(metrics, "recsys_log_lag_events") == told(metrics, "recsys_log_lag_seconds") == 0
    log.append([Event("u1", VIEW, "v2"), Event("u1", VIEW, "v3")])
    clock.now_ms += 1500
    lag.look()
    assert told(metrics, "recsys_log_lag_events") == 2
    assert told(metrics, "recsys_log_lag_seconds") == 1.5
    assert told(metrics, "recsys_log_events_waiting") == 3
    lag.close()


def test_it_is_told_while_nobody_follows(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lag, "LOOKS_S", 0.01)
    metrics = Metrics("r1")
    log.append([Event("u1", VIEW, "v1")])
    lag = LogLag(log, Followed, metrics)
    ends = time.monotonic() + 20
    while told(metrics, "recsys_log_lag_events") != 1:
        assert time.monotonic() < ends

    def away(*_: object, **__: object) -> None:
        raise LogError("away")

    monkeypatch.setattr(log, "rows_after", away)
    while not told(metrics, "recsys_log_failures_total"):
        assert time.monotonic() < ends
    lag.close()
