"""EASE, a linear model of what is liked together, in closed form.

H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019): the weights B with a
diagonal of 0 that make the 0/1 matrix X of users and videos from itself as X B with the least
squares and an L2 penalty λ are B = I - P / diag(P), P = (XᵀX + λ I)⁻¹.

Shapes: A users, B users of a chunk, N video rows, M videos that the model is made of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.simple import distinct, liked_together
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.inference.ranker import Ranker


@dataclass(frozen=True)
class Ease:
    """The model between the most popular videos; all others have weights of 0."""

    row_M: NDArray[np.int64]
    """The videos that it is made of, rising."""
    weight_MM: Tensor
    """What having liked one (row) adds to the score of another (column), float32."""
    scale: float
    """What a like adds to the score of the video that it adds most to, the mean over all likes. A
    larger penalty makes all scores smaller."""

    def bonus(self, recent_N: NDArray[np.float64], weight: float) -> Tensor:
        """What recent popularity adds to everybody's scores (N).

        The most popular video of these days gains `weight` times `scale`.
        """
        gain = weight * self.scale / max(recent_N.max(), 1e-300)
        return torch.from_numpy(gain * recent_N).float()

    def ranker(self, data: RankingSet, bonus_N: Tensor | None = None) -> Ranker:
        """The scores of what each user liked, and something added for everybody.

        Without any, users of whom it knows nothing get an order of popularity.
        """
        place_N = np.full(data.num_videos, -1)
        place_N[self.row_M] = np.arange(len(self.row_M))
        known = _mapped(distinct(data.known), place_N)
        row_M = torch.from_numpy(self.row_M)
        popularity_N = torch.from_numpy(data.videos.popularity_N.astype(np.float32))

        def scores(start: int, stop: int) -> Tensor:
            part = known.select(np.arange(start, stop))
            sums_BM = torch.nn.functional.embedding_bag(
                torch.from_numpy(part.values.astype(np.int64)),
                self.weight_MM,
                torch.from_numpy(part.offsets[:-1]),
                mode="sum",
            )
            scores_BN = torch.zeros(stop - start, data.num_videos)
            scores_BN[:, row_M] = sums_BM
            if bonus_N is not None:
                return scores_BN.add_(bonus_N)
            scores_BN[torch.from_numpy(part.lengths == 0)] = popularity_N
            return scores_BN

        return scores


@dataclass(frozen=True)
class Gram:
    """XᵀX of the most popular videos."""

    row_M: NDArray[np.int64]
    count_MM: Tensor
    """Users who liked both videos; on the diagonal, who liked the one (float32)."""
    share_of_likes: float
    """Of all pairs of a user and a video that it liked, those whose video is one of the M."""

    @classmethod
    def of(cls, likes: Ragged, num_videos: int, *, most_videos: int) -> Gram:
        """Counts what users (A lists) liked."""
        pairs = distinct(likes)
        users_N = np.bincount(pairs.values, minlength=num_videos)
        best = np.argsort(-users_N, kind="stable")[:most_videos]
        row_M = np.sort(best[users_N[best] > 0])
        place_N = np.full(num_videos, -1)
        place_N[row_M] = np.arange(len(row_M))
        count_MM = torch.empty(len(row_M), len(row_M))
        for start, both in liked_together(_mapped(pairs, place_N), len(row_M)):
            count_MM[start : start + len(both)] = torch.from_numpy(both)
        return cls(row_M, count_MM, float(users_N[row_M].sum() / max(users_N.sum(), 1)))

    def fit(self, l2: float) -> Ease:
        """The model with a penalty λ; holds two more matrices of M × M meanwhile."""
        penalised_MM = self.count_MM.clone()
        penalised_MM.diagonal().add_(l2)
        factor_MM = torch.linalg.cholesky(penalised_MM)
        del penalised_MM
        weight_MM = torch.cholesky_inverse(factor_MM)
        del factor_MM
        weight_MM /= -weight_MM.diagonal().clone()
        weight_MM.fill_diagonal_(0)
        scale = 0.0
        if len(self.row_M):
            users_M = self.count_MM.diagonal()
            scale = float(weight_MM.max(1).values @ users_M / users_M.sum())
        return Ease(self.row_M, weight_MM, scale)


def _mapped(lists: Ragged, place_N: NDArray[np.int64]) -> Ragged:
    """The lists with places in place of video rows, without videos that have none."""
    places = place_N[lists.values]
    kept = places >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])
    return Ragged(ends[lists.offsets], places[kept].astype(np.int32))
