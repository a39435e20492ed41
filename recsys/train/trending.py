"""How much what is trending adds to a video's score, fitted on the validation days.

A trained model knows how popular a video was over all the days that it learnt from, and the next
day that is out of date. What the last hours are worth beside it can only be told on days that the
model has not learnt from, and there it takes no more than one number.

Shapes: U users, B users of a chunk, N videos, S of them that were shown before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.data.ragged import Ragged
from recsys.inference.ranker import Ranker

CHUNK_SCORES = 2**22
FIT_SCORES, FEWEST_USERS, MOST_USERS = 2**25, 256, 2000
"""Users are taken until their scores are so many, but so many users at least and at most."""
MOST_PASSES = 20
CLOSE = 1e-3
"""A step that moves no number further is the last."""
LEAST_SURE = 0.05
"""Of `a`: of scores that say less, nobody could tell what trending is worth beside them."""
START = torch.tensor([1.0, 0.0], dtype=torch.float64)
"""The scores as they are, and nothing for trending."""

AddUp = Callable[[Tensor], Tensor]
"""The sum of a tensor over all workers."""


def fit_trending(
    ranker: Ranker, relevant: Ragged, trending_N: Tensor, *, add_up: AddUp, workers: int = 1
) -> float:
    """The weight of what is trending, by maximum likelihood.

    Over the videos that were shown before, p(video | user) = softmax(a · score + b · trending) is
    fitted to what the users liked by Newton's method, each user counting alike. The weight is
    b / a: how sure the model may be, `a`, changes no order.

    Args:
        ranker: Scores without any trending.
        relevant: U lists of the videos that this worker's users liked.
        trending_N: Of `features.counts.trending` at the time of the scores; 0 where never shown.
        add_up: Every worker makes the same number of calls.
        workers: How many they are.

    Returns:
        The weight; 0 where nobody liked a video that was shown before.
    """
    some = max(FEWEST_USERS, min(MOST_USERS, FIT_SCORES // len(trending_N))) // workers
    users = _Users(ranker, relevant.select(np.arange(min(len(relevant), max(some, 1)))))
    best, theta, step, lowest = START, START, torch.zeros_like(START), torch.inf
    for _ in range(MOST_PASSES):
        loss, gradient, hessian = _penalized(add_up(users.sums(trending_N, theta)), theta)
        if loss > lowest:  # too far: half the way
            step = step / 2
            theta = theta - step
            continue
        best, lowest = theta, loss
        step = -torch.linalg.solve(hessian, gradient)
        if step.abs().max() < CLOSE:
            break
        theta = theta + step
    a, b = best.tolist()
    return b / max(a, LEAST_SURE)


def _penalized(sums: Tensor, theta: Tensor) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient (2,) and Hessian (2, 2) with a ridge that is worth one user.

    It keeps what never differs as it was.
    """
    away = theta - START
    hessian = sums[3:].view(2, 2) + torch.eye(2)
    return float(sums[0] + (away**2).sum() / 2), sums[1:3] + away, hessian


@dataclass(frozen=True)
class _Users:
    """This worker's users, read a chunk at a time."""

    ranker: Ranker
    relevant: Ragged

    def sums(self, trending_N: Tensor, theta: Tensor) -> Tensor:
        """Loss, gradient and Hessian, flat (7,)."""
        sums = torch.zeros(7, dtype=torch.float64)
        shown_N = trending_N != 0
        place_N, step = shown_N.cumsum(0) - 1, max(1, CHUNK_SCORES // len(shown_N))
        for start in range(0, len(self.relevant), step):
            stop = min(start + step, len(self.relevant))
            pairs = self.relevant.pairs(start, stop)
            owner, video = (torch.from_numpy(part).long() for part in pairs)
            owner, video = owner[shown_N[video]], video[shown_N[video]]
            scores_BS = self.ranker(start, stop).cpu()[:, shown_N]
            liked = (owner, place_N[video])
            sums += _chunk_sums(scores_BS, trending_N[shown_N], theta.float(), liked)
        return sums


def _chunk_sums(
    scores_BS: Tensor, trending_S: Tensor, theta: Tensor, liked: tuple[Tensor, Tensor]
) -> Tensor:
    """The sums of a chunk; `liked` holds its users and their videos, and users count alike."""
    owner, place = liked
    liked_B = torch.bincount(owner, minlength=len(scores_BS))
    share = 1 / liked_B[owner]
    log_p_BS = (theta[0] * scores_BS + theta[1] * trending_S).log_softmax(1)
    p_BS = log_p_BS.exp() * (liked_B > 0).unsqueeze(1)
    weighted_BS = p_BS * scores_BS
    mean_B2 = torch.stack([weighted_BS.sum(1), p_BS @ trending_S], 1)
    target_2 = torch.stack([(scores_BS[liked] * share).sum(), trending_S[place] @ share])
    cross = weighted_BS.sum(0) @ trending_S
    squares = [(weighted_BS * scores_BS).sum(), cross, cross, p_BS.sum(0) @ trending_S**2]
    hessian = torch.stack(squares).view(2, 2) - mean_B2.T @ mean_B2
    loss = -(log_p_BS[liked] * share).sum()
    return torch.cat([loss[None], mean_B2.sum(0) - target_2, hessian.flatten()]).double()
