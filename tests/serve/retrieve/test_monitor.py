"""The index's recall by what searches may find, with an index that misses what it is told to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.data.ragged import FloatArray, IntArray
from recsys.inference.index import VideoIndex
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.retrieve import monitor as module
from recsys.serve.retrieve.monitor import IndexMonitor, shape_of
from recsys.serve.retrieve.retrieval import ScoredRows, Search
from recsys.serve.service import Service
from tests.bundles import make_run

NUM_ROWS = 51


class Searcher:
    """Gives videos 1 to 10 exactly; by the index without some of them."""

    def __init__(self, *, missed: Sequence[int] = (), is_exact: bool = False) -> None:
        self.is_exact, self.num_rows = is_exact, NUM_ROWS
        self.missed = list(missed)

    def exact(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        assert len(searches) == 1 and k == 100
        rows = np.pad(np.arange(1, 11), (0, k - 10))[None]
        return rows, np.zeros(rows.shape, np.float32)

    def best(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        rows, scores = self.exact(searches, k)
        return np.where(np.isin(rows, self.missed), 0, rows), scores


def search(
    allowed: int | None = None, excluded: Sequence[int] = (), rows: int = NUM_ROWS
) -> Search:
    """Of which a filter leaves so many videos."""
    nothing = np.zeros(0, np.int64)
    return Search(
        query=np.zeros(2, np.float32),
        trending=np.zeros(rows, np.float32),
        seen=nothing,
        seen_bias=np.zeros(0, np.float32),
        excluded=np.array(excluded, np.int64),
        allowed=None if allowed is None else np.arange(rows) < allowed,
    )


def test_shapes() -> None:
    assert shape_of(search()) == "none"
    assert shape_of(search(excluded=[3])) == "user"
    assert shape_of(search(allowed=6)) == "wide"
    assert shape_of(search(allowed=5, excluded=[3])) == "narrow"


def test_recall_is_the_mean_of_the_newest_of_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 2)
    searcher = Searcher()
    monitor = IndexMonitor(searcher, share=1.0)
    assert monitor.recalls() == {}
    for missed in ([1, 2, 3, 4, 5, 6], [7], []):
        searcher.missed = missed
        monitor.saw([search(), search(allowed=5)])
        monitor.check_one()
        searcher.missed = [1, 2, 3, 4, 5]
        monitor.check_one()
        monitor.check_one()  # none waits
    assert monitor.recalls() == pytest.approx({"none": 0.95, "narrow": 0.5})
    assert monitor.left_out == 0


def test_a_share_is_looked_at_and_no_more_wait_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = IndexMonitor(Searcher(), share=0.25, seed=0)
    for _ in range(100):
        monitor.saw([search()] * 10)
    sampled = len(monitor._waiting) + monitor.left_out
    assert 200 < sampled < 300 and len(monitor._waiting) == module.WAITING


def test_a_search_of_a_smaller_catalogue_is_left_out_and_counted() -> None:
    monitor = IndexMonitor(Searcher(), share=1.0)
    monitor.saw([search(rows=NUM_ROWS - 1)])
    monitor.check_one()
    assert (monitor.recalls(), monitor.left_out) == ({}, 1)


def test_a_search_that_cannot_be_made_again_makes_what_was_found_before_void(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searcher = Searcher()
    monitor = IndexMonitor(searcher, share=1.0)
    monitor.saw([search(), search(allowed=5)])
    monitor.check_one()
    assert monitor.recalls() == {"none": 1.0}
    with monkeypatch.context() as patched:
        patched.setattr(searcher, "best", lambda searches, k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            monitor.check_one()
    assert monitor.recalls() == {}
    monitor.saw([search(allowed=5)])
    monitor.check_one()
    assert monitor.recalls() == {"narrow": 1.0}


@pytest.mark.parametrize(("is_exact", "share"), [(True, 1.0), (False, 0.0)])
def test_where_there_is_nothing_to_learn_nothing_is_kept(is_exact: bool, share: float) -> None:
    monitor = IndexMonitor(Searcher(is_exact=is_exact), share=share)
    monitor.saw([search()] * 100)
    assert not monitor._waiting and not monitor.left_out


def test_an_idle_server_tells_of_its_index(tmp_path: Path) -> None:
    """A real index of 30 videos finds all; it is made to miss v30, whoever asks."""
    run = make_run(tmp_path / "run", publish={"index": "pq"}, serve={"max_k": 20, "monitor": 1.0})
    service = Service(Bundle.load(str(run.run)), EventLog(str(tmp_path / "live.sqlite")), seed=0)
    service._batches.close()  # its own thread would look first
    recommender = service.recommender
    for user_id in ("nobody", "u9"):
        recommender.recommend(user_id)
    recommender.monitor.check_one()
    recommender.monitor.check_one()
    assert recommender.monitor.recalls() == {"none": 1.0, "user": 1.0}
    retriever = recommender._parts.retriever
    find = retriever._by_index

    def blind(index: VideoIndex, search: Search, k: int) -> tuple[ScoredRows, FloatArray]:
        retrieved, untrended = find(index, search, k)
        seen = retrieved.rows != 30
        return ScoredRows(retrieved.rows[seen], retrieved.scores[seen]), untrended

    retriever._by_index = blind  # type: ignore[method-assign]
    recommender.recommend("nobody")
    service._idle()
    mean = (1 + 29 / 30) / 2
    client = TestClient(make_api(service))
    told = client.get("/v1/model").json()["index_recall"]
    assert told == pytest.approx({"none": mean, "user": 1.0})
    figures = client.get("/metrics").text
    assert f'recsys_index_online_recall{{replica="0",shape="none"}} {mean}' in figures
    assert 'recsys_index_searches_left_out{replica="0"} 0.0' in figures

    retriever._by_index = lambda index, search, k: 1 / 0  # type: ignore[method-assign]
    recommender.monitor.saw([search(rows=len(recommender.catalogue))])
    service._idle()
    figures = client.get("/metrics").text
    assert "recsys_index_online_recall{" not in figures, "what was found before is not told of now"
    assert 'recsys_failures_total{replica="0",work="index"} 1.0' in figures
    assert client.get("/v1/model").json()["index_recall"] == {}
    service.log.close()
