"""Before a version answers it catches up, and practises on what was asked of late."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys.live.log.event import VIEW, Event
from recsys.live.store.database import LogError
from recsys.live.versions.watch import Challenge, WantedVersion
from recsys.serve.asks import Ask
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.versions.practice import RECENT
from recsys.serve.versions.replica import Versions
from tests.bundles import NEW, OLD
from tests.serve.versions.test_versions import ask, look, publish, states

Fails = Callable[..., None]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Has versions fail at the requests of a user; of None at all."""
    answer, faults = ServingRecommender.answer, []

    def with_faults(self: ServingRecommender, asks: Sequence[Ask]) -> object:
        for user_id, versions in faults:
            if self.bundle.version in versions and user_id in (None, *(a.user_id for a in asks)):
                raise ZeroDivisionError("no such kernel")
        return answer(self, asks)

    monkeypatch.setattr(ServingRecommender, "answer", with_faults)
    return lambda user_id, *versions: faults.append((user_id, versions))


def reason(service: Service) -> str:
    assert service.versions is not None
    (refused,) = service.versions.refused
    return refused.reason


def test_a_request_that_every_version_fails_at_stops_neither_a_swap_nor_a_rollback(
    service: Service, bundles: Path, fails: Fails
) -> None:
    fails("odd", OLD, NEW)
    assert ask(service).degraded is None
    for _ in range(RECENT):
        assert ask(service, "odd").degraded is not None
    for version in (NEW, OLD):
        publish(bundles, version)
        look(service)
        assert ask(service).version == version
    assert service.versions is not None and service.versions.refused == []


def test_a_new_version_that_fails_at_what_is_answered_here_is_refused(
    service: Service, bundles: Path, fails: Fails, caplog: pytest.LogCaptureFixture
) -> None:
    fails("odd", NEW)
    assert [ask(service, user).degraded for user in ("u3", "odd", "u4")] == [None] * 3
    publish(bundles, NEW)
    look(service)
    assert states(service) == {NEW: "refused", OLD: "serving"}
    told = "it fails at 1 of the last 3 requests that were answered here"
    assert reason(service) == f"{told}: ZeroDivisionError('no such kernel')"
    assert told in caplog.text and "Traceback" in caplog.text


def test_the_way_back_is_open_to_a_version_that_fails_at_some_requests(
    service: Service, bundles: Path, fails: Fails, caplog: pytest.LogCaptureFixture
) -> None:
    publish(bundles, NEW)
    look(service)
    fails("odd", OLD)
    assert [ask(service, user).degraded for user in ("u3", "odd")] == [None] * 2
    publish(bundles, OLD)
    look(service)
    assert states(service) == {OLD: "serving", NEW: "warm"}
    told = "fails at 1 of the last 2 requests that were answered here, and is taken back all the"
    assert f"version {OLD} {told} same" in caplog.text and "no such kernel" in caplog.text


def test_a_warm_version_that_fails_at_all_requests_is_refused_and_told_of(
    service: Service, bundles: Path, fails: Fails
) -> None:
    publish(bundles, NEW)
    look(service)
    fails(None, OLD)
    ask(service)
    publish(bundles, OLD)
    look(service)
    assert states(service) == {NEW: "serving", OLD: "refused"}
    assert "fails at 1 of the last 1 requests" in reason(service)
    assert b'recsys_versions_refused_total{replica="0"} 1.0' in service.metrics.text()


def test_a_warm_version_waits_while_the_log_is_away(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bundles, NEW)
    look(service)
    publish(bundles, OLD)

    def away(*_: object) -> None:
        raise LogError("the log is away")

    with monkeypatch.context() as patched:
        patched.setattr(service, "_make_missing", away)
        look(service)
    assert states(service) == {NEW: "serving", OLD: "waiting"}
    look(service)
    assert states(service) == {NEW: "warm", OLD: "serving"}


def test_a_warm_version_has_caught_up_before_it_is_tried(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the thread that answers would read all that has happened since it went warm."""
    publish(bundles, NEW)
    look(service)
    for number in range(3):
        service.log.append([Event(f"u{number}", VIEW, "v1", positive=True)])
    service.challenge(OLD, 0.5)
    flip, followed = service.flip, []

    def record(
        recommender: ServingRecommender, beside: tuple[Challenge, ServingRecommender] | None
    ) -> None:
        assert beside is not None
        followed.append(beside[1].followed.seq)
        flip(recommender, beside)

    monkeypatch.setattr(service, "flip", record)
    look(service)
    assert followed == [service.log.latest_seq()]
    assert states(service) == {NEW: "serving", OLD: "challenger"}


class Host:
    """Remembers what is done with which version; a recommender is its version's name."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def practise(self, recommender: str, *, has_served: bool) -> None:
        self.done.append(("practise", recommender))

    def flip(self, recommender: str, beside: tuple[Challenge, str] | None) -> None:
        self.done.append(("flip", recommender, *([] if beside is None else [beside[1]])))


def test_nothing_answers_that_has_rested_and_has_not_practised() -> None:
    """Of three versions in memory one is wanted, and another one beside it, at the same time."""
    wanted = WantedVersion("b", Challenge("a", "b", 0.5, 0))
    host, watch = Host(), SimpleNamespace(wanted=lambda: wanted, bundles_dir="/none", pinned=None)
    metrics = SimpleNamespace(version_swapped=lambda: None)
    versions = Versions(watch, None, host=host, metrics=metrics)  # type: ignore[arg-type]
    versions._held.update(a="a", b="b", c="c")  # type: ignore[call-arg]
    versions._serving = "c"
    versions.look()
    assert host.done == [("practise", "b"), ("flip", "b"), ("practise", "a"), ("flip", "b", "a")]
    host.done.clear()
    wanted = WantedVersion("b", Challenge("a", "b", 0.75, 0))
    versions.look()
    assert host.done == [("flip", "b", "a")], "it answers already"
    assert sorted(versions._held) == ["a", "b", "c"] and versions._challenge == wanted.challenge
