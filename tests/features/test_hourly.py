import numpy as np
import pytest

from recsys.features.hourly import HourlyCounts, hour_of

HOUR = 3600 * 1000


def counts(rows: list[int], hours: list[int], values: list[list[int]]) -> HourlyCounts:
    return HourlyCounts(np.array(rows), np.array(hours), np.array(values))


def test_totals_before_an_hour() -> None:
    """Row 2: two events in hour 5, one of them liked, and one in hour 9."""
    hourly = counts([2, 7, 2, 2], [5, 5, 9, 5], [[1, 1], [1, 1], [1, 1], [1, 0]])
    totals = hourly.before(np.array([2, 2, 2, 2, 7, 3]), np.array([5, 6, 9, 10, 99, 99]))
    assert totals.tolist() == [[0, 0], [2, 1], [2, 1], [3, 2], [1, 1], [0, 0]]


def test_its_arrays_give_the_same_counts_back() -> None:
    hourly = counts([2, 7, 2], [5, 5, 9], [[1, 1], [1, 1], [3, 2]])
    again = HourlyCounts.read(hourly.arrays().__getitem__)
    for ours, theirs in zip(hourly.entries(), again.entries(), strict=True):
        assert ours.tolist() == theirs.tolist()
    later = [one.before(np.array([2, 7]), np.array([6, 6])).tolist() for one in (hourly, again)]
    assert later[0] == later[1] == [[1, 1], [1, 1]]


def test_rows_of_32_bits_are_counted_as_others() -> None:
    """Row 1000 and hour 400,000 make a key that has no room in 32 bits."""
    rows = np.array([1000, 3], np.int32)
    hourly = HourlyCounts(rows, np.array([400_000, 2]), np.array([[1, 1], [4, 0]]))
    assert hourly.before(rows, np.array([400_001, 3])).tolist() == [[1, 1], [4, 0]]


def test_hours_since_1970() -> None:
    """Times that cannot be count as the first and the last hour that can."""
    assert hour_of([0, HOUR - 1, HOUR, 5 * HOUR + 1]).tolist() == [0, 0, 1, 5]
    assert hour_of([-1, -(10**18), 10**18]).tolist() == [0, 0, 2**24 - 1]


def test_the_unknown_row_has_no_counts_and_no_hour_is_before_the_first() -> None:
    hourly = counts([0, 1, 2, 1], [3, 0, 0, 4], [[5, 5], [1, 0], [2, 1], [3, 3]])
    totals = hourly.before(np.array([0, 2, 2, 1, 1]), np.array([9, -20, 0, 1, -1]))
    assert totals.tolist() == [[0, 0], [0, 0], [0, 0], [1, 0], [0, 0]]
    rows, hours, values = hourly.entries()
    assert (rows.tolist(), hours.tolist()) == ([1, 1, 2], [0, 4, 0])
    assert values.tolist() == [[1, 0], [3, 3], [2, 1]]
    nothing = counts([0], [3], [[5, 5]])
    assert nothing.before(np.array([1]), np.array([9])).tolist() == [[0, 0]]


@pytest.mark.parametrize("rows", [[2], [3, 2, 1, 0, 2, 9]])
def test_live_events_count_once_their_hour_is_over(rows: list[int]) -> None:
    """Asked for one row and for many, of which few were touched."""
    hourly = counts([2, 3], [5, 5], [[1, 1], [7, 7]])
    for row, hour in ((2, 6), (2, 6), (2, 8), (1, 6), (0, 6)):
        hourly.add(np.array([row]), np.array([hour]), np.array([[1, 0]]))
    expected = {
        6: {0: [0, 0], 1: [0, 0], 2: [1, 1], 3: [7, 7], 9: [0, 0]},
        7: {0: [0, 0], 1: [1, 0], 2: [3, 1], 3: [7, 7], 9: [0, 0]},
        9: {0: [0, 0], 1: [1, 0], 2: [4, 1], 3: [7, 7], 9: [0, 0]},
    }
    for hour, by_row in expected.items():
        totals = hourly.before(np.array(rows), np.full(len(rows), hour))
        assert totals.tolist() == [by_row[row] for row in rows]
    assert hourly.before(np.array([2, 2]), np.array([7, 6])).tolist() == [[3, 1], [1, 1]]
    assert hourly.entries()[2].tolist() == [[1, 1], [7, 7]], "what is kept has no live events"


@pytest.mark.parametrize("num", [100, 2000], ids=["few", "many"])
def test_few_and_many_are_found_alike(num: int) -> None:
    """Of rows with many hours, with one and with none, before the first and after the last hour."""
    rng = np.random.default_rng(0)
    lengths = np.array([0, 3, 700, 0, 1, 90, 0])
    rows = np.repeat(np.arange(7), lengths)
    hours = np.concatenate([rng.permutation(1000)[:length] for length in lengths])
    values = rng.integers(1, 9, (len(rows), 2))
    hourly = HourlyCounts(rows, hours, values)
    asked, before = rng.integers(0, 9, num), rng.integers(-5, 1010, num)
    expected = [
        values[(rows == row) & (hours < hour)].sum(0)
        for row, hour in zip(asked, before, strict=True)
    ]
    assert hourly.before(asked, before).tolist() == np.array(expected).tolist()
