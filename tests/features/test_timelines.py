import math

import numpy as np
import pyarrow as pa
import pytest

from recsys.config.data import EventColumns
from recsys.features.timelines import FeaturesOnDemand, Timelines, cut_windows, gap_buckets, hours
from recsys.schema import (
    COUNT_FEATURES,
    OLDER_LIKED,
    TEST,
    TRAIN,
    VALID,
    history_schema,
    timeline_schema,
)

H = 3600 * 1000
COLUMNS = EventColumns(tasks=("liked",), watched="seconds", context=("tab", "device"))


def table() -> pa.Table:
    """Two users and one without events between them; one task, two context columns."""
    return pa.table(
        {
            "user_id": ["a", "nobody", "b"],
            "video_row": [[4, 5, 6, 7], [], [8, 9]],
            "time_ms": [[1 * H, 2 * H, 2 * H, 5 * H], [], [25 * H, 26 * H]],
            "positive": [[1, 0, 1, 1], [], [0, 1]],
            "labels": [[1, 1, 0, 1], [], [0, 0]],
            "watched": [[0, 0, 1, 0.5, 2, 1, 3, 1.5], [], [4, 2, 5, 0.25]],
            "context_rows": [[1, 11, 2, 12, 3, 13, 4, 14], [], [5, 15, 6, 16]],
            "split": [[TRAIN, TRAIN, VALID, TEST], [], [VALID, TEST]],
        },
        schema=timeline_schema(),
    )


def one_feature(rows: np.ndarray, contexts: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    """Stands in for the counts: hour + video / 10 + device / 100."""
    second = contexts[:, 1] if contexts.shape[1] else 0
    return (time_ms / H + rows / 10 + second / 100)[:, None].astype(np.float32)


@pytest.fixture
def timelines() -> Timelines:
    return Timelines.from_table(table(), COLUMNS, one_feature)


def test_a_table_becomes_flat_arrays(timelines: Timelines) -> None:
    assert len(timelines) == 3
    assert timelines.offsets.tolist() == [0, 4, 4, 6]
    assert timelines.labels.tolist() == [[1], [1], [0], [1], [0], [0]]
    shares = [0, 0.5, 1, 1.5, 2, 0.25]
    assert timelines.watched.tolist() == [list(pair) for pair in enumerate(shares)]
    assert timelines.context_rows[:2].tolist() == [[1, 11], [2, 12]]


def test_the_counts_are_asked_for_every_event(timelines: Timelines) -> None:
    by_hand = [1.51, 2.62, 2.73, 5.84, 25.95, 27.06]
    assert timelines.count_features[:, 0] == pytest.approx(by_hand)
    padded = timelines.windows([0, 4], [4, 6]).count_features
    assert padded[..., 0] == pytest.approx(np.array([by_hand[:4], [*by_hand[4:], 0, 0]]))


def test_counts_on_demand_are_those_of_the_events_that_are_asked_for() -> None:
    """Nothing is made when the table is read, and of padding never."""
    asked: list[list[int]] = []

    def features(*events: np.ndarray) -> np.ndarray:
        asked.append(events[0].tolist())
        return one_feature(*events)

    lazy = Timelines.from_table(
        table(), COLUMNS, lambda *events: FeaturesOnDemand(features, 1, *events)
    )
    assert not asked and lazy.count_features.shape == (6, 1)
    ready = Timelines.from_table(table(), COLUMNS, one_feature)
    windows = [made.windows([1, 4], [4, 6]).count_features for made in (lazy, ready)]
    assert windows[0].tolist() == windows[1].tolist()
    assert asked == [[5, 6, 7, 8, 9]]
    assert lazy.count_features[:].tolist() == ready.count_features[:].tolist()
    assert lazy.windows([0], [0]).count_features.tolist() == [[[0.0]]] and len(asked) == 2


def test_timelines_without_their_counts_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="count_features"):
        Timelines.from_table(table(), COLUMNS)  # type: ignore[call-arg]
    with pytest.raises(KeyError, match="count_features"):
        Timelines.from_histories(table(), COLUMNS, num_count_features=1)


def test_histories_hold_the_count_features(timelines: Timelines) -> None:
    stored = pa.array([[1.0, 2, 3, 4, 5, 6, 7, 8], [], [9.0, 10, 11, 12]], pa.list_(pa.float32()))
    histories = table().append_column(COUNT_FEATURES, stored)
    histories = histories.append_column(OLDER_LIKED, pa.array([[7], [], []])).cast(history_schema())
    made = Timelines.from_histories(histories, COLUMNS, num_count_features=2)
    assert made.count_features.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    assert made.offsets.tolist() == timelines.offsets.tolist()
    empty = history_schema().empty_table()
    nothing = Timelines.from_histories(empty, COLUMNS, num_count_features=2)
    assert nothing.count_features.shape == (0, 2)


def test_a_table_in_chunks_is_the_same(timelines: Timelines) -> None:
    chunks = pa.concat_tables([table().slice(0, 1), table().slice(1)])
    again = Timelines.from_table(chunks, COLUMNS, one_feature)
    for name, value in vars(timelines).items():
        assert np.array_equal(getattr(again, name), value), name


def test_no_users_no_tasks_no_contexts() -> None:
    empty = Timelines.from_table(timeline_schema().empty_table(), EventColumns(), one_feature)
    assert len(empty) == 0
    assert (empty.labels.shape, empty.context_rows.shape) == ((0, 0), (0, 0))
    assert empty.count_before(TEST).tolist() == []
    arrays = empty.windows([0], [0])
    assert arrays.present.tolist() == [[False]]
    assert arrays.actions.tolist() == [[[0.0]]]


def test_count_before(timelines: Timelines) -> None:
    assert timelines.count_before(TRAIN).tolist() == [0, 0, 0]
    assert timelines.count_before(VALID).tolist() == [2, 0, 0]
    assert timelines.count_before(TEST).tolist() == [3, 0, 1]
    assert timelines.count_before(TEST + 1).tolist() == [4, 0, 2]


def test_windows_are_padded_with_zeros(timelines: Timelines) -> None:
    arrays = timelines.windows([0, 4], [4, 6])
    assert arrays.lengths.tolist() == [4, 2]
    assert arrays.present.tolist() == [[True] * 4, [True, True, False, False]]
    assert arrays.video_rows.tolist() == [[4, 5, 6, 7], [8, 9, 0, 0]]
    assert arrays.actions[..., :2].tolist() == [
        [[1, 1], [0, 1], [1, 0], [1, 1]],
        [[0, 0], [1, 0], [0, 0], [0, 0]],
    ]
    seconds = [[math.log(1 + s) / 4 for s in row] for row in ([0, 1, 2, 3], [4, 5, 0, 0])]
    assert arrays.actions[..., 2] == pytest.approx(np.array(seconds), rel=1e-6)
    assert arrays.actions[..., 3].tolist() == [[0, 0.5, 1, 1.5], [2, 0.25, 0, 0]]
    assert arrays.context_rows[1].tolist() == [[5, 15], [6, 16], [0, 0], [0, 0]]
    assert arrays.hours.tolist() == [[1, 2, 2, 5], [1, 2, 0, 0]]
    assert arrays.num_prior[1].tolist() == [0, 1, 0, 0]
    assert arrays.gaps[1, 2:].tolist() == [0, 0]
    assert not arrays.tallies[1, 2:].any()


def test_events_of_one_time_do_not_see_each_other(timelines: Timelines) -> None:
    """User a's second and third event have the same time."""
    arrays = timelines.windows([0], [4])
    assert arrays.num_prior.tolist() == [[0, 1, 1, 3]]
    expected = [-1, 1 * H, 1 * H, 3 * H]
    assert arrays.gaps.tolist() == [gap_buckets(expected).tolist()]
    # (positive, task) so often before: nothing; the first event; the first again; all three.
    assert arrays.tallies[..., :2].tolist() == [[[0, 0], [1, 1], [1, 1], [2, 2]]]
    logs = [0, 0, 0, (math.log(2) + math.log(3)) / 4]
    assert arrays.tallies[0, :, 2] == pytest.approx(logs, rel=1e-6)
    assert arrays.tallies[0, :, 3].tolist() == [0, 0, 0, 1.5]


def test_a_window_knows_nothing_of_what_lies_before_it(timelines: Timelines) -> None:
    arrays = timelines.windows([1], [4])
    assert arrays.num_prior.tolist() == [[0, 0, 2]]
    assert arrays.gaps[0, :2].tolist() == [0, 0]
    assert arrays.tallies[0, :, :2].tolist() == [[0, 0], [0, 0], [1, 1]]


def test_an_empty_window(timelines: Timelines) -> None:
    arrays = timelines.windows([2, 4], [2, 5])
    assert arrays.lengths.tolist() == [0, 1]
    assert arrays.video_rows.tolist() == [[0], [8]]
    assert timelines.windows([], []).video_rows.shape == (0, 1)


def test_gap_buckets_by_hand() -> None:
    """1 + floor(2 log2(1 + seconds)): 1 s is 3, 3 s is 5, 1 h is 1 + floor(23.6) = 24."""
    gaps = [-1, 0, 999, 1000, 3000, H, 10**18]
    assert gap_buckets(gaps).tolist() == [0, 1, 2, 3, 5, 24, 63]
    assert np.all(np.diff(gap_buckets(np.arange(0, 10**7, 1000))) >= 0)


def test_hours_are_utc_and_hold_before_1970() -> None:
    assert hours([0, 23 * H + 1, 24 * H, -1]).tolist() == [0, 23, 0, 23]


def test_cut_windows_leaves_the_last_of_a_span_whole() -> None:
    first, last = cut_windows([0, 10, 20], [5, 10, 23], 2)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [
        (0, 1),
        (1, 3),
        (3, 5),
        (20, 21),
        (21, 23),
    ]


def test_cut_windows_covers_every_event_once() -> None:
    first, last = cut_windows(np.array([3]), np.array([40]), 7)
    covered = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    assert covered.tolist() == list(range(3, 40))
    assert (last - first).max() == 7


def test_cut_windows_of_nothing() -> None:
    assert [ends.tolist() for ends in cut_windows([], [], 5)] == [[], []]
