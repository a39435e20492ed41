from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest

from recsys.features.counts import CountLayout, EventCounts
from recsys.features.current import CurrentFeatures
from tests.features.test_counts import HOUR, catalog, counts

NOW = 100
VIDEOS = np.array([2, 1, 2, 3, 50])
TABS = np.array([[1], [2], [0], [1], [9]])


@pytest.fixture
def known() -> EventCounts:
    """Videos 1, 2 and 3 and tabs 1 and 2, with events in hours 70 and 98."""
    things = {
        "video": counts([1, 2, 3], [70, 98, 98], [[10, 10], [20, 5], [3, 1]]),
        "context_tab": counts([2, 1], [70, 98], [[10, 10], [23, 6]]),
    }
    return EventCounts.of(catalog(), CountLayout((), ("tab",)), things)


@contextmanager
def made_rows() -> Iterator[list[list[int]]]:
    """The videos whose features are made, a list a call."""
    calls: list[list[int]] = []
    whole = EventCounts.video_features

    def watched(self: EventCounts, rows: np.ndarray, hours: np.ndarray) -> np.ndarray:
        calls.append(rows.tolist())
        return whole(self, rows, hours)

    with patch.object(EventCounts, "video_features", watched):
        yield calls


def same(current: CurrentFeatures, known: EventCounts, hour: int = NOW) -> bool:
    found = current.features(VIDEOS, TABS, hour * HOUR + 5)
    return np.array_equal(found, known.features(VIDEOS, TABS, hour * HOUR))


def test_they_are_those_of_the_counts_and_made_once(known: EventCounts) -> None:
    current = CurrentFeatures(known)
    with made_rows() as made:
        first = current.features(VIDEOS, TABS, NOW * HOUR)
        again = current.features(VIDEOS[:2], TABS[:2], NOW * HOUR + HOUR - 1)
        current.features(np.array([1, 7]), TABS[:2], np.full(2, NOW * HOUR))
    assert [rows for rows in made if rows] == [[1, 2, 3, 50], [7]]
    assert first.any() and np.array_equal(first, known.features(VIDEOS, TABS, NOW * HOUR))
    assert np.array_equal(again, first[:2])


def test_an_event_of_the_hour_changes_nothing_until_it_turns(known: EventCounts) -> None:
    current = CurrentFeatures(known)
    before = current.features(VIDEOS, TABS, NOW * HOUR)
    known.count(2, [1], NOW * HOUR, [1])
    with made_rows() as made:
        assert np.array_equal(current.features(VIDEOS, TABS, NOW * HOUR), before)
    assert not made
    assert same(current, known, NOW + 1)
    assert not np.array_equal(current.features(VIDEOS, TABS, (NOW + 1) * HOUR), before)


def test_a_late_event_changes_all_that_it_touches_at_once(known: EventCounts) -> None:
    """Of everything it changes the rates, and so the features of all videos."""
    current = CurrentFeatures(known)
    before = current.features(VIDEOS, TABS, NOW * HOUR)
    known.count(2, [1], (NOW - 1) * HOUR, [1])
    assert same(current, known)
    assert not np.array_equal(current.features(VIDEOS, TABS, NOW * HOUR), before)


def test_an_hour_older_than_the_ring_changes_with_every_event(known: EventCounts) -> None:
    """500 hours later what is known of hour 110 are two points, and the far one rises."""
    current = CurrentFeatures(known)
    known.count_many(
        np.full(1000, 2), np.full((1000, 1), 1), np.full(1000, 102 * HOUR), np.ones((1000, 1), int)
    )
    known.count(1, [1], 600 * HOUR, [1])
    assert same(current, known, 110)
    for _ in range(60):
        known.count(1, [1], 102 * HOUR, [1])
        assert same(current, known, 110)


def test_hours_that_differ_and_no_events(known: EventCounts) -> None:
    current = CurrentFeatures(known)
    times = np.array([71, 99, 100, 5, 100]) * HOUR
    found = current.features(VIDEOS, TABS, times)
    assert np.array_equal(found, known.features(VIDEOS, TABS, times))
    nothing = np.zeros(0, np.int64)
    assert current.features(nothing, nothing.reshape(0, 1), nothing).shape == (0, 18)


@pytest.mark.parametrize("num_rows", [3, 4])
def test_few_rows_are_held(known: EventCounts, num_rows: int) -> None:
    """Of three; a fourth makes the table start anew, and four at once are made each time."""
    current = CurrentFeatures(known, held_rows=3)
    rows, tabs = np.arange(1, num_rows + 1), np.zeros((num_rows, 1), np.int64)
    with made_rows() as made:
        for asked in (rows[:3], rows[-1:], rows[:3], rows, rows):
            found = current.features(asked, tabs[: len(asked)], NOW * HOUR)
            assert found.shape == (len(asked), 18)
    fourth = [[1, 2, 3], [4], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert [rows for rows in made if rows] == ([[1, 2, 3]] if num_rows == 3 else fourth)
    expected = known.features(rows, tabs, NOW * HOUR)
    assert np.array_equal(current.features(rows, tabs, NOW * HOUR), expected)
