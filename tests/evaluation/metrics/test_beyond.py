"""Novelty, diversity, coverage and exposure, by hand and against every order of tied videos."""

import itertools
import math

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.beyond import self_information
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import RankerResult, evaluate_ranker

VIDEOS = VideoTable(
    cold_N=np.array([0, 0, 0, 0, 0, 1], np.bool_),
    popularity_N=np.array([99, 7, 3, 1, 0, 0]),
    categories=Ragged.from_lists([[], [1], [1, 2], [2], [], []]),
    age_days_N=np.array([0, 10, 3, 2.5, np.nan, -1]),
)


def data(num_users: int = 1) -> RankingSet:
    users = [str(number) for number in range(num_users)]
    return RankingSet(users, Ragged.from_lists([[1]] * num_users), Ragged.empty(num_users), VIDEOS)


def evaluate(scores: list[list[float]], *cutoffs: int) -> RankerResult:
    table = torch.tensor([[0.0, *row] for row in scores])
    config = EvaluateConfig(k=cutoffs)
    return evaluate_ranker(data(len(scores)), lambda a, b: table[a:b], config, new_days=3)


def test_self_information() -> None:
    # Positives with one more each: 8, 4, 2, 1, 1 of 16.
    assert self_information(VIDEOS)[1:].tolist() == [1, 2, 3, 4, 4]


def test_lists_by_hand() -> None:
    lists = evaluate([[5, 4, 3, 2, 1]], 1, 2, 3, 5).lists
    assert lists["novelty@1"][0] == 1 and lists["novelty@3"][0] == 2
    assert lists["popularity@2"][0] == 5 and lists["popularity@5"][0] == 11 / 5
    # Videos 3 (2.5 days), 4 (unknown) and 5 (after the cut) are new, and 2 (3 days) just about.
    assert lists["new@1"][0] == 0 and lists["new@5"][0] == 4 / 5
    assert math.isnan(lists["diversity@1"][0])
    # [1] and [1, 2]: cosine 1/√2. [1, 2] and [2]: as much. [1] and [2]: 0.
    assert lists["diversity@2"][0] == pytest.approx(1 - 1 / math.sqrt(2))
    assert lists["diversity@3"][0] == pytest.approx(1 - (2 / math.sqrt(2)) / 3)
    # Videos 4 and 5 have no category and count as alike: 3 alike pairs of 10.
    assert lists["diversity@5"][0] == pytest.approx(1 - (2 / math.sqrt(2) + 1) / 10)


def test_coverage_and_exposure_by_hand() -> None:
    exposure = evaluate([[5, 4, 3, 2, 1], [5, 1, 2, 3, 4]], 2).exposure[2]
    assert exposure.shown_N.tolist() == [0, 2, 1, 0, 0, 1]
    assert exposure.coverage() == pytest.approx(3 / 5)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "scores",
    [[0, 0, 0, 0, 0], [2, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 2, 2, 1, 1], [0, 0, 1, 0, -math.inf]],
)
def test_ties_give_the_mean_over_all_orders(k: int, scores: list[float]) -> None:
    # Every order once, as a user whose scores have no ties, at a distance that sorts alike.
    orders = list(itertools.permutations(range(5)))
    untied = [[s + 0.01 * o for s, o in zip(scores, order, strict=True)] for order in orders]
    every, tied = evaluate(untied, k), evaluate([scores], k, 4)
    for name, values in every.lists.items():
        assert tied.lists[name][0] == pytest.approx(values.mean(), nan_ok=True), name
    shown = tied.exposure[k].shown_N
    assert shown == pytest.approx(every.exposure[k].shown_N / len(orders))
    assert tied.exposure[k].coverage() == pytest.approx(shown.sum() / 5)


def test_coverage_of_a_random_order() -> None:
    # A video is missed by a list of 2 of 5 with 3/5, and by three lists with its cube.
    exposure = evaluate([[0.0] * 5] * 3, 2).exposure[2]
    assert exposure.coverage() == pytest.approx(1 - (3 / 5) ** 3)
    assert exposure.shown_N[1:] == pytest.approx(np.full(5, 6 / 5))
    # Of 20 blocks three hold a user; without one of them two lists remain.
    blocks = [exposure.coverage(without_block=block) for block in range(20)]
    assert min(blocks) == pytest.approx(1 - (3 / 5) ** 2)


def test_duplicate_category_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        VideoTable(
            np.zeros(2, np.bool_), np.zeros(2, np.int64), categories=Ragged.from_lists([[], [3, 3]])
        )
