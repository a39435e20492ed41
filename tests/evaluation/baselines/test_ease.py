"""EASE by hand, by another solver, and restricted to the most popular videos."""

import numpy as np
import pytest
import torch

from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.ease import Gram
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable


def of_users(known: list[list[int]], popularity: list[int]) -> RankingSet:
    size = len(popularity)
    videos = VideoTable(np.zeros(size, np.bool_), np.array(popularity))
    users = [str(number) for number in range(len(known))]
    relevant = Ragged.from_lists([[size - 1]] * len(known))
    return RankingSet(users, relevant, Ragged.from_lists(known), videos)


def test_two_videos_by_hand() -> None:
    """Two users like 1, one of them 2 as well; λ = 1.

    XᵀX + I = [[3, 1], [1, 2]], its inverse P = [[2, -1], [-1, 3]] / 5, and B = -P / diag(P) off the
    diagonal: having liked 1 adds (1/5) / (3/5) to 2, having liked 2 adds (1/5) / (2/5) to 1.
    """
    likes = Ragged.from_lists([[1, 2, 2, 0], [1]])  # twice is once, and row 0 is no video
    gram = Gram.of(likes, 4, most_videos=10)
    assert gram.row_M.tolist() == [1, 2] and gram.count_MM.tolist() == [[2, 1], [1, 1]]
    ease = gram.fit(1.0)
    assert ease.weight_MM.numpy() == pytest.approx(np.array([[0, 1 / 3], [1 / 2, 0]]))
    assert ease.scale == pytest.approx((2 * 1 / 3 + 1 * 1 / 2) / 3)  # of three likes
    assert ease.bonus(np.array([0, 4.0, 8, 0]), 3).tolist() == pytest.approx([0, 7 / 12, 7 / 6, 0])
    data = of_users([[1], [2, 1], []], [0, 2, 1, 0])
    scores = ease.ranker(data)(0, 3)
    assert scores[0].tolist() == pytest.approx([0, 0, 1 / 3, 0])
    assert scores[1].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 0])
    assert scores[2].tolist() == [0, 2, 1, 0]  # of whom nothing is known: popularity
    bonus = torch.tensor([0, 0.1, 0.2, 0.3])
    scores = ease.ranker(data, bonus)(1, 3)
    assert scores[0].tolist() == pytest.approx([0, 0.6, 1 / 3 + 0.2, 0.3])
    assert scores[1].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])


def test_it_is_the_ridge_regression_of_each_video_on_the_others() -> None:
    """Column j of B is argmin |x_j - X b|² + λ |b|² with b_j = 0: by least squares, one by one."""
    rng = np.random.default_rng(0)
    x = (rng.random((60, 8)) < 0.3).astype(float)
    x[:, 0] = 0
    likes = Ragged.from_lists([np.flatnonzero(row) for row in x])
    ease, l2 = Gram.of(likes, 8, most_videos=8).fit(5.0), 5.0
    for j in range(1, 8):
        others = [i for i in range(1, 8) if i != j]
        a = np.vstack([x[:, others], np.sqrt(l2) * np.eye(len(others))])
        b = np.linalg.lstsq(a, np.append(x[:, j], np.zeros(len(others))), rcond=None)[0]
        weights = ease.weight_MM[:, j - 1].numpy()
        assert (
            weights[[i - 1 for i in others]] == pytest.approx(b, abs=1e-5) and weights[j - 1] == 0
        )


def test_only_the_most_popular_videos_are_in_it_and_the_share_is_said() -> None:
    likes = Ragged.from_lists([[1, 2, 3], [2, 3], [3, 4], [3]])  # 1, 2, 4 and 1 users
    gram = Gram.of(likes, 6, most_videos=2)
    assert gram.row_M.tolist() == [2, 3]
    assert gram.share_of_likes == pytest.approx(6 / 8)
    data = of_users([[1, 3], [4]], [0, 1, 2, 4, 1, 0])
    scores = gram.fit(1.0).ranker(data)(0, 2)
    assert scores[0, [1, 3, 4, 5]].tolist() == [0] * 4 and scores[0, 2] > 0
    assert scores[1].tolist() == [0, 1, 2, 4, 1, 0]  # what it does not know is no history
    assert Gram.of(likes, 6, most_videos=6).share_of_likes == 1


def test_chunks_of_users_get_the_scores_of_all() -> None:
    rng = np.random.default_rng(1)
    lists = [rng.choice(np.arange(1, 20), rng.integers(0, 6), replace=False) for _ in range(30)]
    data = of_users([row.tolist() for row in lists], [1] * 20)
    ranker = Gram.of(Ragged.from_lists(lists), 20, most_videos=15).fit(2.0).ranker(data)
    whole = ranker(0, 30)
    for start, stop in ((0, 7), (7, 8), (8, 30)):
        assert (ranker(start, stop) == whole[start:stop]).all()
