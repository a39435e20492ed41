"""A log is counted once, whatever was deleted before, and once more for what is deleted later."""

from collections.abc import Sequence

import pytest

from recsys.live.log import events
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.versions.counted_log import CountedLog


class Seen:
    """A counted log whose counts are the videos that were seen, in their order."""

    def __init__(self, log: EventLog, after_seq: int = 0) -> None:
        self.begun = 0
        self.log = CountedLog(log, lambda _: self.begin(after_seq), self.count)

    def begin(self, after_seq: int) -> tuple[list[str | None], int]:
        self.begun += 1
        return [], after_seq

    def count(self, logged: LoggedEvent) -> None:
        self.log.counts.append(logged.event.video_id)

    def now(self) -> Sequence[str | None]:
        self.log.catch_up()
        return self.log.counts


def view(video_id: str, user_id: str = "stays") -> Event:
    return Event(user_id, VIEW, video_id)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many, and deletions in each."""
    monkeypatch.setattr(events, "PAGE", 2)


def test_what_was_deleted_before_is_no_reason_to_count_anew(log: EventLog) -> None:
    for number in range(5):
        log.append([view("gone", f"u{number}")])
        log.forget(f"u{number}")
        log.append([view(f"v{number}")])
    seen = Seen(log)
    assert (seen.now(), seen.begun) == ([f"v{number}" for number in range(5)], 1)
    log.append([view("new")])
    assert (seen.now()[-1], seen.begun) == ("new", 1)


def test_however_much_was_deleted_meanwhile_all_is_counted_anew_once(log: EventLog) -> None:
    log.append([view("v0"), *(view("gone", f"u{number}") for number in range(5))])
    seen = Seen(log)
    assert seen.now() == ["v0"] + ["gone"] * 5
    for number in range(5):
        log.forget(f"u{number}")
        log.append([view(f"v{number + 1}")])
    assert (seen.now(), seen.begun) == ([f"v{number}" for number in range(6)], 2)
    assert (seen.now(), seen.begun) == ([f"v{number}" for number in range(6)], 2)


def test_what_is_deleted_while_all_is_counted_anew_is_seen_the_next_time(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody is forgotten more often than all can be counted, the counting ends too."""
    log.append([view("v0"), view("gone", "u0"), view("gone", "u1")])
    seen = Seen(log)
    seen.now()
    log.forget("u0")
    begin = seen.begin

    def forgets_meanwhile(after_seq: int) -> tuple[list[str | None], int]:
        begun = begin(after_seq)
        log.forget("u1")
        return begun

    monkeypatch.setattr(seen, "begin", forgets_meanwhile)
    assert (seen.now(), seen.begun) == (["v0"], 2)
    monkeypatch.undo()
    assert (seen.now(), seen.begun) == (["v0"], 3)


def test_the_log_is_counted_from_a_place_on(log: EventLog) -> None:
    log.append([view("before"), view("gone", "u0")])
    seen = Seen(log, log.latest_seq())
    log.append([view("v1")])
    assert seen.now() == ["v1"]
    log.forget("u0")
    assert seen.now() == ["v1"]
