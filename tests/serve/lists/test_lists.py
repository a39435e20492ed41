"""Who is shown what for the first time, what is tried out, and that the best are found."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.contents import Bundle
from recsys.live.clock import now
from recsys.serve.recommender import ServingRecommender
from recsys.serve.retrieve.retrieval import Retriever, Search
from tests.bundles import START_MS, TinyRun, make_run
from tests.serve.lists.test_reasons import by_kind
from tests.serve.live import Served
from tests.serve.test_recommender import without_events

LATER = START_MS + 10**10


def test_whoever_is_new_is_shown_what_is_popular_now_of_different_kinds(served: Served) -> None:
    """v2, v4, v6 are of one category and the most popular; v3 is of the other."""
    for number in range(6):
        for video in ("v2", "v4", "v6")[: 3 if number < 4 else 2]:
            served.tell(f"n{number}", video, time_ms=now() - 1000)
        if number < 3:
            served.tell(f"n{number}", "v3", time_ms=now() - 1000)
    answer = served.recommend("stranger", 4)
    shown = [video.video_id for video in answer.videos]
    assert not answer.known_user
    # Popularities 6, 6, 4, 3 of 6; each of the same kind above costs 0.3 of the mean likeness.
    assert shown == ["v2", "v4", "v3", "v6"], "the other kind comes before more of the same"
    assert all(video.reason and video.reason.kind == "popular" for video in answer.videos)
    whole = served.recommend("stranger", 20).videos
    popular = {video.video_id for video in served.popular(20).videos}
    assert popular == {"v2", "v3", "v4", "v6"}
    assert {v.video_id for v in by_kind(whole, "popular")} == popular
    assert len(by_kind(whole, "newcomer")) == 16, "what the model finds is not said to be popular"
    assert "v2" not in [v.video_id for v in served.recommend("stranger", 4, exclude=("v2",)).videos]
    assert len(served.recommend("stranger", 20).videos) == 20


def test_where_nothing_is_popular_newcomers_are_not_told_otherwise(tiny: TinyRun) -> None:
    bundle = without_events(Bundle.load(str(tiny.run)))
    server = ServingRecommender(bundle)
    assert server.popular(20).videos == ()
    listed = server.recommend("stranger", 6).videos
    assert len(by_kind(listed, "newcomer")) == len(listed) == 6


def explorer(tmp_path: Path, share: float) -> ServingRecommender:
    make_run(tmp_path / "run", serve={"explore": share, "max_k": 20})
    served = ServingRecommender(Bundle.load(str(tmp_path / "run")), seed=1)
    served.ages.first_ms_N[[3, 5, 9, 12]] = -1
    return served


def test_exploration_is_off_by_default(served: Served) -> None:
    served.ages.first_ms_N[:] = -1
    assert not by_kind(served.recommend("u9", 20, now_ms=LATER).videos, "explore")


def test_new_videos_take_their_share_of_the_places(tmp_path: Path) -> None:
    served = explorer(tmp_path, 0.15)
    counts, tried = [], Counter[str]()
    for _ in range(200):
        videos = served.recommend("u9", 10, now_ms=LATER, exclude_seen=False).videos
        assert len({video.video_id for video in videos}) == 10
        explored = by_kind(videos, "explore")
        counts.append(len(explored))
        tried.update(video.video_id for video in explored)
    assert np.mean(counts) <= 1.5
    assert np.mean(counts) > 1.0, "what is in the list anyway is not tried out"
    assert set(tried) <= {"v3", "v5", "v9", "v12"}


def test_what_turned_out_badly_is_tried_less(tmp_path: Path) -> None:
    served = explorer(tmp_path, 0.1)
    counts = served.bundle.counts
    row = np.zeros(100, np.int64)
    hour = np.full(100, LATER)
    nobody = np.zeros((100, 1), np.int64)
    bad = np.tile([1, 0, 0, 0], (100, 1))
    counts.count_many(row + 3, nobody, hour, bad)
    good = np.tile([1, 1, 0, 0], (100, 1))
    counts.count_many(row + 5, nobody, hour, good)
    tried = Counter[str]()
    for _ in range(300):
        drawn = served._lists._explorer.draw(10, np.zeros(0, np.int64), None, LATER)
        assert drawn is not None
        tried.update(f"v{r}" for r in drawn.rows)
    assert tried["v5"] > 10 * max(1, tried["v3"])
    assert tried["v5"] > 2 * (tried["v9"] + tried["v12"]), "one that all like is tried before them"
    for _ in range(300):
        drawn = served._lists._explorer.draw(10, np.array([5]), None, LATER)
        assert drawn is not None
        tried.update(f"v{r}" for r in drawn.rows)
    assert tried["v3"] < 10, "videos that nobody knows are tried before one that nobody likes"


def test_explored_videos_obey_filters_and_exclusions(tmp_path: Path) -> None:
    served = explorer(tmp_path, 0.5)
    for _ in range(30):
        videos = served.recommend("u9", 10, now_ms=LATER, exclude=("v3", "v5", "v9")).videos
        assert {v.video_id for v in by_kind(videos, "explore")} <= {"v12"}


@pytest.mark.parametrize("num", [7, 700, 5000])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_the_best_are_found_whatever_the_conditions(num: int, k: int) -> None:
    """Against every score sorted."""
    rng = np.random.default_rng(num)
    vectors = rng.normal(size=(num, 8)).astype(np.float32)
    trending = rng.normal(size=num).astype(np.float32)
    trending[0] = 0
    searches = []
    for user in range(5):
        seen = np.unique(rng.integers(1, num, 4))
        allowed = rng.random(num) < 0.5 if user % 2 else None
        searches.append(
            Search(
                query=rng.normal(size=8).astype(np.float32),
                trending=trending,
                seen=seen,
                seen_bias=rng.normal(size=len(seen)).astype(np.float32) * 5,
                excluded=np.unique(rng.integers(1, num, 3)),
                allowed=allowed,
            )
        )
    rows, scores = Retriever(None, vectors).best(searches, k)
    for user, search in enumerate(searches):
        every = vectors @ search.query + search.trending
        every[search.seen] += search.seen_bias
        every[search.forbidden] = -np.inf
        best = [row for row in np.argsort(-every, kind="stable")[:k] if np.isfinite(every[row])]
        assert rows[user][rows[user] > 0].tolist() == best
        assert scores[user][: len(best)] == pytest.approx(every[best], abs=1e-4)
