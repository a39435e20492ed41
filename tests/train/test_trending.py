"""The weight of what is trending, by hand and against the one that the data were made with."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.ragged import Ragged
from recsys.inference.ranker import Ranker
from recsys.train import trending
from recsys.train.trending import fit_trending


def ranker(scores: Tensor) -> Ranker:
    return lambda start, stop: scores[start:stop].clone()


def alone(sums: Tensor) -> Tensor:
    return sums


def test_two_videos_by_hand() -> None:
    """The one that trends by 1 is liked three times as often as the one by -1: 2 b = log 3.

    The scores say nothing, so that they stay as they are. The video that was never shown is liked
    too, and is left out.
    """
    likes = Ragged.from_lists([[1], [1, 3], [2], [1]] * 500)
    trending_N = torch.tensor([0.0, 1, -1, 0])
    weight = fit_trending(ranker(torch.zeros(2000, 4)), likes, trending_N, add_up=alone)
    assert weight == pytest.approx(math.log(3) / 2, abs=0.005)


def made(num_users: int) -> tuple[Tensor, Ragged, Tensor]:
    """Users who choose by p = softmax(0.5 · score + 1.5 · trending)."""
    draw = torch.Generator().manual_seed(0)
    scores, trending_N = (torch.randn(*size, generator=draw) for size in ((num_users, 40), (40,)))
    trending_N[:4] = 0
    logits = 0.5 * scores + 1.5 * trending_N
    logits[:, :4] = -torch.inf
    chosen = torch.multinomial(logits.softmax(1), 1, generator=draw)
    return scores, Ragged.from_lists(chosen.tolist()), trending_N


def test_finds_the_weight_that_choices_were_made_by() -> None:
    """In units of the scores: 1.5 / 0.5."""
    scores, likes, trending_N = made(trending.MOST_USERS)
    weight = fit_trending(ranker(scores), likes, trending_N, add_up=alone)
    assert weight == pytest.approx(3, abs=0.25)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, likes, trending_N = made(100)
    whole = fit_trending(ranker(scores), likes, trending_N, add_up=alone)
    monkeypatch.setattr(trending, "CHUNK_SCORES", 7 * 40)
    assert fit_trending(ranker(scores), likes, trending_N, add_up=alone) == pytest.approx(whole)


def test_two_workers_find_what_one_finds() -> None:
    """Each has half of the users, and their sums are added up, call by call."""
    scores, likes, trending_N = made(400)
    one = fit_trending(ranker(scores), likes, trending_N, add_up=alone)
    barrier, given = threading.Barrier(2, timeout=60), {}

    def work(rank: int) -> float:
        def add_up(sums: Tensor) -> Tensor:
            given[rank] = sums
            barrier.wait()
            total: Tensor = given[0] + given[1]
            barrier.wait()
            return total

        mine = np.arange(rank, 400, 2)
        return fit_trending(
            ranker(scores[mine]), likes.select(mine), trending_N, add_up=add_up, workers=2
        )

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(work, range(2)))
    assert both[0] == both[1] == pytest.approx(one, abs=1e-4)


def test_nothing_to_learn_from_is_no_weight() -> None:
    """Nobody liked anything; only what nobody had been shown; nothing was ever shown."""
    scores, _, trending_N = made(3)
    for likes in ([[], [], []], [[1], [2], [3]]):
        assert fit_trending(ranker(scores), Ragged.from_lists(likes), trending_N, add_up=alone) == 0
    nothing, likes = torch.zeros(40), Ragged.from_lists([[5]] * 3)
    assert fit_trending(ranker(scores), likes, nothing, add_up=alone) == 0
