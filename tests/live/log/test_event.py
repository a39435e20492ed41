"""What an event may hold, what it is known by, and at which time it counts."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.live.log.event import (
    DAY_MS,
    EXPOSURE,
    FIRST_MS,
    HIDE_CREATOR,
    NOT_INTERESTED,
    TASK,
    VIEW,
    Event,
    check_time,
    to_row,
)
from tests.live.conftest import NOW

SEEN = Event("u1", VIEW, "v1", time_ms=NOW - 5)


def event_id(event: Event, received_ms: int = NOW) -> str:
    return str(to_row(event, received_ms)[0]["event_id"])


def test_a_row_holds_what_was_told() -> None:
    event = Event(
        7,  # type: ignore[arg-type]
        VIEW,
        "v1",
        creator_id="c1",
        time_ms=NOW - 5,
        watched=3,
        labels={"like": True, "follow": False},
        context={"tab": 2},  # type: ignore[dict-item]
        event_id="e1",
        impression_id="i1",
        version="3",
    )
    assert to_row(event, NOW) == (
        {
            "event_id": "e1",
            "user_id": "7",
            "type": "view",
            "video_id": "v1",
            "creator_id": "c1",
            "given_ms": NOW - 5,
            "received_ms": NOW,
            "time_ms": NOW - 5,
            "positive": 1,
            "watched": 3.0,
            "labels": '{"follow":false,"like":true}',
            "context": '{"tab":"2"}',
            "impression_id": "i1",
            "version": "3",
            "place": None,
        },
        None,
    )


def test_an_id_is_made_of_the_content_and_stays_the_same_in_every_release() -> None:
    """A client's retry may reach a newer server; so this value never changes."""
    content = b'["u1","view","v1",null,1764143102995,1,null,null,null,null,null,null]'
    assert event_id(SEEN) == "c-" + hashlib.sha256(content).hexdigest()[:32]
    assert event_id(SEEN) == "c-4a57a553f92836047f060cac31b8af92"


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "u2"},
        {"type": NOT_INTERESTED},
        {"video_id": "v2"},
        {"creator_id": "c1"},
        {"time_ms": NOW - 6},
        {"positive": False},
        {"watched": 0.0},
        {"labels": {"like": False}},
        {"context": {"tab": "1"}},
        {"impression_id": "i1"},
        {"version": "1"},
    ],
)
def test_another_content_is_another_event(change: dict[str, Any]) -> None:
    assert event_id(replace(SEEN, **change)) != event_id(SEEN)


def test_the_same_content_is_the_same_event_however_it_is_written_and_whenever_it_comes() -> None:
    written = replace(SEEN, labels={"a": True, "b": False}, watched=3.0, user_id="5")
    again = replace(SEEN, labels={"b": False, "a": True}, watched=3, user_id=5)  # type: ignore[arg-type]
    assert event_id(written) == event_id(again, NOW + 99 * DAY_MS)
    assert event_id(replace(SEEN, positive=True)) == event_id(SEEN)  # what a view is without it


def test_without_a_time_a_retry_is_known_for_a_minute_at_least() -> None:
    event = replace(SEEN, time_ms=None)
    minute = NOW // 60_000 * 60_000
    (first, _), (later, second_id) = to_row(event, minute + 59_999), to_row(event, minute + 60_000)
    assert second_id == first["event_id"] != later["event_id"]
    assert to_row(event, minute)[0]["event_id"] == first["event_id"]
    assert to_row(event, minute + 120_000)[1] != first["event_id"]


TIMES = {
    "now": (NOW, NOW),
    "late by a year": (NOW - 365 * DAY_MS, NOW - 365 * DAY_MS),
    "a clock that runs 3 s ahead": (NOW + 3000, NOW),
    "a day ahead": (NOW + DAY_MS, NOW),
    "the first that can be": (FIRST_MS, FIRST_MS),
    "none": (None, NOW),
}


@pytest.mark.parametrize("case", TIMES)
def test_an_event_counts_at_its_time_or_when_it_was_received(case: str) -> None:
    given, counts = TIMES[case]
    row, _ = to_row(replace(SEEN, time_ms=given), NOW)
    assert (row["given_ms"], row["received_ms"], row["time_ms"]) == (given, NOW, counts)


WRONG_TIMES = {
    "seconds": (NOW // 1000, "these are seconds; send milliseconds"),
    "microseconds": (NOW * 1000, "these are microseconds; send milliseconds"),
    "nanoseconds": (NOW * 10**6, "these are nanoseconds; send milliseconds"),
    "zero": (0, "before 2000; check the sender's clock"),
    "a missing time cast": (-(2**63), "before 2000"),
    "1999": (FIRST_MS - 1, "before 2000"),
    "over a day ahead": (NOW + DAY_MS + 1, "more than a day ahead; check the sender's clock"),
    "a year ahead": (NOW + 365 * DAY_MS, "more than a day ahead"),
    "the year 9999": (253_402_300_799_999, "more than a day ahead"),
    "huge": (10**400, "time_ms=a very large integer: more than a day ahead"),
}


@pytest.mark.parametrize("case", WRONG_TIMES)
def test_a_time_that_cannot_be_is_refused_with_the_servers(case: str) -> None:
    value, message = WRONG_TIMES[case]
    with pytest.raises(InputError) as refused:
        check_time(value, NOW)
    assert message in str(refused.value)
    assert f"the server's time is {NOW} (2025-11-26T07:45:03Z)" in str(refused.value)


WRONG = {
    "type": ({"type": "click"}, "type='click': allowed are exposure, view, task, not_interested"),
    "type of another kind": ({"type": ["view"]}, "type=['view']: allowed are"),
    "no video": ({"video_id": None}, "video_id: an event of type view needs it; add it"),
    "no creator": ({"type": HIDE_CREATOR}, "creator_id: an event of type hide_creator needs it"),
    "no labels": ({"type": TASK}, "labels: an event of type task needs it"),
    "watched nothing": (
        {"type": EXPOSURE, "watched": 1.0},
        "watched: an event of type exposure has none; leave it out, or send it with type view",
    ),
    "place": (
        {"place": 1},
        "place: an event of type view has none; leave it out, or send it with ",
    ),
    "negative place": ({"type": EXPOSURE, "place": -1}, "place=-1: must be an integer from 0 to"),
    "true place": ({"type": EXPOSURE, "place": True}, "place=True: must be an integer"),
    "watched NaN": ({"watched": float("nan")}, "watched=nan: must be a number from 0 to 1e+15"),
    "watched infinite": ({"watched": float("inf")}, "watched=inf: must be a number"),
    "watched negative": ({"watched": -1}, "watched=-1: must be a number"),
    "watched text": ({"watched": "3"}, "watched='3': must be a number"),
    "watched huge": ({"watched": 10**400}, "watched=a very large integer: must be a number"),
    "label": ({"labels": {"like": 1}}, "labels.like=1: must be true or false"),
    "labels": ({"labels": ["like"]}, "labels=['like']: must be a mapping"),
    "positive": ({"positive": 1}, "positive=1: must be true or false"),
    "context": ({"context": {"tab": None}}, "context.tab=None: must be text or an integer"),
    "time as text": ({"time_ms": "now"}, "time_ms='now': must be an integer"),
    "time as a fraction": ({"time_ms": 1.5}, "time_ms=1.5: must be an integer"),
    "time true": ({"time_ms": True}, "time_ms=True: must be an integer"),
    "version": ({"version": 3}, "version=3: must be text"),
    "empty id": ({"event_id": ""}, "event_id='': has 0 characters"),
    "half a character": ({"video_id": "\ud83d"}, "video_id='\\ud83d': half of a character"),
    "NUL in a context": ({"context": {"tab": "\0"}}, "context.tab='\\x00': a NUL character"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_one_line(case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(InputError) as refused:
        to_row(replace(SEEN, **change), NOW)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("event", "positive"),
    [
        (Event("u", EXPOSURE, "v"), 0),
        (Event("u", VIEW, "v"), 1),
        (Event("u", VIEW, "v", positive=False), 0),
        (Event("u", TASK, "v", labels={"like": True, "share": False}), 1),
        (Event("u", TASK, "v", labels={"like": False}), 0),
        (Event("u", NOT_INTERESTED, "v"), 0),
        (Event("u", HIDE_CREATOR, creator_id="c"), 0),
    ],
)
def test_what_is_positive_without_being_told(event: Event, positive: int) -> None:
    assert to_row(event, NOW)[0]["positive"] == positive
