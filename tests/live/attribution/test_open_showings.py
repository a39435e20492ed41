"""Event by event, the log's showings add up to what is made of a user's whole past."""

from collections import Counter

import numpy as np
import pytest

from recsys.config.data import EventColumns
from recsys.live.attribution.open_showings import OpenShowings
from recsys.live.attribution.outcomes import outcome
from recsys.live.attribution.showings import showings
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import EXPOSURE, NOT_INTERESTED, TASK, VIEW, Event

LIKED = EventColumns(positive="liked", tasks=("liked", "shared"), watched="seconds")
VIEWED = EventColumns(tasks=("shared",))
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def logged(seq: int, type_: str, video: str = "v1", **fields: object) -> LoggedEvent:
    """An event as the log gives it back, one minute after the one before."""
    labels = fields.pop("labels", {})
    time_ms = int(fields.pop("time_ms", START_MS + seq * 60_000))  # type: ignore[call-overload]
    positive = bool(fields.pop("positive", type_ == VIEW or any(labels.values())))  # type: ignore[attr-defined]
    event = Event("u1", type_, video, time_ms=time_ms, positive=positive, labels=labels, **fields)  # type: ignore[arg-type]
    return LoggedEvent(seq, event, time_ms, time_ms)


def test_an_exposure_its_view_and_its_like_are_one_event() -> None:
    taken = OpenShowings(LIKED)
    shown = taken.take(logged(1, EXPOSURE, impression_id="i"))
    assert shown is not None and (shown.events, shown.flags) == (1, (0, 0, 0))
    passed = logged(2, VIEW, positive=False, impression_id="i")
    assert taken.take(passed) is None, "nothing came of it"
    liked = taken.take(logged(3, TASK, labels={"liked": True}, impression_id="i"))
    assert liked is not None and (liked.events, liked.flags) == (0, (1, 1, 0))
    assert liked.showing.time_ms == START_MS + 60_000, "counted in the hour of the showing"
    undone = taken.take(logged(4, TASK, labels={"liked": False}, impression_id="i"))
    assert undone is not None and (undone.events, undone.flags) == (0, (-1, -1, 0))


@pytest.mark.parametrize("columns", [LIKED, VIEWED])
def test_an_exposure_that_is_told_after_what_came_of_it_is_no_event_more(
    columns: EventColumns,
) -> None:
    """A sender that gathers exposures and tells of a like at once; training has one row of it."""
    like = logged(1, TASK, labels={"shared": True}, impression_id="i", time_ms=START_MS + 500)
    shown = logged(2, EXPOSURE, impression_id="i", time_ms=START_MS)
    taken = OpenShowings(columns)
    changes = [change for one in (like, shown) if (change := taken.take(one)) is not None]
    (made,) = showings(sorted((like, shown), key=lambda one: one.event.time_ms or 0))
    assert sum(change.events for change in changes) == 1
    came_of_it = outcome(made, columns)
    assert came_of_it is not None
    gained = np.sum([change.flags for change in changes], 0).tolist()
    assert gained == [int(flag) for flag in (came_of_it.positive, *came_of_it.labels)]
    again = taken.take(logged(3, EXPOSURE, impression_id="j", time_ms=START_MS + 900))
    assert (again is None) == (columns is VIEWED), "another impression is another showing"


def test_where_every_row_is_a_viewing_an_exposure_is_none() -> None:
    taken = OpenShowings(VIEWED)
    assert taken.take(logged(1, EXPOSURE)) is None
    viewed = taken.take(logged(2, VIEW))
    assert viewed is not None and (viewed.events, viewed.flags) == (1, (1, 0))
    taken_back = taken.take(logged(3, NOT_INTERESTED))
    assert taken_back is not None and (taken_back.events, taken_back.flags) == (0, (-1, 0))


def test_a_second_viewing_and_one_a_day_later_are_events_of_their_own() -> None:
    taken = OpenShowings(VIEWED)
    changes = [taken.take(logged(seq, VIEW)) for seq in (1, 2)]
    late = taken.take(logged(3, TASK, labels={"shared": True}, time_ms=START_MS + 30 * HOUR_MS))
    assert [change and change.events for change in (*changes, late)] == [1, 1, 1]


def test_what_comes_of_a_showing_is_counted_where_it_was_shown() -> None:
    taken = OpenShowings(LIKED)
    taken.take(logged(1, EXPOSURE, impression_id="i", context={"tab": "home"}))
    seen = {"impression_id": "i", "watched": 3.0, "context": {"tab": "other"}}
    taken.take(logged(2, VIEW, positive=False, **seen))
    liked = taken.take(logged(3, TASK, labels={"liked": True}, impression_id="i"))
    assert liked is not None
    first = liked.showing
    assert (first.user_id, first.video_id, first.type) == ("u1", "v1", EXPOSURE)
    assert (first.context, first.impression_id) == ({"tab": "home"}, "i")


def test_ids_that_read_alike_side_by_side_are_kept_apart() -> None:
    taken = OpenShowings(VIEWED)
    for user_id, video_id in (("a", "bc"), ("ab", "c")):
        event = Event(user_id, VIEW, video_id, time_ms=START_MS, positive=True)
        change = taken.take(LoggedEvent(1, event, START_MS, START_MS))
        assert change is not None and change.events == 1


def test_memory_is_bounded() -> None:
    taken = OpenShowings(VIEWED, capacity=10)
    for seq in range(100):
        taken.take(logged(seq, VIEW, f"v{seq}"))
    assert len(taken) == 10


def storm(seed: int, task: str) -> list[LoggedEvent]:
    """One user's events on three videos, in the order of their times."""
    rng = np.random.default_rng(seed)
    events: list[LoggedEvent] = []
    shown: list[tuple[str, str]] = []
    for seq in range(1, 60):
        type_ = str(rng.choice([EXPOSURE, VIEW, VIEW, TASK, NOT_INTERESTED]))
        video = f"v{rng.integers(3)}"
        fields: dict[str, object] = {"time_ms": START_MS + seq * 2 * HOUR_MS}
        if type_ == EXPOSURE:
            fields["impression_id"] = f"i{seq}"
            shown.append((video, f"i{seq}"))
        elif shown and rng.random() < 0.4:
            video, fields["impression_id"] = shown[-1 - int(rng.integers(min(2, len(shown))))]
        if type_ == TASK:
            fields["labels"] = {task: bool(rng.random() < 0.7)}
        events.append(logged(seq, type_, video, **fields))
    return events


def summed(events: list[LoggedEvent], columns: EventColumns) -> Counter[tuple[object, ...]]:
    """What the changes add up to, by video, time and number."""
    taken = OpenShowings(columns)
    counted: Counter[tuple[object, ...]] = Counter()
    for event in events:
        change = taken.take(event)
        if change is not None:
            key = (change.showing.video_id, change.showing.time_ms)
            counted.update({(*key, "events"): change.events})
            for place, gain in enumerate(change.flags):
                counted.update({(*key, place): gain})
    return counted


@pytest.mark.parametrize("columns", [LIKED, VIEWED])
@pytest.mark.parametrize("seed", range(20))
def test_adds_up_to_the_showings_of_the_whole_past(columns: EventColumns, seed: int) -> None:
    events = storm(seed, columns.tasks[-1])
    counted = summed(events, columns)
    expected: Counter[tuple[object, ...]] = Counter()
    for showing in showings(events):
        came_of_it = outcome(showing, columns)
        key = (showing.first.video_id, showing.first.time_ms)
        if came_of_it is not None or (*key, "events") in counted:
            expected[(*key, "events")] += 1
        if came_of_it is not None:
            for place, flag in enumerate((came_of_it.positive, *came_of_it.labels)):
                expected[(*key, place)] += int(flag)
    assert +counted == +expected
    assert not -counted
