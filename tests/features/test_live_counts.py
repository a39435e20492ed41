import threading

import numpy as np
import pytest

from recsys.features.live_counts import RING_HOURS, LiveCounts

BASE_END = 1000
NOW = 1200
"""The ring's oldest hour is then 1153."""


def live(*events: tuple[int, int, int], base_end: int = BASE_END) -> LiveCounts:
    """Of (row, hour, number of events), half of them liked."""
    found = LiveCounts(2, base_end)
    for event in events:
        add(found, [event])
    return found


def add(counts: LiveCounts, events: list[tuple[int, int, int]]) -> None:
    rows, hours, numbers = np.array(events).T
    counts.add(rows, hours, np.stack([numbers, numbers // 2], 1))


def totals(counts: LiveCounts, row: int, hours: list[int]) -> list[int]:
    found = counts.before(np.full(len(hours), row), np.array(hours))
    assert found[:, 1].tolist() == [number // 2 for number in found[:, 0].tolist()]
    return [int(number) for number in found[:, 0]]


def test_within_the_last_48_hours_totals_are_exact() -> None:
    """4 events in the newest hour, 2 the hour before, 6 in the ring's oldest hour."""
    found = live((3, NOW, 4), (3, NOW - 1, 2), (3, NOW - 47, 6))
    assert found.oldest == NOW - 47
    hours = [NOW - 47, NOW - 46, NOW - 1, NOW, NOW + 1, NOW + 500]
    assert totals(found, 3, hours) == [0, 6, 6, 8, 12, 12]
    assert totals(found, 2, hours) == totals(found, 400, hours) == [0] * 6, "rows without events"


def test_an_hour_leaves_the_ring_and_stays_in_the_total() -> None:
    found = live((3, NOW - 47, 6), (3, NOW, 4))
    add(found, [(5, NOW + 1, 2)])
    assert found.oldest == NOW - 46
    assert totals(found, 3, [NOW - 46, NOW, NOW + 1]) == [6, 6, 10]
    add(found, [(5, NOW + 48, 2)])
    assert totals(found, 3, [NOW + 1, NOW + 48]) == [10, 10]
    assert totals(found, 5, [NOW + 1, NOW + 2, NOW + 48, NOW + 49]) == [0, 2, 2, 4]


def test_a_late_event_counts_in_its_hour_and_an_older_one_in_the_total() -> None:
    found = live((3, NOW, 4), (3, NOW - 10, 2), (3, NOW - 48, 8))
    assert totals(found, 3, [NOW - 47, NOW - 10, NOW - 9, NOW + 1]) == [8, 8, 10, 14]


def test_before_the_ring_totals_grow_evenly_from_the_first_event_on() -> None:
    """100 events in hour 1053, 100 hours before the ring's oldest: one an hour; 2 in the ring."""
    found = live((3, 1053, 100), (3, NOW, 2))
    assert totals(found, 3, [900, 1053, 1054, 1103, 1152, 1153, NOW + 1]) == [
        *(0, 0, 1, 50, 99, 100),
        102,
    ]


def test_nothing_live_happened_before_the_base_ends() -> None:
    """Late events of hours that the base has: 153 hours lie between its end and the ring."""
    found = live((3, 500, 306), (3, NOW, 2))
    assert totals(found, 3, [600, 1000, 1001, 1010, 1152, 1153]) == [0, 0, 2, 20, 304, 306]


def test_a_base_that_ends_in_the_ring_leaves_nothing_to_guess() -> None:
    found = live((3, NOW - 60, 10), (3, NOW, 2), base_end=NOW - 20)
    assert totals(found, 3, [0, NOW - 48, NOW - 47, NOW, NOW + 1]) == [0, 0, 10, 10, 12]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_and_the_grouping_of_events_do_not_matter(seed: int) -> None:
    """Also where hours pass between, and late ones come: the same numbers for every row and hour,
    and those of counting by hand where they are exact."""
    rng = np.random.default_rng(seed)
    num = 400
    rows, hours = rng.integers(0, 30, num), NOW - rng.geometric(0.02, num)
    counts = rng.integers(0, 5, (num, 3))
    asked = np.arange(900, NOW + 5)
    one_call = LiveCounts(3, BASE_END)
    one_call.add(rows, hours, counts)
    shuffled, order = LiveCounts(3, BASE_END), rng.permutation(num)
    for part in np.array_split(order, 60):
        shuffled.add(rows[part], hours[part], counts[part])
    assert shuffled.oldest == one_call.oldest == hours[rows > 0].max() - 47
    for row in range(35):
        ours, theirs = (c.before(np.full(len(asked), row), asked) for c in (one_call, shuffled))
        assert np.array_equal(ours, theirs)
        assert (np.diff(ours, axis=0) >= 0).all(), "totals never fall"
        for hour, found in zip(asked, ours, strict=True):
            if hour >= one_call.oldest:
                expected = counts[(rows == row) & (hours < hour) & (row > 0)].sum(0)
                assert found.tolist() == expected.tolist()


def test_memory_follows_from_the_rows_that_had_events_and_not_from_time() -> None:
    found = LiveCounts(4, BASE_END)
    rows = np.array([7, 1_000_000])
    sizes = []
    for hour in range(NOW, NOW + 500):
        found.add(rows, np.full(2, hour), np.ones((2, 4), np.int64))
        sizes.append(found.nbytes)
    assert sizes[-1] == sizes[0]
    a_row = RING_HOURS * 4 * 4 + 4 * 8
    assert sizes[0] <= 1_000_002 * 4 + 4 * a_row, "a place a row, and a ring where events were"


def test_totals_beyond_32_bits() -> None:
    found = LiveCounts(1, 0)
    for hour in range(NOW, NOW + 200):
        found.add(np.array([1]), np.array([hour]), np.array([[20_000_000]]))
    asked = np.array([NOW + 198, NOW + 200])
    assert found.before(np.array([1, 1]), asked)[:, 0].tolist() == [198 * 20_000_000, 4_000_000_000]


def test_a_reader_sees_whole_calls() -> None:
    """One writer counts rows 1 to 40 in each call, and moves the hour on; a reader's 40 totals are
    always the same number."""
    found = live((1, NOW, 0))
    rows, stop, torn = np.arange(1, 41), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            totals = found.before(rows, np.full(40, NOW + 10_000))[:, 0]
            torn.extend(totals[totals != totals[0]])

    reader = threading.Thread(target=read)
    reader.start()
    for call in range(2000):
        found.add(rows, np.full(40, NOW + call // 10), np.ones((40, 2), np.int64))
    stop.set()
    reader.join()
    assert not torn
    assert found.before(rows, np.full(40, NOW + 10_000))[:, 0].tolist() == [2000] * 40
