import threading

import numpy as np
import pytest

from recsys.features.live_counts import RING_HOURS, LiveCounts
from recsys.features.older_hours import ADDED_AT_ONCE, CAPACITY

BASE_END = 1000
NOW = 1200
"""The ring's oldest hour is then 1153."""


def live(*events: tuple[int, int, int], capacity: int = CAPACITY) -> LiveCounts:
    """Of (row, hour, number of events), half of them liked."""
    live_counts = LiveCounts(2, BASE_END, capacity=capacity)
    for event in events:
        add(live_counts, [event])
    return live_counts


def add(counts: LiveCounts, events: list[tuple[int, int, int]]) -> None:
    rows, hours, numbers = np.array(events).T
    counts.add(rows, hours, np.stack([numbers, numbers // 2], 1))


def totals(counts: LiveCounts, row: int, hours: list[int]) -> list[int]:
    live_counts = counts.before(np.full(len(hours), row), np.array(hours))
    assert live_counts[:, 1].tolist() == [number // 2 for number in live_counts[:, 0].tolist()]
    return [int(number) for number in live_counts[:, 0]]


def test_within_the_last_48_hours_totals_are_exact() -> None:
    """4 events in the newest hour, 2 the hour before, 6 in the ring's oldest hour."""
    live_counts = live((3, NOW, 4), (3, NOW - 1, 2), (3, NOW - 47, 6))
    assert live_counts.oldest == NOW - 47
    hours = [NOW - 47, NOW - 46, NOW - 1, NOW, NOW + 1, NOW + 500]
    assert totals(live_counts, 3, hours) == [0, 6, 6, 8, 12, 12]
    assert totals(live_counts, 2, hours) == totals(live_counts, 400, hours) == [0] * 6, (
        "rows without events"
    )


def test_an_hour_leaves_the_ring_and_stays_in_the_total() -> None:
    live_counts = live((3, NOW - 47, 6), (3, NOW, 4))
    add(live_counts, [(5, NOW + 1, 2)])
    assert live_counts.oldest == NOW - 46
    assert totals(live_counts, 3, [NOW - 46, NOW, NOW + 1]) == [6, 6, 10]
    add(live_counts, [(5, NOW + 48, 2)])
    assert totals(live_counts, 3, [NOW + 1, NOW + 48]) == [10, 10]
    assert totals(live_counts, 5, [NOW + 1, NOW + 2, NOW + 48, NOW + 49]) == [0, 2, 2, 4]


def test_a_late_event_counts_in_its_hour_and_an_older_one_in_the_total() -> None:
    live_counts = live((3, NOW, 4), (3, NOW - 10, 2), (3, NOW - 48, 8))
    assert totals(live_counts, 3, [NOW - 47, NOW - 10, NOW - 9, NOW + 1]) == [8, 8, 10, 14]


def test_hours_before_the_ring_are_exact_as_long_as_they_fit() -> None:
    live_counts = live((3, 1053, 100), (3, 500, 6), (4, 1060, 8), (3, NOW, 2))
    hours = [500, 501, 1053, 1054, 1152, 1153, NOW + 1]
    assert totals(live_counts, 3, hours) == [0, 6, 6, 106, 106, 106, 108]
    assert totals(live_counts, 4, hours) == [0, 0, 0, 0, 8, 8, 8]
    assert live_counts.exact_from == 0


def test_what_does_not_fit_grew_evenly_from_the_first_event_on() -> None:
    """The two newest pairs are held, of hours 1103 and 1123; before 1103 there were 100 events."""
    live_counts = live((3, 1003, 100), (3, 1103, 4), (3, 1123, 6), (3, NOW, 2), capacity=2)
    assert live_counts.exact_from == 1004
    assert totals(live_counts, 3, [900, 1003, 1004, 1103, 1104, 1124]) == [0, 0, 100, 100, 104, 110]
    live_counts = live((3, 1003, 60), (3, 1053, 40), (3, 1103, 4), (3, NOW, 2), capacity=1)
    assert live_counts.exact_from == 1054
    # From hour 1003 to hour 1054 are 51 hours.
    assert totals(live_counts, 3, [1003, 1004, 1020, 1054]) == [0, 1, 33, 100]


def test_an_hour_is_dropped_as_a_whole() -> None:
    """Rows 3, 4 and 5 all had events in hour 1100, and only two pairs fit."""
    live_counts = live(
        (3, 1100, 2), (4, 1100, 2), (5, 1100, 2), (3, 1120, 4), (3, NOW, 2), capacity=2
    )
    assert live_counts.exact_from == 1101
    assert totals(live_counts, 3, [1101, 1121]) == [2, 6]


def test_nothing_that_is_dropped_happened_before_the_base_ends() -> None:
    """Late events of hours that the base has, which ends at 1000."""
    live_counts = live((3, 500, 200), (3, 1049, 106), (3, NOW, 2), capacity=0)
    assert live_counts.exact_from == 1050
    assert totals(live_counts, 3, [600, 1000, 1001, 1010, 1050]) == [0, 0, 6, 61, 306]


@pytest.mark.parametrize("capacity", [0, 7, 60, CAPACITY])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_and_the_grouping_of_events_do_not_matter(seed: int, capacity: int) -> None:
    """Also where hours pass between, and late ones come: the same numbers for every row and hour,
    and those of counting by hand where they are exact."""
    rng = np.random.default_rng(seed)
    num = 400
    rows, hours = rng.integers(0, 30, num), NOW - rng.geometric(0.02, num)
    counts = rng.integers(0, 5, (num, 3))
    asked = np.arange(900, NOW + 5)
    one_call = LiveCounts(3, BASE_END, capacity=capacity)
    one_call.add(rows, hours, counts)
    shuffled, order = LiveCounts(3, BASE_END, capacity=capacity), rng.permutation(num)
    for part in np.array_split(order, 60):
        shuffled.add(rows[part], hours[part], counts[part])
    assert shuffled.oldest == one_call.oldest == hours[rows > 0].max() - 47
    for row in range(35):
        ours, theirs = (c.before(np.full(len(asked), row), asked) for c in (one_call, shuffled))
        assert np.array_equal(ours, theirs)
        assert (np.diff(ours, axis=0) >= 0).all(), "totals never fall"
        for hour, live_counts in zip(asked, ours, strict=True):
            if hour >= one_call.exact_from:
                expected = counts[(rows == row) & (hours < hour) & (row > 0)].sum(0)
                assert live_counts.tolist() == expected.tolist()


def test_memory_follows_from_the_rows_that_had_events_and_not_from_time() -> None:
    live_counts = LiveCounts(4, BASE_END, capacity=100)
    rows = np.array([7, 1_000_000])
    sizes = []
    for hour in range(NOW, NOW + 20_000):
        live_counts.add(rows, np.full(2, hour), np.ones((2, 4), np.int64))
        sizes.append(live_counts.nbytes)
    a_row = RING_HOURS * 4 * 4 + 4 * 8
    pairs = (100 + ADDED_AT_ONCE) * (8 + 4 * 8)
    ring = 1_000_002 * 4 + 4 * a_row
    assert max(sizes) <= ring + 1.1 * pairs, "a place a row, and a ring where events were"


def test_totals_beyond_32_bits() -> None:
    live_counts = LiveCounts(1, 0)
    for hour in range(NOW, NOW + 200):
        live_counts.add(np.array([1]), np.array([hour]), np.array([[20_000_000]]))
    asked = np.array([NOW + 198, NOW + 200])
    assert live_counts.before(np.array([1, 1]), asked)[:, 0].tolist() == [
        198 * 20_000_000,
        4_000_000_000,
    ]


def test_a_reader_sees_whole_calls() -> None:
    """One writer counts rows 1 to 40 in each call, and moves the hour on; a reader's 40 totals are
    always the same number."""
    live_counts = live((1, NOW, 0))
    rows, stop, torn = np.arange(1, 41), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            totals = live_counts.before(rows, np.full(40, NOW + 10_000))[:, 0]
            torn.extend(totals[totals != totals[0]])

    reader = threading.Thread(target=read)
    reader.start()
    for call in range(2000):
        live_counts.add(rows, np.full(40, NOW + call // 10), np.ones((40, 2), np.int64))
    stop.set()
    reader.join()
    assert not torn
    assert live_counts.before(rows, np.full(40, NOW + 10_000))[:, 0].tolist() == [2000] * 40
