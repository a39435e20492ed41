import threading

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.users import UserRows
from recsys.features.timelines import Timelines
from recsys.serve.store import Event, HistoryStore


@pytest.fixture
def store() -> HistoryStore:
    """User a has three events, b one; two of each are kept."""
    histories = Timelines(
        user_ids=["a", "b"],
        offsets=np.array([0, 3, 4]),
        video_rows=np.array([1, 2, 3, 4]),
        time_ms=np.array([10, 20, 30, 40]),
        positive=np.array([1, 0, 1, 1], np.int8),
        labels=np.array([[0], [1], [0], [1]], np.int8),
        watched=np.array([[1, 0], [2, 1], [3, 0], [4, 1]], np.float32),
        context_rows=np.zeros((4, 0), np.int64),
        split=np.zeros(4, np.int8),
        count_features=np.arange(4 * 2, dtype=np.float32).reshape(4, 2),
        user_rows=np.zeros((2, 0), np.int64),
    )
    users = UserRows(pa.array(["b", "z"]), np.array([[1, 2], [3, 0]]))
    return HistoryStore(histories, longest=2, users=users)


def event(row: int, time_ms: int) -> Event:
    features = np.array([row, 0.5], np.float32)
    return Event(row, time_ms, features, labels=(1,), watched=(5.0, 0.5))


def test_keeps_the_last_events_of_the_bundle(store: HistoryStore) -> None:
    assert store.timeline("a").video_rows.tolist() == [2, 3]
    assert store.timeline("b").time_ms.tolist() == [40]


def test_what_is_known_of_a_user_stays_with_its_timeline(store: HistoryStore) -> None:
    """Also of one without events, and after live ones."""
    assert store.timeline("a").user_rows.tolist() == [[0, 0]]
    assert store.timeline("b").user_rows.tolist() == [[1, 2]]
    store.append("z", event(7, 50))
    assert store.timeline("z").user_rows.tolist() == [[3, 0]]
    assert store.timeline("z").windows([0], [1]).user_rows.tolist() == [[3, 0]]


def test_unknown_user_has_no_events(store: HistoryStore) -> None:
    assert "z" not in store
    timeline = store.timeline("z")
    assert timeline.user_ids == ["z"]
    assert timeline.offsets.tolist() == [0, 0]
    assert timeline.labels.shape == (0, 1)


def test_a_live_event_stands_where_its_time_belongs(store: HistoryStore) -> None:
    assert store.append("b", event(9, 35)) == 2
    timeline = store.timeline("b")
    assert timeline.video_rows.tolist() == [9, 4]
    assert timeline.labels.tolist() == [[1], [1]]
    assert timeline.positive.tolist() == [1, 1]
    assert timeline.count_features.tolist() == [[9, 0.5], [6, 7]]


def test_events_of_one_time_keep_their_order(store: HistoryStore) -> None:
    store.append("b", event(9, 40))
    assert store.timeline("b").video_rows.tolist() == [4, 9]


def test_the_oldest_event_is_forgotten(store: HistoryStore) -> None:
    assert store.append("a", event(9, 50)) == 2
    assert store.timeline("a").video_rows.tolist() == [3, 9]


def test_a_new_user_becomes_known(store: HistoryStore) -> None:
    assert (len(store), store.user_ids(10)) == (2, ["a", "b"])
    store.append("new", event(5, 1))
    assert "new" in store
    assert (len(store), store.user_ids(10), store.user_ids(1)) == (3, ["a", "b", "new"], ["a"])


def test_the_bundles_own_arrays_are_not_changed(store: HistoryStore) -> None:
    before = store.timeline("a")
    store.append("a", event(9, 50))
    assert before.video_rows.tolist() == [2, 3]


def test_no_event_is_lost_between_threads(store: HistoryStore) -> None:
    store._longest = 1000

    def append(first: int) -> None:
        for i in range(50):
            store.append("new", event(first + i, i))

    threads = [threading.Thread(target=append, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline = store.timeline("new")
    assert sorted(timeline.video_rows.tolist()) == [
        100 * n + i for n in range(4) for i in range(50)
    ]
    assert (np.diff(timeline.time_ms) >= 0).all()
