"""What other projects were told of their evaluations, tried on this one: see tests/README.md."""

import math

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.likes import Likes
from recsys.evaluation.baselines.simple import random_order
from recsys.evaluation.baselines.table import make_baselines
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker, ranked
from recsys.evaluation.report.tradeoff import reranked_lists


def ranking_set(relevant: list[list[int]], known: list[list[int]], num_videos: int) -> RankingSet:
    counts = np.bincount(np.concatenate(known).astype(np.int64), minlength=num_videos)
    videos = VideoTable(np.arange(num_videos) % 3 == 0, counts, age_days_N=np.ones(num_videos))
    users = [str(user) for user in range(len(relevant))]
    return RankingSet(users, Ragged.from_lists(relevant), Ragged.from_lists(known), videos)


def test_what_was_liked_before_is_in_nobodys_list() -> None:
    """Some rankers masked and some not (RecBole #2038), or none though training fits them (cornac
    #523): the lists of all, also re-ranked and among their own, hold no known video."""
    rng = np.random.default_rng(0)
    known = [rng.choice(np.arange(1, 40), 12, replace=False).tolist() for _ in range(50)]
    relevant = [
        [int(np.setdiff1d(np.arange(1, 40), rows)[user % 9])] for user, rows in enumerate(known)
    ]
    data = ranking_set(relevant, known, 40)
    config = EvaluateConfig(k=(5,), bootstrap=0)
    likes = Likes(data.known, np.arange(600), np.tile([0] * 9 + [1] * 3, 50).astype(np.int8))
    rankers = make_baselines(likes, data, config).rankers
    assert {"popularity", "recent popularity", "item-kNN", "EASE", "random"} <= set(rankers)
    for name, ranker in rankers.items():
        plain = ranked(data, ranker, config, depth=5, own=True)
        after = reranked_lists(
            data,
            lambda a, b, r=ranker: r(a, b).float(),
            config,
            RerankConfig(new_videos=0.5, page=5, candidates=10),
        )
        for lists in (*plain, *after):
            for user, row in zip(lists.user_B.tolist(), lists.video_BK.tolist(), strict=True):
                assert not set(row) & set(known[user]), (name, lists.among)


def test_equal_scores_favour_nobody() -> None:
    """A constant model scored NDCG 1.0 (elixir-nx/scholar #360), or what its documents' names gave
    it (trec_eval #22): here the mean over all orders, by whatever name and in whatever row."""
    ndcgs = []
    for shift in range(6):
        data = ranking_set([[1 + shift, 1 + (shift + 3) % 6]], [[]], 7)
        values = evaluate_ranker(data, random_order(7), EvaluateConfig(k=(6,))).slices["all"].values
        ndcgs.append(float(values["ndcg@6"][0]))
    places = sum(1 / math.log2(place + 1) for place in range(1, 7))
    assert ndcgs == pytest.approx([2 * places / 6 / (1 + 1 / math.log2(3))] * 6)


def test_ndcg_is_neither_above_1_nor_kinder_to_short_lists() -> None:
    """Cut at k it was 1.21 (lkpy #309); one hit of five was 1.0 for who returned no more
    (elasticsearch #154362)."""
    data = ranking_set([[1, 2, 3, 4, 5]] * 2, [[], []], 20)
    scores = torch.arange(20.0).flip(0).repeat(2, 1)
    scores[1, 2:] = -torch.inf  # the second user's list is video 1 alone
    config = EvaluateConfig(k=(2, 10), bootstrap=0)
    values = evaluate_ranker(data, lambda a, b: scores[a:b], config).slices["all"].values
    assert values["ndcg@2"].tolist() == pytest.approx([1, 1 / (1 + 1 / math.log2(3))])
    ideal = sum(1 / math.log2(place + 1) for place in range(1, 6))
    assert values["ndcg@10"].tolist() == pytest.approx([1, 1 / ideal])
