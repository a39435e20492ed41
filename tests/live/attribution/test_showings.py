"""Which events make one row of training data."""

from typing import Any

from recsys.live.attribution.showings import Showing, showings
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import DAY_MS, EXPOSURE, HIDE_CREATOR, NOT_INTERESTED, TASK, VIEW, Event
from tests.live.conftest import NOW


def at(time_s: int, kind: str, video_id: str | None = "v", **more: Any) -> LoggedEvent:
    more.setdefault("positive", kind == VIEW)
    event = Event("u", kind, video_id, time_ms=NOW + time_s * 1000, **more)
    return LoggedEvent(0, event, NOW, NOW)


def times(shown: list[Showing]) -> list[int]:
    return [((showing.first.time_ms or 0) - NOW) // 1000 for showing in shown]


def test_an_exposure_its_view_and_its_like_are_one_row() -> None:
    (showing,) = showings(
        [
            at(0, EXPOSURE, context={"tab": "1"}),
            at(5, VIEW, watched=4.0, context={"tab": "2", "device": "tv"}),
            at(6, TASK, labels={"like": True}, positive=True),
        ]
    )
    assert times([showing]) == [0]
    assert (showing.positive, showing.watched, showing.labels) == (True, 4.0, {"like": True})
    assert showing.context == {"tab": "1", "device": "tv"}


def test_an_exposure_that_came_to_nothing_is_a_row() -> None:
    (showing,) = showings([at(0, EXPOSURE)])
    assert (showing.positive, showing.watched, showing.labels) == (False, None, {})


def test_views_without_exposures_are_rows_of_their_own() -> None:
    assert times(showings([at(0, VIEW), at(1, VIEW, "w"), at(2, VIEW)])) == [0, 1, 2]


def test_a_second_view_of_one_exposure_is_another_showing() -> None:
    shown = showings([at(0, EXPOSURE), at(1, VIEW), at(9, VIEW)])
    assert times(shown) == [0, 9]


def test_views_that_name_their_impression_are_told_apart_and_may_tell_of_progress() -> None:
    shown = showings(
        [
            at(0, EXPOSURE, impression_id="a"),
            at(1, EXPOSURE, impression_id="b"),
            at(2, VIEW, impression_id="a", watched=2.0),
            at(3, VIEW, impression_id="a", watched=5.0),
            at(4, VIEW, impression_id="a", watched=1.0),
        ]
    )
    assert times(shown) == [0, 1]
    assert [showing.watched for showing in shown] == [5.0, None]


def test_an_exposure_may_be_later_than_the_view_that_names_it() -> None:
    """The phone's clock is slow; the exposure has the server's time."""
    shown = showings([at(0, VIEW, impression_id="a"), at(2, EXPOSURE, impression_id="a")])
    assert times(shown) == [2]
    assert shown[0].positive


def test_one_impression_shows_many_videos() -> None:
    shown = showings(
        [
            at(0, EXPOSURE, "v", impression_id="a"),
            at(0, EXPOSURE, "w", impression_id="a"),
            at(1, VIEW, "w", impression_id="a"),
        ]
    )
    assert [showing.positive for showing in shown] == [False, True]


def test_what_comes_over_a_day_later_stands_alone() -> None:
    day = DAY_MS // 1000
    assert times(showings([at(0, EXPOSURE), at(day, VIEW)])) == [0]
    assert times(showings([at(0, EXPOSURE), at(day + 1, VIEW)])) == [0, day + 1]


def test_the_last_word_counts() -> None:
    (undone,) = showings(
        [at(0, VIEW), at(1, TASK, labels={"like": True}), at(2, TASK, labels={"like": False})]
    )
    assert (undone.positive, undone.labels) == (True, {"like": False})
    (disliked,) = showings([at(0, VIEW), at(1, NOT_INTERESTED), at(2, TASK, labels={"x": True})])
    assert (disliked.positive, disliked.not_interested) == (False, True)


def test_an_event_without_a_video_is_no_showing() -> None:
    assert showings([at(0, HIDE_CREATOR, None, creator_id="c")]) == []
    assert showings([]) == []
