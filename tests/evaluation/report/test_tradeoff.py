import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.data.ragged import Ragged
from recsys.evaluation import ranking
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker
from recsys.evaluation.report.tradeoff import draw_sample, reranked, reranked_lists, tradeoff
from recsys.inference.ranker import Ranker, dot_product
from recsys.inference.rerank import LEVERS

CONFIG = EvaluateConfig(k=(10,), bootstrap=40)


def world(num_users: int = 400, num_videos: int = 301) -> tuple[RankingSet, Ranker]:
    """Users like videos near them in taste; the model sees taste, and a bias for some creators."""
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(num_users, 4))
    kinds = rng.normal(size=(num_videos, 4))
    creators = rng.integers(1, 61, num_videos).astype(np.int32)
    loved = rng.gumbel(size=(num_users, num_videos)) + 1.5 * tastes @ kinds.T
    loved[:, 0] = -np.inf
    relevant = Ragged.from_lists(np.sort(np.argsort(-loved)[:, :5]).tolist())
    bias = 1.0 * (creators <= 6)
    queries = torch.from_numpy(np.c_[1.5 * tastes, np.ones(num_users)]).float()
    vectors = torch.from_numpy(np.c_[kinds, bias]).float()
    videos = VideoTable(
        cold_N=np.zeros(num_videos, np.bool_),
        popularity_N=np.bincount(relevant.values, minlength=num_videos),
        creator_row_N=creators,
        categories=Ragged.from_lists([[int(kind.argmax()) + 1] for kind in kinds]),
        age_days_N=rng.uniform(0, 30, num_videos),
    )
    users = [str(user) for user in range(num_users)]
    data = RankingSet(users, relevant, Ragged.empty(num_users), videos)
    return data, dot_product(queries, vectors)


def test_without_weights_the_lists_are_those_of_the_ranker() -> None:
    data, ranker = world()
    result = reranked(data, ranker, CONFIG, RerankConfig())
    plain = evaluate_ranker(data, ranker, CONFIG)
    for name, values in plain.per_user().items():
        assert result.per_user()[name] == pytest.approx(values, nan_ok=True), name


def test_each_lever_moves_what_it_is_for() -> None:
    data, ranker = world()
    curve = tradeoff(data, ranker, CONFIG, RerankConfig())
    assert curve["users"] == 400 and curve["plain"]["ndcg_change"] == 0
    assert {lever: len(points) for lever, points in curve["levers"].items()} == {
        lever.setting: len(lever.grid) for lever in LEVERS
    }
    levers, plain = curve["levers"], curve["plain"]
    assert levers["diversity"][-1]["diversity"] > plain["diversity"] + 0.05
    assert levers["new_videos"][-1]["new"] > 1.5 * plain["new"]
    # Creator exposure becomes much more even at little loss where many videos are nearly as good.
    cheap = [point for point in levers["creator_exposure"] if point["ndcg_change"] > -0.02]
    assert min(point["gini_change"] for point in cheap) < -0.2
    assert curve["limits"]["lowest_gini"] == 0
    assert curve["configured"] is None


def test_a_catalogue_of_which_few_users_fit_at_a_time_has_the_same_curve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, ranker = world(20)
    whole = tradeoff(data, ranker, CONFIG, RerankConfig(diversity=0.2))
    monkeypatch.setattr(ranking, "CHUNK_SCORES", 7 * data.num_videos)
    assert tradeoff(data, ranker, CONFIG, RerankConfig(diversity=0.2)) == whole


def test_of_one_creator_nothing_can_be_evened_out() -> None:
    data, ranker = world(20)
    alone = replace(data.videos, creator_row_N=np.ones(data.num_videos, np.int64))
    curve = tradeoff(replace(data, videos=alone), ranker, CONFIG, RerankConfig())
    assert (curve["plain"]["gini"], curve["plain"]["gini_change"]) == (0, 0)


def test_the_configured_point_is_on_its_lever() -> None:
    data, ranker = world(100)
    curve = tradeoff(data, ranker, CONFIG, RerankConfig(diversity=0.2))
    same = next(p for p in curve["levers"]["diversity"] if p["weights"] == {"diversity": 0.2})
    assert curve["configured"]["ndcg"] == same["ndcg"]
    assert curve["configured"]["diversity"] == same["diversity"]


def test_levers_without_metadata_are_left_out() -> None:
    data, ranker = world(60)
    bare = VideoTable(data.videos.cold_N, data.videos.popularity_N)
    curve = tradeoff(dataclasses.replace(data, videos=bare), ranker, CONFIG, RerankConfig())
    assert curve["levers"] == {} and curve["limits"] is None
    assert "gini" not in curve["plain"]


@pytest.mark.parametrize(("num_users", "num_calls"), [(30, 1), (7, 7)])
def test_users_of_a_sample_are_scored_together_where_they_lie_near(
    num_users: int, num_calls: int
) -> None:
    data, ranker = world(50)
    asked: list[tuple[int, int]] = []

    def counted(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return ranker(start, stop)

    sample = draw_sample(data, counted, CONFIG, 20, num_users)
    assert len(asked) == num_calls
    whole = draw_sample(data, ranker, CONFIG, 20, 50)
    users = [int(user) for user in sample.data.user_ids]
    assert (sample.video_SC == whole.video_SC[users]).all()


def test_a_sample_is_of_the_right_users() -> None:
    data, ranker = world(50)
    sample = draw_sample(data, ranker, CONFIG, 20, 7)
    again = draw_sample(data, ranker, CONFIG, 20, 7)
    assert sample.data.user_ids == again.data.user_ids and len(sample.data.user_ids) == 7
    whole = draw_sample(data, ranker, CONFIG, 20, 50)
    users = [int(user) for user in sample.data.user_ids]
    assert (sample.video_SC == whole.video_SC[users]).all()
    assert sample.relevance_SC[:, 0].tolist() == [1] * 7
    for row, user in enumerate(users):
        relevant = data.relevant.pairs(user, user + 1)[1]
        assert sample.data.relevant.pairs(row, row + 1)[1].tolist() == relevant.tolist()


def test_drawn_creators_even_out_exposure_beyond_the_candidates() -> None:
    data, ranker = world(400)
    rerank = RerankConfig(candidates=10)
    points = tradeoff(data, ranker, CONFIG, rerank)["levers"]["drawn_places"]
    assert [point["weights"]["drawn_places"] for point in points] == [1, 2, 3, 4]
    losses = [point["ndcg_change"] for point in points]
    assert losses == sorted(losses, reverse=True) and losses[0] < 0
    # Each place in ten takes about a tenth from the others.
    assert points[1]["gini_change"] == pytest.approx(-0.2, abs=0.05)


def test_drawn_videos_are_not_what_the_user_already_likes() -> None:
    data, ranker = world(50)
    data = dataclasses.replace(data, known=Ragged.from_lists([range(1, 290)] * 50))
    rerank = RerankConfig(drawn_places=3)
    for lists in reranked_lists(data, ranker, CONFIG, rerank):
        assert (lists.video_BK >= 290).all()
        for row in lists.video_BK.tolist():
            assert len(set(row)) == len(row)
