import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import InputError
from recsys.prepare.partitions import (
    NO_TIME,
    PartitionCounts,
    SplitCounts,
    first_of_each,
    sort_events,
    split_by_time,
    split_leave_one_out,
    users_of,
)
from recsys.prepare.stage import require_events
from recsys.schema import TEST, TRAIN, VALID
from tests.bundles import tiny_config


def events(rows: list[tuple[str, int, str, int]]) -> pa.Table:
    names = ("user_id", "time_ms", "video_id", "positive")
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


def rows_of(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_events_are_sorted_by_user_time_and_video() -> None:
    table = sort_events(
        events([("b", 1, "x", 0), ("a", 9, "y", 1), ("a", 2, "z", 0), ("a", 2, "x", 1)])
    )
    assert rows_of(table) == [
        ("a", 2, "x", 1),
        ("a", 2, "z", 0),
        ("a", 9, "y", 1),
        ("b", 1, "x", 0),
    ]


def test_of_the_same_event_the_positive_one_stays() -> None:
    table = sort_events(
        events(
            [
                ("a", 1, "x", 0),
                ("b", 1, "x", 0),
                ("a", 1, "x", 1),
                ("a", 1, "y", 0),
                ("a", 2, "x", 0),
            ]
        )
    )
    assert rows_of(table.filter(pa.array(first_of_each(table)))) == [
        ("a", 1, "x", 1),
        ("a", 1, "y", 0),
        ("a", 2, "x", 0),
        ("b", 1, "x", 0),
    ]


def test_no_events_at_all() -> None:
    assert first_of_each(events([]).cast(events([("a", 1, "x", 0)]).schema)).tolist() == []


def test_users_of_sorted_events() -> None:
    users, offsets = users_of(pa.array(["a", "b", "b", "c"]))
    assert users.to_pylist() == ["a", "b", "c"]
    assert offsets.tolist() == [0, 1, 3, 4]


def test_split_by_time_puts_the_cut_into_the_later_part() -> None:
    times = np.array([1, 4, 5, 8, 9, 100])
    assert split_by_time(times, (5, 9)).tolist() == [TRAIN, TRAIN, VALID, VALID, TEST, TEST]


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ([], []),
        ([0, 0], [TRAIN, TRAIN]),
        ([0, 1, 0], [TRAIN, TRAIN, TRAIN]),
        ([1, 0, 1, 0], [TRAIN, TRAIN, TEST, TEST]),
        ([1, 0, 1, 0, 1], [TRAIN, TRAIN, VALID, VALID, TEST]),
        ([1, 1, 1, 1, 0], [TRAIN, TRAIN, VALID, TEST, TEST]),
    ],
)
def test_leave_one_out_of_0_to_4_positives(positive: list[int], expected: list[int]) -> None:
    """Another user stands on each side: nothing may run over."""
    both = np.array([1, *positive, 1, 0], dtype=np.int8)
    offsets = np.array([0, 1, 1 + len(positive), 3 + len(positive)])
    split = split_leave_one_out(both, offsets).tolist()
    assert split == [TRAIN, *expected, TRAIN, TRAIN]


def test_leave_one_out_never_steps_back_in_time() -> None:
    rng = np.random.default_rng(0)
    positive = rng.integers(0, 2, 1000).astype(np.int8)
    offsets = np.arange(0, 1001, 10)
    split = split_leave_one_out(positive, offsets).reshape(100, 10)
    assert (np.diff(split, axis=1) >= 0).all()


def counts(events_SN: list[list[int]], positives_SN: list[list[int]]) -> SplitCounts:
    split_counts = SplitCounts.empty(len(events_SN[0]))
    split_counts.events_SN[:], split_counts.positives_SN[:] = events_SN, positives_SN
    split_counts.first_time_ms, split_counts.last_time_ms = 5, 99
    return split_counts


BY_TIME = {"kind": "time", "valid_from": 10, "test_from": "2024-05-01"}


@pytest.mark.parametrize(
    ("events_SN", "positives_SN", "message"),
    [
        ([[3], [2], [0]], [[3], [2], [0]], r"no test events \(events: train 3, valid 2, test 0\)"),
        ([[0], [2], [1]], [[0], [2], [1]], "no train events"),
        ([[3], [2], [1]], [[3], [0], [1]], "no valid positive events .*train 3, valid 0, test 1"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(
    tmp_path, events_SN: list[list[int]], positives_SN: list[list[int]], message: str
) -> None:  # type: ignore[no-untyped-def]
    config = tiny_config(tmp_path, split=BY_TIME)
    with pytest.raises(InputError, match=message) as error:
        require_events(counts(events_SN, positives_SN), config, (5.0, 100.0))
    assert str(error.value).endswith(
        "split.valid_from=10 lies before all events and split.test_from=2024-05-01 00:00:00 lies "
        "after all events; they lie from 1970-01-01 00:00:00 to 1970-01-01 00:00:00 UTC, in ms 5 "
        "to 99; move the cuts or check data.columns.positive"
    )


def test_leave_one_out_speaks_of_positives(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="no valid events .*leave_one_out tests users with 2"):
        require_events(counts([[3], [0], [1]], [[3], [0], [1]]), tiny_config(tmp_path), None)


def test_a_good_split_passes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    require_events(counts([[3], [1], [1]], [[1], [1], [1]]), tiny_config(tmp_path), None)


def counted() -> PartitionCounts:
    """A user with two events of video 4 and one of video 2, and one with a single event."""
    return PartitionCounts.of(
        3,
        offsets=np.array([0, 3, 4]),
        rows=np.array([4, 2, 4, 2]),
        time=np.array([30, 10, 20, 40]),
        split=np.array([TRAIN, VALID, TEST, TRAIN], np.int8),
        positive=np.array([1, 0, 1, 1], np.int8),
    )


def test_a_partitions_counts_are_of_the_videos_that_occur() -> None:
    counts = counted()
    assert (counts.number, counts.users, counts.single_event_users) == (3, 2, 1)
    assert counts.last_time_ms == 40
    assert counts.video_rows_R.tolist() == [2, 4]
    assert counts.first_time_R.tolist() == [10, 20]
    assert counts.events_SR.tolist() == [[1, 1], [1, 0], [0, 1]]
    assert counts.positives_SR.tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize("counts", [counted(), PartitionCounts.empty(7)])
def test_a_partitions_counts_cross_to_the_driver(counts: PartitionCounts) -> None:
    row = {name: value for name, (value,) in counts.to_row().items()}
    assert all(np.ndim(value) <= 1 for value in row.values())
    back = PartitionCounts.from_row(row)
    for name, value in vars(counts).items():
        assert np.array_equal(getattr(back, name), value), name


def test_partitions_add_up() -> None:
    """One without events changes nothing, its last time of 0 neither."""
    counts = SplitCounts.empty(6)
    for part in (counted(), PartitionCounts.empty(7), counted()):
        counts.add(part)
    assert (counts.users, counts.single_event_users) == (4, 2)
    assert (counts.first_time_ms, counts.last_time_ms) == (10, 40)
    assert counts.first_time_N.tolist() == [NO_TIME, NO_TIME, 10, NO_TIME, 20, NO_TIME]
    assert counts.events_SN.sum(1).tolist() == [4, 2, 2]
    assert counts.positives_SN[0].tolist() == [0, 0, 2, 0, 2, 0]
