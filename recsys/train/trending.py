"""How much what is shown most at a time adds to a video's score, fitted on the validation days.

A trained model knows how popular a video was over all the days that it learnt from, and the next
day that is out of date. What the counts of the last hours are worth beside it can only be told on
days that the model has not learnt from, and there it takes no more than one number a count.

Shapes: U users, B users of a chunk, N videos, S of them with any reception, F counts, J = 1 + F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.evaluation.interactions import Csr
from recsys.evaluation.ranking import Ranker

CHUNK_SCORES = 2**22
FIT_SCORES, FEWEST_USERS, MOST_USERS = 2**25, 256, 2000
"""Users are taken until their scores are so many, but so many users at least and at most."""
MOST_PASSES = 20
CLOSE = 1e-3
"""A step that moves no weight further is the last."""
LEAST_SURE = 0.05
"""Of `a`: of scores that say less, nobody could tell what a count is worth beside them."""

AddUp = Callable[[Tensor], Tensor]
"""The sum of a tensor over all workers."""


def fit_trending(
    ranker: Ranker, relevant: Csr, popularity_N3: Tensor, *, add_up: AddUp, workers: int = 1
) -> Tensor:
    """The weights of `Recommender.trending_bias`, by maximum likelihood.

    Over the videos with any reception, p(video | user) = softmax(a · score + w · counts) is fitted
    to what the users liked by Newton's method, each user counting alike; the weights are w / a,
    since `a`, how sure the model may be, changes no order. Their offset makes the mean gain zero
    over what the fitted model would show, so that a video without any reception, which gains
    nothing, is neither lifted nor sunk among the others.

    Args:
        ranker: Scores without any trending.
        relevant: U lists of the videos that this worker's users liked.
        popularity_N3: Of `Trends.popularity`, at the time of the scores.
        add_up: Every worker makes the same number of calls.
        workers: How many they are.

    Returns:
        (3,): offset and weights; zeros where nobody liked a video that had any reception.
    """
    some = max(FEWEST_USERS, min(MOST_USERS, FIT_SCORES // len(popularity_N3))) // workers
    users = _Users(ranker, relevant.select(np.arange(min(len(relevant), max(some, 1)))))
    seen_N = popularity_N3[:, 0] > 0
    counts_SF = popularity_N3[seen_N, 1:]
    theta = _start(1 + counts_SF.shape[1])
    best, step, lowest = theta, torch.zeros_like(theta), torch.inf
    mean_F = torch.zeros(counts_SF.shape[1], dtype=torch.float64)
    for _ in range(MOST_PASSES):
        found = _Moments.of(add_up(users.moments(seen_N, counts_SF, theta)), len(theta))
        if found.loss(theta) > lowest:  # too far: half the way
            step = step / 2
            theta = theta - step
            continue
        best, lowest, mean_F = theta, found.loss(theta), found.mean_J[1:]
        step = found.newton_step(theta)
        if step.abs().max() < CLOSE:
            break
        theta = theta + step
    weights = best[1:] / best[0].clamp(min=LEAST_SURE)
    return torch.cat([-(weights @ mean_F)[None], weights]).float()


@dataclass(frozen=True)
class _Moments:
    """Sums over users of what Newton's method needs; J is the scale of the scores and weights."""

    num_users: float
    nll: float
    mean_J: Tensor
    """Of score and counts under the fitted probabilities, a mean over the users."""
    gradient_J: Tensor
    hessian_JJ: Tensor

    @classmethod
    def of(cls, sums: Tensor, J: int) -> _Moments:
        num_users, nll = sums[:2].tolist()
        mean_J, gradient_J, hessian = sums[2 : 2 + J], sums[2 + J : 2 + 2 * J], sums[2 + 2 * J :]
        return cls(num_users, nll, mean_J / max(num_users, 1), gradient_J, hessian.view(J, J))

    def loss(self, theta: Tensor) -> float:
        """With a ridge that is worth one user: what never differs stays as it was."""
        return self.nll + float(((theta - _start(len(theta))) ** 2).sum()) / 2

    def newton_step(self, theta: Tensor) -> Tensor:
        gradient = self.gradient_J + theta - _start(len(theta))
        step: Tensor = -torch.linalg.solve(self.hessian_JJ + torch.eye(len(theta)), gradient)
        return step


def _start(J: int) -> Tensor:
    """The scores as they are, and nothing for the counts."""
    return torch.eye(J, dtype=torch.float64)[0]


@dataclass(frozen=True)
class _Users:
    """This worker's users, read a chunk at a time."""

    ranker: Ranker
    relevant: Csr

    def moments(self, seen_N: Tensor, counts_SF: Tensor, theta: Tensor) -> Tensor:
        """The sums of `_Moments`, flat: number of users, loss, mean, gradient, Hessian."""
        J, step = len(theta), max(1, CHUNK_SCORES // len(seen_N))
        sums = torch.zeros(2 + 2 * J + J * J, dtype=torch.float64)
        place_N = seen_N.cumsum(0) - 1
        for start in range(0, len(self.relevant), step):
            stop = min(start + step, len(self.relevant))
            owner, video = (
                torch.from_numpy(part).long() for part in self.relevant.pairs(start, stop)
            )
            owner, video = owner[seen_N[video]], video[seen_N[video]]
            scores_BS = self.ranker(start, stop).cpu()[:, seen_N]
            liked = (owner, place_N[video])
            sums += _sums(scores_BS, counts_SF, theta.float(), liked)
        return sums


def _sums(
    scores_BS: Tensor, counts_SF: Tensor, theta: Tensor, liked: tuple[Tensor, Tensor]
) -> Tensor:
    """Those of one chunk; `liked` are users and videos of the chunk, each user counts alike."""
    owner, place = liked
    liked_B = torch.bincount(owner, minlength=len(scores_BS))
    share = 1 / liked_B[owner]
    log_p_BS = (theta[0] * scores_BS + counts_SF @ theta[1:]).log_softmax(1)
    p_BS = log_p_BS.exp() * (liked_B > 0).unsqueeze(1)
    weighted_BS, p_S = p_BS * scores_BS, p_BS.sum(0)
    mean_BJ = torch.cat([weighted_BS.sum(1, keepdim=True), p_BS @ counts_SF], 1)
    target_J = torch.cat([(scores_BS[liked] * share).sum()[None], share @ counts_SF[place]])
    cross_F = weighted_BS.sum(0) @ counts_SF
    square_JJ = torch.cat(
        [
            torch.cat([(weighted_BS * scores_BS).sum()[None], cross_F])[None],
            torch.cat([cross_F[:, None], counts_SF.T @ (p_S[:, None] * counts_SF)], 1),
        ]
    )
    mean_J = mean_BJ.sum(0)
    return torch.cat(
        [
            (liked_B > 0).sum()[None],
            -(log_p_BS[liked] * share).sum()[None],
            mean_J,
            mean_J - target_J,
            (square_JJ - mean_BJ.T @ mean_BJ).flatten(),
        ]
    ).double()
