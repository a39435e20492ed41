import numpy as np

from recsys.features.hourly import HourlyCounts


def counts(rows: list[int], hours: list[int], values: list[list[int]]) -> HourlyCounts:
    return HourlyCounts(np.array(rows), np.array(hours), np.array(values))


def test_totals_before_an_hour() -> None:
    """Row 2: two events in hour 5, one of them liked, and one in hour 9."""
    found = counts([2, 7, 2, 2], [5, 5, 9, 5], [[1, 1], [1, 1], [1, 1], [1, 0]])
    totals = found.before(np.array([2, 2, 2, 2, 7, 3]), np.array([5, 6, 9, 10, 99, 99]))
    assert totals.tolist() == [[0, 0], [2, 1], [2, 1], [3, 2], [1, 1], [0, 0]]


def test_a_table_gives_the_same_counts_back() -> None:
    found = counts([2, 7, 2], [5, 5, 9], [[1, 1], [1, 1], [3, 2]])
    again = HourlyCounts.from_table(found.to_table(), num_flags=1)
    for ours, theirs in zip(found.entries(), again.entries(), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_rows_of_32_bits_are_counted_as_others() -> None:
    """Row 1000 and hour 400,000 make a key that has no room in 32 bits."""
    rows = np.array([1000, 3], np.int32)
    found = HourlyCounts(rows, np.array([400_000, 2]), np.array([[1, 1], [4, 0]]))
    assert found.before(rows, np.array([400_001, 3])).tolist() == [[1, 1], [4, 0]]
