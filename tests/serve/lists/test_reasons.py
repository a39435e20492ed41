"""Why a video is in a list: each reason is said, and is gone where what it names is taken away."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.config.run import RerankConfig
from recsys.inference.rerank import VideoTraits, is_active
from recsys.live.clock import now
from recsys.serve.asks import Ask, Filters, Reason, ScoredVideo
from recsys.serve.recommender import ServingRecommender
from tests.bundles import DAY_MS, NUM_USERS, START_MS, TinyRun, make_run
from tests.serve.live import Served

LATER = START_MS + 10**10
SHOWN_MS = START_MS + 14 * DAY_MS
SHOWN = {3: 5, 8: 10, 12: 20, 14: 40, 21: 80, 27: 100}
"""How often some videos are shown then: after all that the run's timelines hold."""
TREND = 40.0
"""Weight of what trends, so that some videos are in lists for nothing else."""
USERS = [f"u{number}" for number in range(1, NUM_USERS)]
ORDERS: dict[str, dict[str, Any]] = {
    "retrieval": {},
    "a task": {"rank": "click", "candidates": 10},
    "diversity": {"diversity": 0.5, "candidates": 10, "page": 5},
    "drawn places": {"drawn_places": 1, "candidates": 10, "page": 5},
}
"""What puts lists in order: `serve.rank` and settings of `rerank`."""


def by_kind(videos: tuple[ScoredVideo, ...], kind: str) -> list[ScoredVideo]:
    return [video for video in videos if video.reason and video.reason.kind == kind]


def test_what_a_video_resembles_is_what_lifts_it(served: Served) -> None:
    """Without the liked video that is named, the same state scores the row lower, by its share."""
    model = served.bundle.recommender
    vectors = torch.from_numpy(served.bundle.vectors)[:, : model.dim]
    look_for = model.query[-1]
    begin = model.history.lstm.hidden_size
    resembling = by_kind(served.recommend("u9", 20, now_ms=LATER).videos, "resembles")
    assert resembling
    past = served.pasts.events("u9")
    liked = past.video_rows[past.positive > 0]
    for video in resembling:
        assert video.reason is not None and video.reason.video_ids
        row = int(video.video_id[1:])
        for named in video.reason.video_ids:
            other = int(named[1:])
            assert other in liked
            mean = vectors[liked].sum(0) / (len(liked) + 1)
            without = (vectors[liked].sum(0) - vectors[other]) / (len(liked) + 1)
            with torch.no_grad():
                weight = look_for.weight[:, begin : begin + model.dim]
                change = float((weight @ (mean - without)) @ vectors[row])
            assert change > 0
            assert float(torch.cosine_similarity(vectors[row], vectors[other], 0)) >= 0.2


def tell_alike(served: Served, user_id: str, *, not_liked: tuple[str, ...] = ()) -> None:
    """The same videos at the same times for every user, but that some are not liked."""
    day = now() // DAY_MS * DAY_MS - DAY_MS
    for place, video in enumerate(("v3", "v7", "v11")):
        time_ms = day + place * 1000
        served.tell(user_id, video, time_ms=time_ms, positive=video not in not_liked)


def test_a_video_that_is_not_liked_is_not_named(served: Served) -> None:
    """Histories differ in nothing but that; of two that do not differ the lists are equal."""
    at = now()
    tell_alike(served, "someone")
    tell_alike(served, "alike")
    listed = served.recommend("someone", 20, now_ms=at).videos
    assert served.recommend("alike", 20, now_ms=at).videos == listed
    resembling = by_kind(listed, "resembles")
    assert resembling
    for number, video in enumerate(resembling):
        assert video.reason is not None
        tell_alike(served, f"without{number}", not_liked=video.reason.video_ids)
        without = served.recommend(f"without{number}", 20, now_ms=at).videos
        for other in by_kind(without, "resembles"):
            assert other.reason is not None
            assert not set(other.reason.video_ids) & set(video.reason.video_ids)


NEW = Filters(video_ids=("v7", "v8", "v10", "v1"))


def test_new_from_a_creator_that_one_likes(served: Served) -> None:
    """v7 is of creator 1 + 7 % 3 = 2, as v4 is, and was shown today for the first time."""
    at = now()
    served.ages.first_ms_N[7] = at - 1000
    served.tell("someone", "v4", time_ms=at - 1000)
    served.tell("other", "v4", time_ms=at - 1000, positive=False)

    def said(user_id: str) -> list[tuple[str, Reason | None]]:
        videos = served.recommend(user_id, 20, now_ms=at, filters=NEW).videos
        return [(video.video_id, video.reason) for video in by_kind(videos, "creator")]

    assert said("someone") == [("v7", Reason("creator", creator_id="c2"))]
    assert said("other") == [], "seen, but not liked"
    served.ages.first_ms_N[7] = START_MS
    assert said("someone") == [], "liked, but not new"


def ordered(
    run: Path, trend: float, *, rank: str = "retrieval", **rerank: Any
) -> ServingRecommender:
    """A server that some videos trend at, with a weight of that, and lists in some order."""
    bundle = Bundle.load(str(run))
    with torch.no_grad():
        bundle.recommender.trending.fill_(trend)
    serve = bundle.config.serve.model_copy(update={"rank": rank})
    weights = RerankConfig(**rerank)
    catalog = bundle.catalog
    traits = VideoTraits(creator_row_N=catalog.creator_rows, categories=catalog.categories)
    config = bundle.config.model_copy(update={"serve": serve, "rerank": weights})
    served = ServingRecommender(
        replace(bundle, config=config, traits=traits if is_active(weights) else None)
    )
    rows = np.repeat(list(SHOWN), list(SHOWN.values()))
    times, nowhere = np.full(len(rows), SHOWN_MS), np.zeros((len(rows), 1), np.int64)
    counts = np.tile([1, 0, 0, 0], (len(rows), 1))
    served.bundle.counts.count_many(rows, nowhere, times, counts)
    served.parts.trending.follow()
    return served


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_said_to_be_popular_would_not_be_there_otherwise(tiny: TinyRun, order: str) -> None:
    """All that is said holds, and without an order of its own all that holds is said."""
    trending, calm = (ordered(tiny.run, trend, **ORDERS[order]) for trend in (TREND, 0.0))
    gains = trending.parts.trending.at(SHOWN_MS + DAY_MS // 2)
    num_said = 0
    for user_id, k in itertools.product(USERS, (3, 5, 10)):
        asked: dict[str, Any] = {"now_ms": SHOWN_MS + DAY_MS // 2, "exclude_seen": False}
        shown = trending.recommend(user_id, k, **asked).videos
        others = calm.recommend(user_id, k, **asked).videos
        assert not by_kind(others, "popular")
        said = {video.video_id for video in by_kind(shown, "popular")}
        gained = {video.video_id for video in shown} - {video.video_id for video in others}
        assert said <= gained
        if order == "retrieval":  # what only others' losses let in is not popular
            assert said == {video for video in gained if gains[int(video[1:])] > 0}
        num_said += len(said)
    assert num_said > 5


def test_what_is_popular_does_not_depend_on_who_else_asks(tiny: TinyRun) -> None:
    served, now_ms = ordered(tiny.run, TREND), SHOWN_MS + DAY_MS // 2
    asks = [Ask(user_id, k, now_ms=now_ms) for user_id in USERS for k in (3, 12)]
    together, alone = served.answer(asks), [served.answer([ask])[0] for ask in asks]
    reasons = [[video.reason for video in answer.videos] for answer in together]
    assert reasons == [[video.reason for video in answer.videos] for answer in alone]
    assert any(reason == Reason("popular") for reasons_of in reasons for reason in reasons_of)


def test_what_is_not_new_any_more_is_not_explored(tmp_path: Path) -> None:
    """The list is then that of a server that explores nothing."""
    make_run(tmp_path / "run", serve={"explore": 0.5, "max_k": 20})
    bundle = Bundle.load(str(tmp_path / "run"))
    served = ServingRecommender(bundle, seed=1)
    served.ages.first_ms_N[[3, 5, 9, 12]] = -1
    asked: dict[str, Any] = {"k": 10, "now_ms": LATER, "exclude_seen": False}
    assert by_kind(served.recommend("u9", **asked).videos, "explore")
    served.ages.first_ms_N[[3, 5, 9, 12]] = START_MS
    listed = served.recommend("u9", **asked).videos
    calm = bundle.with_settings(bundle.config.serve.model_copy(update={"explore": 0.0}))
    assert listed == ServingRecommender(calm).recommend("u9", **asked).videos
