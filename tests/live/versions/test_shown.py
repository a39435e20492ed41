"""What was shown lately: click rates by version and span, and when each video was first shown."""

import pytest

import recsys.live.versions.shown as shown_lately
from recsys.config.data import EventColumns
from recsys.live.log.event import EXPOSURE, NOT_INTERESTED, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.versions.shown import SPAN_MS, ShownFollower
from tests.live.conftest import NOW

COLUMNS = EventColumns(positive="liked")
SPAN = NOW - NOW % SPAN_MS - SPAN_MS
"""The begin of a span that is over."""


def exposure(video_id: str, time_ms: int, version: str | None = "v1", user: str = "u") -> Event:
    named = f"{version}.{user}{video_id}{time_ms}" if version else None
    return Event(user, EXPOSURE, video_id, time_ms=time_ms, impression_id=named)


def click(shown: Event, kind: str = VIEW) -> Event:
    return Event(
        shown.user_id,
        kind,
        shown.video_id,
        time_ms=shown.time_ms + 1000,
        impression_id=shown.impression_id,
    )


def spans(follower: ShownFollower) -> dict[str, dict[int, list[int]]]:
    return {version: rates.spans for version, rates in follower.rates.items()}


def test_a_click_counts_in_the_span_in_which_its_video_was_shown(log: EventLog) -> None:
    late = exposure("a", SPAN - 1)
    log.append([late, exposure("b", SPAN), exposure("c", SPAN + 5, "v2"), click(late)])
    follower = ShownFollower(log, COLUMNS)
    follower.catch_up()
    assert spans(follower) == {
        "v1": {SPAN - SPAN_MS: [1, 1], SPAN: [1, 0]},
        "v2": {SPAN: [1, 0]},
    }
    assert (follower.rates["v1"].first_ms, follower.rates["v2"].first_ms) == (SPAN - 1, SPAN + 5)
    log.append([click(late, NOT_INTERESTED), exposure("b", SPAN + 1)])
    follower.catch_up()
    assert spans(follower)["v1"] == {SPAN - SPAN_MS: [1, 0], SPAN: [2, 0]}


def test_when_a_video_was_first_shown(log: EventLog) -> None:
    log.append([exposure("a", SPAN + 7), exposure("a", SPAN + 9), Event("u", VIEW, "b")])
    follower = ShownFollower(log, COLUMNS)
    assert follower.since_ms is None
    follower.catch_up()
    assert follower.first_shown_ms("a") == SPAN + 7
    assert follower.first_shown_ms("b") is None
    assert follower.since_ms is not None


def test_what_was_deleted_is_not_counted_any_more(log: EventLog) -> None:
    log.append([exposure("a", SPAN, user="gone"), exposure("a", SPAN, user="stays")])
    follower = ShownFollower(log, COLUMNS)
    follower.catch_up()
    assert spans(follower) == {"v1": {SPAN: [2, 0]}}
    log.forget("gone")
    log.append([exposure("b", SPAN)])
    follower.catch_up()
    assert spans(follower) == {"v1": {SPAN: [2, 0]}}
    again = ShownFollower(log, COLUMNS)
    again.catch_up()
    assert spans(again) == spans(follower)


def test_of_a_long_log_the_last_part_is_read(log: EventLog) -> None:
    log.append([exposure(video, SPAN) for video in "abc"])
    follower = ShownFollower(log, COLUMNS, entries=2)
    follower.catch_up()
    assert spans(follower) == {"v1": {SPAN: [2, 0]}}
    assert follower.first_shown_ms("a") is None


def test_what_names_no_version_or_too_many_is_left_out_and_counted(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_lately, "MOST_VERSIONS", 1)
    monkeypatch.setattr(shown_lately, "MOST_VIDEOS", 2)
    log.append(
        [exposure("a", SPAN), exposure("b", SPAN, None), exposure("c", SPAN, "v2")],
    )
    follower = ShownFollower(log, COLUMNS)
    follower.catch_up()
    assert (list(follower.rates), follower.left_out) == (["v1"], 2)
    assert [follower.first_shown_ms(video) for video in "abc"] == [None, SPAN, SPAN]


def test_only_the_last_spans_are_kept(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_lately, "SPANS", 2)
    log.append([exposure("a", SPAN - n * SPAN_MS) for n in (2, 1, 0)])
    follower = ShownFollower(log, COLUMNS)
    follower.catch_up()
    assert sorted(follower.rates["v1"].spans) == [SPAN - SPAN_MS, SPAN]
