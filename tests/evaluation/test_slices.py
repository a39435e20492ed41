"""Warm and cold videos, ranked among all and among their own, worked out by hand and by ranx."""

import math
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.simple import random_order
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.toplists import Part, TopLists, top_lists
from recsys.evaluation.ranking import evaluate_ranker
from recsys.evaluation.report.figures import summarise
from recsys.evaluation.report.tradeoff import reranked

NDCG_SECOND = 1 / math.log2(3)
OWN = ("warm_among_warm", "cold_among_cold")


def ranking_set(
    relevant: Sequence[Sequence[int]], known: Sequence[Sequence[int]], cold: Sequence[int]
) -> RankingSet:
    """Seven videos."""
    videos = VideoTable(np.isin(np.arange(8), cold), np.zeros(8, np.int64))
    users = [str(user) for user in range(len(relevant))]
    return RankingSet(users, Ragged.from_lists(relevant), Ragged.from_lists(known), videos)


def test_who_never_shows_cold_videos_wins_warm_by_that_alone() -> None:
    """Both order the warm videos alike; one shows the cold ones, 6 and 7, first, the other last."""
    data = ranking_set([[2, 6]], [[]], cold=[6, 7])
    scores = {
        "cold first": torch.tensor([[0.0, 5, 4, 3, 2, 1, 9, 8]]),
        "cold last": torch.tensor([[0.0, 5, 4, 3, 2, 1, -2, -1]]),
    }
    summaries = {
        name: summarise(
            data, evaluate_ranker(data, lambda a, b, s=s: s[a:b], EvaluateConfig(k=(2,))), CONFIG
        )
        for name, s in scores.items()
    }
    assert summaries["cold first"]["warm"]["ndcg@2"] == 0  # video 2 is in the fourth place of all
    assert summaries["cold last"]["warm"]["ndcg@2"] == pytest.approx(NDCG_SECOND)
    for one in summaries.values():  # 1, 2 among the warm
        assert one["warm_among_warm"]["ndcg@2"] == pytest.approx(NDCG_SECOND)
    assert (
        summaries["cold first"]["cold"]["hr@2"] == 1 and summaries["cold last"]["cold"]["hr@2"] == 0
    )
    assert summaries["cold first"]["cold_among_cold"]["ndcg@2"] == 1
    assert summaries["cold last"]["cold_among_cold"]["ndcg@2"] == pytest.approx(NDCG_SECOND)


CONFIG = EvaluateConfig(k=(2,), bootstrap=0)


def test_what_was_liked_before_is_left_out_of_the_slices_lists_too() -> None:
    data = ranking_set([[3]], [[1]], cold=[6, 7])
    scores = torch.tensor([[0.0, 5, 4, 3, 2, 1, 9, 8]])
    values = evaluate_ranker(data, lambda a, b: scores[a:b], CONFIG).slices
    assert values["warm_among_warm"].values["ndcg@2"] == pytest.approx([NDCG_SECOND])  # 2, 3
    unmasked = CONFIG.model_copy(update={"mask_history": False})
    values = evaluate_ranker(data, lambda a, b: scores[a:b], unmasked).slices
    assert values["warm_among_warm"].values["ndcg@2"] == [0]  # 1, 2


def test_ties_are_worth_their_expectation_among_a_slices_own() -> None:
    """Five warm videos and two cold ones: one of five in the first 2, one of two for sure."""
    data = ranking_set([[2, 6], [7]], [[], []], cold=[6, 7])
    slices = evaluate_ranker(data, random_order(8), CONFIG).slices
    assert slices["all"].values["hr@2"] == pytest.approx([1 - (5 / 7) * (4 / 6), 2 / 7])
    assert slices["warm_among_warm"].users.tolist() == [0]
    assert slices["warm_among_warm"].values["hr@2"] == pytest.approx([2 / 5])
    gain = (1 + NDCG_SECOND) / 5
    assert slices["warm_among_warm"].values["ndcg@2"] == pytest.approx([gain])
    assert slices["cold_among_cold"].values["hr@2"] == pytest.approx([1, 1])
    assert slices["cold_among_cold"].values["mrr@2"] == pytest.approx([3 / 4, 3 / 4])


def test_a_tie_across_the_slices_is_none_within_them() -> None:
    """Warm 1 and cold 6 tie for the first place, warm 2 and cold 7 for the third."""
    data = ranking_set([[1, 7]], [[]], cold=[6, 7])
    scores = torch.tensor([[0.0, 5, 4, 3, 2, 1, 5, 4]])
    slices = evaluate_ranker(data, lambda a, b: scores, EvaluateConfig(k=(1,))).slices
    assert slices["warm"].values["hr@1"] == [1 / 2] and slices["cold"].values["hr@1"] == [0]
    assert slices["warm_among_warm"].values["hr@1"] == [1]
    assert slices["cold_among_cold"].values["hr@1"] == [0]


def test_without_cold_videos_warm_is_all() -> None:
    data = ranking_set([[2], [5]], [[], []], cold=[])
    scores = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    summary = summarise(data, evaluate_ranker(data, lambda a, b: scores[a:b], CONFIG), CONFIG)
    assert summary["warm_among_warm"] == summary["warm"] == summary["all"]
    assert summary["cold"] == summary["cold_among_cold"] == {"users": 0}


def drawn_scores(num_values: int) -> tuple[torch.Tensor, list[Part]]:
    """Scores (20, 40) of so many values, some left out, and two parts of the videos."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(num_values, (20, 40), generator=generator).float()
    scores[torch.rand(20, 40, generator=generator) < 0.2] = -torch.inf
    is_in = torch.rand(40, generator=generator) < 0.2
    is_in[0] = False
    everyone = torch.ones(20, dtype=torch.bool)
    rest = ~is_in & (torch.arange(40) > 0)
    return scores, [Part("a", is_in, everyone), Part("b", rest, everyone)]


def scores_by_user(lists: Iterable[TopLists]) -> dict[int, list[float]]:
    """The scores of each user's list, without places that nothing is in."""
    return {
        user: row[row > -torch.inf].tolist()
        for one in lists
        for user, row in zip(one.user_B.tolist(), one.score_BK, strict=True)
    }


def content(lists: TopLists) -> list[object]:
    """What a list says: its videos, or, where there are ties, which places each may have."""
    assert lists.score_BK is not None
    tied = [lists.video_BK] if lists.ties is None else [lists.ties.start_BK, lists.ties.size_BK]
    shown = [lists.user_B, lists.score_BK, *tied]
    return [lists.ties is None, *(tensor.tolist() for tensor in shown)]


MANY_TIES_OR_FEW = pytest.mark.parametrize("num_values", [3, 10**6])
DEPTHS = pytest.mark.parametrize("depth", [1, 5, 60])


@MANY_TIES_OR_FEW
@DEPTHS
def test_the_lists_of_all_are_the_same_with_and_without_parts(num_values: int, depth: int) -> None:
    scores, parts = drawn_scores(num_values)
    alone = top_lists(torch.arange(20), scores, depth)
    beside = top_lists(torch.arange(20), scores, depth, parts)
    of_all = [content(lists) for lists in beside if lists.among == "all"]
    assert of_all == [content(lists) for lists in alone]


@MANY_TIES_OR_FEW
@DEPTHS
def test_the_lists_of_a_part_are_those_with_the_other_videos_left_out(
    num_values: int, depth: int
) -> None:
    scores, parts = drawn_scores(num_values)
    beside = list(top_lists(torch.arange(20), scores, depth, parts))
    for part in parts:
        left_out = scores.masked_fill(~part.is_in_N, -torch.inf)
        expected = scores_by_user(top_lists(torch.arange(20), left_out, depth))
        assert scores_by_user(one for one in beside if one.among == part.name) == expected


def test_re_ranked_lists_are_measured_among_their_own() -> None:
    """Videos that are new come first: 4 of the warm, 7 of the cold."""
    age = np.array([0, 9, 9, 9, 0, 9, 9, 0.0])
    videos = VideoTable(np.isin(np.arange(8), [6, 7]), np.zeros(8, np.int64), age_days_N=age)
    data = RankingSet(["a"], Ragged.from_lists([[4, 7]]), Ragged.empty(1), videos)
    scores = torch.tensor([[0.0, 7, 6, 5, 4, 3, 2, 1]])
    config = EvaluateConfig(k=(1,))
    result = reranked(data, lambda a, b: scores[a:b], config, RerankConfig(new_videos=2, page=1))
    plain = evaluate_ranker(data, lambda a, b: scores[a:b], config)
    for name in OWN:
        assert result.slices[name].values["hr@1"] == [1]
        assert plain.slices[name].values["hr@1"] == [0]


def test_drawn_videos_are_of_the_slice() -> None:
    videos = VideoTable(
        np.isin(np.arange(8), [6, 7]), np.zeros(8, np.int64), np.array([0, 1, 1, 1, 1, 1, 2, 2])
    )
    relevant = Ragged.from_lists([[1, 6]] * 20)
    data = RankingSet([str(u) for u in range(20)], relevant, Ragged.empty(20), videos)
    scores = torch.arange(8.0).flip(0).repeat(20, 1)
    config, rerank = EvaluateConfig(k=(2,)), RerankConfig(drawn_places=2, page=2)
    result = reranked(data, lambda a, b: scores[a:b].clone(), config, rerank)
    # The draw gives either creator's best; among the cold there are only 6 and 7.
    assert result.slices["cold_among_cold"].values["hr@2"].tolist() == [1] * 20
    assert result.slices["warm_among_warm"].values["hr@2"].tolist() == [1] * 20


def test_own_slices_are_those_of_ranx() -> None:
    """Lists of the slice's videos alone, given to other code."""
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    ranx = pytest.importorskip("ranx", reason="ranx is not installed; it comes with the dev extra")
    rng = np.random.default_rng(0)
    num_users, num_videos = 60, 120
    cold_N = rng.random(num_videos) < 0.3
    relevant = [
        rng.choice(np.arange(1, num_videos), rng.integers(1, 12), replace=False)
        for _ in range(num_users)
    ]
    known = [np.setdiff1d(rng.integers(1, num_videos, 20), rows) for rows in relevant]
    scores = torch.from_numpy(rng.random((num_users, num_videos)))
    users = [f"u{number:03}" for number in range(num_users)]
    videos = VideoTable(cold_N, np.zeros(num_videos, np.int64))
    data = RankingSet(users, Ragged.from_lists(relevant), Ragged.from_lists(known), videos)
    config = EvaluateConfig(k=(5, 20))
    ours = evaluate_ranker(data, lambda a, b: scores[a:b], config).slices
    for name, mask_N in zip(OWN, (~cold_N, cold_N), strict=True):
        rows = np.flatnonzero(mask_N[1:]) + 1
        asked = [u for u in range(num_users) if np.isin(relevant[u], rows).any()]
        assert ours[name].users.tolist() == asked
        qrels = {users[u]: {str(r): 1 for r in np.intersect1d(relevant[u], rows)} for u in asked}
        run = {
            users[u]: {str(r): scores[u, r].item() for r in np.setdiff1d(rows, known[u])}
            for u in asked
        }
        for metric, theirs in (("ndcg", "ndcg"), ("recall", "recall"), ("map", "map")):
            for k in (5, 20):
                expected = ranx.evaluate(
                    ranx.Qrels(qrels), ranx.Run(run), f"{theirs}@{k}", return_mean=False
                )
                values = ours[name].values[f"{metric}@{k}"]
                assert np.abs(values - expected).max() < 1e-9, (name, metric, k)
