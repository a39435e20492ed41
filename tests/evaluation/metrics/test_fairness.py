import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.fairness import (
    Grouped,
    creator_exposure,
    gini,
    new_video_exposure,
    popularity_bias,
    quality_gap,
    top_share,
)
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker

CONFIG = EvaluateConfig(k=(2,), bootstrap=50, mask_history=False)


def test_gini_by_hand() -> None:
    # Mean absolute difference over twice the mean: pairs of 1, 3 differ by 2, of 4 ordered pairs
    # two differ, so (2 · 2 / 4) / (2 · 2) = 1/4.
    assert gini(np.array([1.0, 3.0])) == pytest.approx(1 / 4)
    assert gini(np.array([3.0, 1.0])) == pytest.approx(1 / 4)
    assert gini(np.zeros(3)) == 0


def test_top_share_is_of_at_least_one() -> None:
    assert top_share(np.array([1.0, 3.0])) == 3 / 4
    assert top_share(np.zeros(3)) == 0


def data(num_users: int = 2) -> RankingSet:
    videos = VideoTable(
        cold_N=np.zeros(6, np.bool_),
        popularity_N=np.array([0, 10, 4, 2, 0, 4]),
        creator_row_N=np.array([9, 1, 1, 2, 3, 0], np.int32),
        age_days_N=np.array([0, 10, 10, 10, 1, np.nan]),
    )
    relevant = Ragged.from_lists([[1], [4]] * (num_users // 2))
    known = Ragged.from_lists([[2, 2, 3], []] * (num_users // 2))
    return RankingSet([str(user) for user in range(num_users)], relevant, known, videos)


def test_creator_exposure_by_hand() -> None:
    # Lists 1, 2 and 1, 5: places of creators 1, 2, 3: 3, 0, 0, and one of an unknown creator.
    scores = torch.tensor([[0.0, 5, 4, 3, 2, 1], [0.0, 5, 3, 2, 1, 4]])
    result = evaluate_ranker(data(), lambda a, b: scores[a:b], CONFIG)
    exposure = creator_exposure(data(), result.exposure[2])
    assert exposure["creators"] == 3 and exposure["shown"] == pytest.approx(1 / 3)
    assert exposure["unknown_creator"] == pytest.approx(1 / 4)
    assert exposure["gini"] == pytest.approx(2 / 3) and exposure["top_1_percent"] == 1
    # What users liked: creators 1 and 3 half each.
    assert exposure["mismatch"] == pytest.approx(1 / 2)
    assert exposure["relevance"]["gini"] == pytest.approx(1 / 3)
    # By known positives: creator 1, then 2 and 3; the bands have 0, 0, 2 and 1 of three.
    bands = {band["band"]: band for band in exposure["bands"]}
    assert [band["creators"] for band in exposure["bands"]] == [0, 0, 2, 1]
    assert bands["next 40 %"]["exposure"] == 1 and bands["next 40 %"]["videos"] == 3 / 4
    assert bands["last 50 %"]["relevance"] == pytest.approx(1 / 2)
    low, high = exposure["ci"]["gini"]
    assert low <= exposure["gini"] <= high


def test_new_videos() -> None:
    # Videos 4 and 5 are new. One of two relevant ones is.
    exposure = new_video_exposure(data(), np.array([0.5, 0.0]), 3)
    assert exposure == {"days": 3, "exposure": 0.25, "catalogue": 2 / 5, "relevance": 1 / 2}


def test_popularity_bias() -> None:
    # The first user's history is 4, 4, 2 and the second has none.
    bias = popularity_bias(data(), np.array([5.0, 100.0]))
    assert bias["users"] == 1 and bias["history"] == pytest.approx(10 / 3)
    assert bias["lift"] == pytest.approx(0.5)
    assert len(bias["by_taste"]) == 1
    without = popularity_bias(data().select(np.array([1])), np.array([1.0]))
    assert without["lift"] is None


def grouped(*names: str | None) -> Grouped:
    users = len(names)
    base = data(users + users % 2)
    groups = {"sex": [*names, *([None] * (users % 2))]}
    return Grouped.of(
        RankingSet(base.user_ids, base.relevant, base.known, base.videos, groups), "sex"
    )


def test_groups_are_in_order_of_size() -> None:
    groups = grouped("a", None, "b", "b")
    assert groups.names == ("b", "a") and groups.group_U.tolist() == [1, -1, 0, 0]
    many = grouped(*(str(number % 25) for number in range(51)))
    assert len(many.names) == 20 and many.left_out == 5


def test_gap_between_groups() -> None:
    groups = grouped(*["a"] * 150, *["b"] * 150, *["c"] * 10)
    rng = np.random.default_rng(0)
    values = rng.random(310)
    values[groups.group_U == groups.names.index("b")] += 0.3
    gap = quality_gap(groups, values, CONFIG)
    assert (gap["best"], gap["worst"]) == ("b", "a")
    assert gap["gap"] == pytest.approx(0.3, abs=0.1)
    low, high = gap["ci"]
    assert low < gap["gap"] < high and gap["p"] == pytest.approx(1 / 1000)
    assert gap["warnings"] == ["c has too few users to say (10)"]


def test_a_gap_by_luck_is_called_one() -> None:
    groups = grouped(*["a"] * 150, *["b"] * 150)
    gap = quality_gap(groups, np.random.default_rng(0).random(300), CONFIG)
    assert gap["gap"] > 0 and gap["p"] > 0.05


def test_one_large_group_has_no_gap() -> None:
    gap = quality_gap(grouped(*["a"] * 150, *["b"] * 10), np.ones(160), CONFIG)
    assert gap["gap"] is None and len(gap["warnings"]) == 2
