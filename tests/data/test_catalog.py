import numpy as np
import pyarrow as pa

from recsys.data.catalog import Catalog, duration_buckets
from recsys.data.ragged import expand_ranges
from recsys.schema import video_schema


def catalog() -> Catalog:
    """Row 0 and three videos: warm, seen in the validation days only, never seen."""
    columns = {
        "video_id": [None, "a", "b", "c"],
        "uri": [None, "/a.mp4", None, "/c.mp4"],
        "creator_row": [0, 2, 1, 0],
        "category_rows": [[], [3, 1], [], [2]],
        "duration": [None, 30.0, None, 60.0],
        "duration_bucket": [0, 5, 0, 7],
        "first_time_ms": [None, 10, 20, None],
        "num_train_events": [0, 4, 0, 0],
        "num_train_positives": [0, 3, 0, 0],
        "num_valid_events": [0, 1, 2, 0],
        "num_valid_positives": [0, 0, 1, 0],
    }
    return Catalog.from_table(pa.table(columns, schema=video_schema()))


def test_columns_become_arrays() -> None:
    videos = catalog()
    assert len(videos) == 4
    assert videos.creator_rows.tolist() == [0, 2, 1, 0]
    assert np.array_equal(videos.durations, [np.nan, 30, np.nan, 60], equal_nan=True)
    assert videos.categories.offsets.tolist() == [0, 0, 2, 2, 3]
    assert videos.categories.values.tolist() == [3, 1, 2]
    assert videos.video_ids().to_pylist() == [None, "a", "b", "c"]
    assert videos.uris().to_pylist() == [None, "/a.mp4", None, "/c.mp4"]


def test_known_events_and_positives() -> None:
    videos = catalog()
    assert videos.known_events(with_valid=False).tolist() == [0, 4, 0, 0]
    assert videos.known_events(with_valid=True).tolist() == [0, 5, 2, 0]
    assert videos.known_positives(with_valid=False).tolist() == [0, 3, 0, 0]
    assert videos.known_positives(with_valid=True).tolist() == [0, 3, 1, 0]


def test_only_videos_with_enough_events_have_a_row_of_their_own() -> None:
    videos = catalog()
    assert videos.id_rows(with_valid=False, min_events=1).tolist() == [0, 1, 0, 0]
    assert videos.id_rows(with_valid=True, min_events=1).tolist() == [0, 1, 2, 0]
    assert videos.id_rows(with_valid=True, min_events=3).tolist() == [0, 1, 0, 0]
    # Nothing is learnt of a video without events, whatever min_events says.
    assert videos.id_rows(with_valid=True, min_events=0).tolist() == [0, 1, 2, 0]


def test_categories_of_some_videos() -> None:
    categories = catalog().categories.select(np.array([3, 1, 0, 1]))
    assert categories.values.tolist() == [2, 3, 1, 3, 1]
    assert categories.lengths.tolist() == [1, 2, 0, 2]
    nothing = catalog().categories.select(np.array([], dtype=np.int64))
    assert (nothing.values.tolist(), nothing.lengths.tolist()) == ([], [])


def test_expand_ranges_skips_empty_ones() -> None:
    starts, lengths = np.array([4, 9, 0]), np.array([2, 0, 1])
    assert expand_ranges(starts, lengths).tolist() == [4, 5, 0]


def test_durations_are_ranked_in_31_buckets_and_unknown_is_0() -> None:
    buckets = duration_buckets(np.arange(1, 311))
    assert (buckets.min(), buckets.max()) == (1, 31)
    assert np.bincount(buckets)[1:].tolist() == [10] * 31
    assert np.all(np.diff(buckets) >= 0)
    assert duration_buckets([np.nan, 0.0, -1.0, np.inf]).tolist() == [0, 0, 0, 0]
    assert duration_buckets([]).tolist() == []


def test_buckets_do_not_depend_on_the_unit() -> None:
    seconds = np.array([1.5, 3.0, np.nan, 60.0, 3.0])
    assert duration_buckets(seconds).tolist() == duration_buckets(seconds * 1000).tolist()
