"""Looks at the versions and at their index: what fails ends nothing, what is dropped is told of."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.serve.service import Service
from tests.bundles import NEW, OLD, rename_version
from tests.serve.versions.test_versions import Monitor, publish, service_beside, states


def test_an_index_that_fails_does_not_keep_another_one_from_being_looked_at(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service._batches.close()
    service.challenge(NEW, 0.5)
    serving, (_, tried) = service.recommender, service_beside(service)
    serving.monitor, tried.monitor = Monitor(0.75), Monitor(0.25)  # type: ignore[assignment]
    serving.monitor.check_one = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    service._look_at_index()
    figures = service.metrics.text()
    assert b'recsys_failures_total{replica="0",work="index"} 1.0' in figures
    assert b'recsys_challenger_index_recall{replica="0",shape="none"} 0.25' in figures
    assert "the index could not be compared" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("CURRENT: cannot be read"), "which version is to be served cannot be read"),
        (ZeroDivisionError("ours"), "the versions could not be looked at"),
    ],
)
def test_a_look_that_fails_is_counted_and_ends_nothing(
    service: Service,
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    versions = service.versions
    assert versions is not None
    looks = []

    def look() -> None:
        looks.append("once")
        versions._ended = len(looks) == 2
        versions._wake.set()
        raise error

    monkeypatch.setattr(versions, "look", look)
    monkeypatch.setattr("recsys.serve.priority.lower", lambda: None)
    versions._run(every_s=60.0)
    assert said in caplog.text
    assert b'recsys_failures_total{replica="0",work="versions"} 2.0' in service.metrics.text()


def test_what_was_dropped_is_told_of_when_nothing_is_answered_by_it(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look later, so that the requests of before are answered; and once."""
    newest = "20260103T000000000000Z-00000003"
    rename_version(bundles / OLD, bundles / newest)
    versions, told = service.versions, []
    assert versions is not None
    looks = iter([NEW, newest, None, None])

    def look_once(of_versions: Callable[[], None] = versions.look) -> None:
        version = next(looks)
        if version is not None:
            publish(bundles, version)
        of_versions()
        told.append(states(service)[OLD])
        versions._ended = len(told) == 4
        versions._wake.set()

    monkeypatch.setattr(versions, "look", look_once)
    monkeypatch.setattr("recsys.serve.priority.lower", lambda: None)
    versions._after_drop = lambda: told.append("dropped")
    versions._run(every_s=60.0)
    assert told == ["warm", "available", "dropped", "available"]
