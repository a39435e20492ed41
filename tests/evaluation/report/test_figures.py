import json

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.data.storage import finite
from recsys.evaluation.baselines.simple import random_order
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker
from recsys.evaluation.report.figures import summarise


def data(num_users: int = 240) -> RankingSet:
    rng = np.random.default_rng(0)
    videos = VideoTable(
        cold_N=np.arange(30) >= 25,
        popularity_N=rng.integers(0, 9, 30),
        creator_row_N=rng.integers(0, 6, 30).astype(np.int32),
        categories=Ragged.from_lists([[number % 3] for number in range(30)]),
        age_days_N=rng.uniform(-1, 40, 30),
    )
    relevant = Ragged.from_lists([[1 + user % 29] for user in range(num_users)])
    known = Ragged.from_lists([range(1, 1 + user % 7) for user in range(num_users)])
    groups = {"region": ["north" if user % 2 else "south" for user in range(num_users)]}
    return RankingSet([str(user) for user in range(num_users)], relevant, known, videos, groups)


def test_summary_has_every_slice_and_is_json() -> None:
    config = EvaluateConfig(k=(3, 5), bootstrap=40, mask_history=False)
    ranking_set = data()
    scores = torch.rand(240, 30, generator=torch.Generator().manual_seed(0))
    result = evaluate_ranker(ranking_set, lambda a, b: scores[a:b], config)
    summary = summarise(ranking_set, result, config)
    json.dumps(finite(summary), allow_nan=False)

    values = result.slices["all"].values["ndcg@5"]
    assert summary["all"]["users"] == 240
    assert summary["all"]["ndcg@5"] == pytest.approx(values.mean())
    low, high = summary["all"]["ci"]["ndcg@5"]
    assert low < values.mean() < high
    cold = np.array([1 + user % 29 >= 25 for user in range(240)])
    assert summary["cold"]["users"] == cold.sum()
    assert summary["cold"]["hr@5"] == pytest.approx(
        result.slices["all"].values["hr@5"][cold].mean()
    )
    none = np.arange(240) % 7 == 0
    assert summary["no_history"]["users"] == none.sum() == summary["history"]["0"]["users"]
    assert summary["no_history"]["mrr@3"] == pytest.approx(
        result.slices["all"].values["mrr@3"][none].mean()
    )
    assert list(summary["history"]) == ["0", "1 to 4", "5 to 19", "20 to 99", "100 or more"]
    assert summary["history"]["100 or more"] == {"users": 0}
    assert sum(part["users"] for part in summary["video_age"].values()) == 240
    region = summary["groups"]["region"]
    assert region["quality"]["north"]["users"] == 120 and region["metric"] == "ndcg@5"
    assert {"coverage@3", "novelty@5", "diversity@3", "average_popularity@5", "new@3"} <= set(
        summary
    )
    assert set(summary["ci"]) >= {"coverage@3", "average_popularity@5"}
    assert summary["creators"]["k"] == 5 and summary["new_videos"]["days"] == 3


def test_without_bootstrap_and_metadata() -> None:
    whole = data()
    bare = VideoTable(whole.videos.cold_N, whole.videos.popularity_N)
    plain = RankingSet(whole.user_ids, whole.relevant, whole.known, bare)
    config = EvaluateConfig(k=(3,), bootstrap=0)
    summary = summarise(plain, evaluate_ranker(plain, random_order(30), config), config)
    assert "ci" not in summary["all"] and "creators" not in summary and "new_videos" not in summary
    assert summary["groups"] == {} and summary["ci"]["novelty@3"] is None


def test_per_user_columns() -> None:
    config = EvaluateConfig(k=(3,), mask_history=False)
    result = evaluate_ranker(data(), random_order(30), config)
    columns = result.per_user()
    assert all(len(column) == 240 for column in columns.values())
    assert np.isnan(columns["cold/ndcg@3"]).sum() == 240 - len(result.slices["cold"].users)
    assert columns["hr@3"] == pytest.approx(np.full(240, 3 / 29))


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(240, 7\) for users 0 to 240 and 30 video rows"):
        evaluate_ranker(data(), lambda a, b: torch.zeros(b - a, 7), EvaluateConfig())


def test_nan_is_refused() -> None:
    scores = torch.zeros(240, 30)
    scores[3, 7] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        evaluate_ranker(data(), lambda a, b: scores[a:b], EvaluateConfig())


def test_masked_history_leaves_the_scores_alone() -> None:
    scores = torch.arange(30.0).flip(0).repeat(240, 1)
    config = EvaluateConfig(k=(1,))  # masks where nothing else is said
    result = evaluate_ranker(data(), lambda a, b: scores[a:b], config)
    assert (scores == torch.arange(30.0).flip(0)).all()
    # Users know the first user % 7 videos, so the next one is shown.
    shown = np.bincount([1 + user % 7 for user in range(240)], minlength=30)
    assert result.exposure[1].shown_N.tolist() == shown.tolist()


def test_the_unknown_video_is_never_ranked() -> None:
    scores = torch.zeros(240, 30)
    scores[:, 0] = 99
    result = evaluate_ranker(
        data(), lambda a, b: scores[a:b], EvaluateConfig(k=(50,), mask_history=False)
    )
    assert result.exposure[50].shown_N[0] == 0
    assert result.exposure[50].shown_N[1:] == pytest.approx(np.full(29, 240))
    assert (result.slices["all"].values["hr@50"] == 1).all()
