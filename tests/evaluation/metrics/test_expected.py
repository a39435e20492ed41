import itertools
import math

import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.expected import hits_without_ties, ideal_gain
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.table import metrics_at
from recsys.evaluation.ranking import evaluate_ranker

ORDERS = list(itertools.permutations(range(1, 7)))


def test_metrics_by_hand() -> None:
    # Relevant at positions 2 and 4, and a third relevant video is not in the list.
    hits = hits_without_ties(torch.tensor([[0, 1, 0, 1]]))
    values = {k: v.item() for k, v in metrics_at(hits, torch.tensor([3]), [1, 2, 4]).items()}
    assert values["hr@1"] == 0 and values["hr@2"] == 1
    assert values["recall@2"] == pytest.approx(1 / 3) and values["recall@4"] == pytest.approx(2 / 3)
    assert values["precision@2"] == 1 / 2 and values["precision@4"] == 1 / 2
    assert values["mrr@1"] == 0 and values["mrr@4"] == 1 / 2
    assert values["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["ndcg@4"] == pytest.approx(gain / ideal)
    # With two places the ideal list holds two of the three.
    assert values["ndcg@2"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_ideal_gain() -> None:
    assert ideal_gain(2).tolist() == pytest.approx([0, 1, 1 + 1 / math.log2(3)])


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
@pytest.mark.parametrize(
    "scores",
    [
        [0, 0, 0, 0, 0, 0],  # nothing is said at all
        [3, 1, 1, 1, 1, 0],  # a group that goes on beyond the cutoff
        [2, 2, 1, 1, 0, 0],
        [5, 4, 3, 2, 1, 0],
        [1, 1, 1, 0, 0, -math.inf],  # a video that is left out
    ],
)
@pytest.mark.parametrize("relevant", [[1], [2, 5], [1, 3, 4], [1, 2, 3, 4, 5]])
def test_ties_give_the_mean_over_all_orders(
    k: int, scores: list[float], relevant: list[int]
) -> None:
    data = ranking_set([relevant], num_videos=7)
    tied = torch.tensor([[9.0, *scores]])
    result = evaluate_ranker(data, lambda start, stop: tied, EvaluateConfig(k=(k, 4)))

    # What a stable sort of every order of the videos would give.
    ranked = [sorted(order, key=lambda row: -scores[row - 1]) for order in ORDERS]
    hit = [[row in relevant and scores[row - 1] > -math.inf for row in rows] for rows in ranked]
    num_relevant = torch.full((len(hit),), len(relevant))
    every = metrics_at(hits_without_ties(torch.tensor(hit)), num_relevant, [k])
    expected = {name: value.mean().item() for name, value in every.items()}
    values = result.slices["all"].values
    assert {name: values[name][0] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_all_equal_scores_in_closed_form() -> None:
    # 1 relevant of 20 ranked videos: it is in the first 5 with 5/20, at each place with 1/20.
    data = ranking_set([[7]], num_videos=21)
    equal = torch.zeros(1, 21)
    values = evaluate_ranker(data, lambda a, b: equal, EvaluateConfig(k=(5,))).slices["all"].values
    assert values["hr@5"][0] == pytest.approx(1 / 4, abs=1e-12)
    assert values["recall@5"][0] == pytest.approx(1 / 4, abs=1e-12)
    assert values["precision@5"][0] == pytest.approx(1 / 20, abs=1e-12)
    assert values["mrr@5"][0] == pytest.approx(sum(1 / j for j in range(1, 6)) / 20, abs=1e-12)
    gain = sum(1 / math.log2(j + 1) for j in range(1, 6)) / 20
    assert values["ndcg@5"][0] == pytest.approx(gain, abs=1e-12)


def ranking_set(relevant: list[list[int]], *, num_videos: int) -> RankingSet:
    videos = VideoTable(
        torch.zeros(num_videos).bool().numpy(), torch.zeros(num_videos).long().numpy()
    )
    users = [str(number) for number in range(len(relevant))]
    return RankingSet(users, Ragged.from_lists(relevant), Ragged.empty(len(users)), videos)
