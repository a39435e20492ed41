"""What comes of a challenge: what is counted of it, and what is left out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Row

from recsys.config.data import EventColumns
from recsys.live.log.event import EXPOSURE, NOT_INTERESTED, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.versions import challenger
from recsys.live.versions.challenger import ChallengeFollower, ChallengeResult
from recsys.live.versions.click_rates import Totals
from recsys.live.versions.watch import Challenge
from tests.live.conftest import NOW

CHALLENGE = Challenge("v2", against="v1", share=0.5, since_ms=NOW)
COLUMNS = EventColumns(positive="liked")
NEW = [f"u{i}" for i in range(50) if CHALLENGE.takes(f"u{i}")]
OLD = [f"u{i}" for i in range(50) if not CHALLENGE.takes(f"u{i}")]


def shown(user_id: str, version: str, video_id: str = "a") -> Event:
    number = f"{version}.{user_id}{video_id}"
    return Event(user_id, EXPOSURE, video_id, time_ms=NOW - 1000, impression_id=number)


def clicked(user_id: str, version: str, video_id: str = "a", kind: str = VIEW) -> Event:
    number = f"{version}.{user_id}{video_id}"
    return Event(user_id, kind, video_id, time_ms=NOW - 500, impression_id=number)


def follower(log: EventLog, after_seq: int = 0) -> ChallengeFollower:
    return ChallengeFollower(log, replace(CHALLENGE, since_seq=after_seq), columns=COLUMNS)


def figures(result: ChallengeResult) -> list[tuple[int, int, int]]:
    return [(t.users, t.impressions, t.clicks) for t in (result.challenger, result.champion)]


def test_impressions_and_their_clicks_are_counted_by_version(log: EventLog) -> None:
    log.append(
        [
            *(shown(NEW[0], "v2", video) for video in "abc"),
            clicked(NEW[0], "v2", "b"),
            clicked(NEW[0], "v2", "b"),
            shown(NEW[1], "v2"),
            shown(OLD[0], "v1"),
            clicked(OLD[0], "v1"),
        ]
    )
    result = follower(log).compare()
    assert figures(result) == [(2, 4, 1), (1, 1, 1)]
    assert (result.crossed, result.unnamed, result.unmatched) == (0, 0, 0)
    assert result.difference is not None
    assert result.difference.value == pytest.approx(1 / 4 - 1)


def test_what_comes_later_is_added(log: EventLog) -> None:
    counted = follower(log)
    assert figures(counted.compare()) == [(0, 0, 0), (0, 0, 0)]
    assert counted.compare().difference is None
    log.append([shown(NEW[0], "v2")])
    assert figures(counted.compare()) == [(1, 1, 0), (0, 0, 0)]
    log.append([clicked(NEW[0], "v2"), shown(NEW[0], "v2", "b")])
    assert figures(counted.compare()) == [(1, 2, 1), (0, 0, 0)]
    log.append([clicked(NEW[0], "v2", kind=NOT_INTERESTED)])
    assert figures(counted.compare()) == [(1, 2, 0), (0, 0, 0)]


def test_what_is_left_out_is_counted(log: EventLog) -> None:
    log.append(
        [
            shown(NEW[0], "v1"),
            clicked(NEW[0], "v1"),
            shown(OLD[0], "v2"),
            Event(OLD[1], EXPOSURE, "a", time_ms=NOW),
            Event(OLD[2], VIEW, "a", time_ms=NOW),
            clicked(OLD[3], "v1"),
        ]
    )
    result = follower(log).compare()
    assert figures(result) == [(0, 0, 0), (0, 0, 0)]
    assert (result.crossed, result.unnamed, result.unmatched) == (2, 1, 1)


def test_what_was_before_the_challenge_is_no_part_of_it(log: EventLog) -> None:
    log.append([shown(OLD[0], "v1")])
    began = log.latest_seq()
    log.append([clicked(OLD[0], "v1"), shown(OLD[1], "v1")])
    result = follower(log, began).compare()
    assert figures(result) == [(0, 0, 0), (1, 1, 0)]
    assert result.unmatched == 1


@pytest.mark.parametrize("follows", [True, False])
def test_a_user_who_was_deleted_is_in_no_figure(log: EventLog, follows: bool) -> None:
    counted = follower(log)
    log.append([shown(NEW[0], "v2"), shown(NEW[1], "v2"), clicked(NEW[1], "v2")])
    if follows:
        assert figures(counted.compare()) == [(2, 2, 1), (0, 0, 0)]
    log.forget(NEW[1])
    log.append([shown(OLD[0], "v1")])
    assert figures(counted.compare()) == [(1, 1, 0), (1, 1, 0)]


def test_what_was_deleted_before_it_is_read_is_no_reason_to_read_again(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([shown(NEW[0], "v2"), shown(NEW[1], "v2")])
    log.forget(NEW[1])
    log.append([shown(OLD[0], "v1")])
    rows_after, read = log.rows_after, []

    def noted(*asked: int, **more: int) -> Sequence[Row[Any]]:
        rows = rows_after(*asked, **more)
        read.extend(row.seq for row in rows)
        return rows

    monkeypatch.setattr(log, "rows_after", noted)
    assert figures(follower(log).compare()) == [(1, 1, 0), (1, 1, 0)]
    assert read == sorted(set(read))


def test_a_version_whose_users_do_not_come_is_told_of(log: EventLog) -> None:
    # 15 of the challenger's and none of the others: χ² = 15, p = 0.0001.
    log.append([shown(user, "v2") for user in NEW[:15]])
    result = follower(log).compare()
    assert result.is_mismatched and result.sample_ratio_p == pytest.approx(0.000108, rel=0.01)
    log.append([shown(user, "v1") for user in OLD[:15]])
    assert not follower(log).compare().is_mismatched


def many() -> tuple[list[Event], dict[str, tuple[int, int]]]:
    """Events of 400 users, with the impressions and clicks of each: every 4th user clicks twice."""
    events, counts = [], {}
    for i in range(400):
        user, clicks = f"user {i}", 2 * (i % 4 == 0)
        version = "v2" if CHALLENGE.takes(user) else "v1"
        videos = [str(number) for number in range(1 + i % 3 + clicks)]
        events += [shown(user, version, video) for video in videos]
        events += [clicked(user, version, video) for video in videos[:clicks]]
        counts[user] = (len(videos), clicks)
    return events, counts


@pytest.mark.parametrize("at_once", [True, False])
def test_of_too_many_users_some_are_counted_by_lot(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Whole users are left out, so that nothing of them is in any sum, whenever they come."""
    events, counts = many()
    every = follower(log)
    monkeypatch.setattr(challenger, "MOST_USERS", 150)
    some = follower(log)
    for part in [events] if at_once else [events[:500], events[500:], events[:300]]:
        log.append(part)
        result = some.compare()
    of_users = some._counts.of_users
    assert 50 < len(of_users) <= 150 and result.counted_share in (0.5, 0.25)
    for is_new, totals in ((True, result.challenger), (False, result.champion)):
        expected = Totals()
        for user in of_users:
            if CHALLENGE.takes(user) == is_new:
                expected.add(*counts[user])
        assert totals == expected
    assert result.sample_ratio_p is not None and result.sample_ratio_p > 0.001
    assert (result.crossed, result.unnamed, result.unmatched) == (0, 0, 0)
    monkeypatch.undo()
    whole = every.compare()
    assert whole.counted_share == 1 and whole.challenger.users + whole.champion.users == 400
    part_rate, rate = result.champion.rate(), whole.champion.rate()
    assert part_rate is not None and rate is not None
    assert part_rate.interval.low < rate.value < part_rate.interval.high
    width, wide = (one.interval.high - one.interval.low for one in (rate, part_rate))
    assert wide > 1.2 * width, "as fewer users tell less"
