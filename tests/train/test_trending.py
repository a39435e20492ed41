"""The weights of what is trending, by hand and against those that the data were made with."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.evaluation.interactions import Csr
from recsys.evaluation.ranking import Ranker
from recsys.train import trending
from recsys.train.trending import fit_trending


def ranker(scores: Tensor) -> Ranker:
    return lambda start, stop: scores[start:stop].clone()


def alone(sums: Tensor) -> Tensor:
    return sums


def test_one_count_by_hand() -> None:
    """Of two videos the one that was shown is liked three times as often: w is log 3.

    The offset is minus the mean gain, 3/4 w. The second count never differs and gets nothing.
    """
    popularity = torch.tensor([[0.0, 0, 0], [1, 1, 2], [1, 0, 2]])
    likes = Csr.from_lists([[1], [1], [2], [1]] * 500)
    found = fit_trending(ranker(torch.zeros(2000, 3)), likes, popularity, add_up=alone)
    log_3 = math.log(3)
    assert found.tolist() == pytest.approx([-0.75 * log_3, log_3, 0], abs=0.01)


def made(num_users: int) -> tuple[Tensor, Csr, Tensor]:
    """Users who choose by p = softmax(0.5 · score + 1.5 · first count - 0.75 · second count)."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(num_users, 40, generator=draw)
    popularity = torch.cat([torch.ones(40, 1), 2 * torch.rand(40, 2, generator=draw)], 1)
    popularity[:4] = 0
    logits = 0.5 * scores + popularity[:, 1:] @ torch.tensor([1.5, -0.75])
    logits[:, :4] = -torch.inf
    chosen = torch.multinomial(logits.softmax(1), 1, generator=draw)
    return scores, Csr.from_lists(chosen.tolist()), popularity


def test_finds_the_weights_that_choices_were_made_by() -> None:
    """In units of the scores: 1.5 / 0.5 and -0.75 / 0.5; the mean gain of the fitted is zero."""
    scores, likes, popularity = made(trending.MOST_USERS)
    offset, *weights = fit_trending(ranker(scores), likes, popularity, add_up=alone).tolist()
    assert weights == pytest.approx([3, -1.5], abs=0.35)
    gains = popularity @ torch.tensor([offset, *weights])
    shown = (0.5 * (scores + gains))[:, 4:].softmax(1).mean(0)
    assert float(shown @ gains[4:]) == pytest.approx(0, abs=0.1)
    assert not gains[:4].any()


def test_two_workers_find_what_one_finds() -> None:
    """Each has half of the users, and their sums are added up, call by call."""
    scores, likes, popularity = made(400)
    one = fit_trending(ranker(scores), likes, popularity, add_up=alone)
    barrier, given = threading.Barrier(2, timeout=60), {}

    def work(rank: int) -> Tensor:
        def add_up(sums: Tensor) -> Tensor:
            given[rank] = sums
            barrier.wait()
            total: Tensor = given[0] + given[1]
            barrier.wait()
            return total

        mine = np.arange(rank, 400, 2)
        return fit_trending(
            ranker(scores[mine]), likes.select(mine), popularity, add_up=add_up, workers=2
        )

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(work, range(2)))
    assert torch.equal(*both)
    assert torch.allclose(both[0], one, atol=1e-4)


def test_nothing_to_learn_from_is_no_gain() -> None:
    """Nobody liked anything; only what nobody had been shown; no video was ever shown."""
    scores, _, popularity = made(3)
    for likes in ([[], [], []], [[1], [2], [3]]):
        found = fit_trending(ranker(scores), Csr.from_lists(likes), popularity, add_up=alone)
        assert not found.any()
    nothing = torch.zeros_like(popularity)
    assert not fit_trending(ranker(scores), Csr.from_lists([[5]] * 3), nothing, add_up=alone).any()
