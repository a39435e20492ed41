"""Ranking metrics of one list a user, as their exact expectation where scores are tied.

A ranker that gives two videos the same score has not said which comes first. Whatever a sort then
does is luck, and may be biased luck (video rows are often in order of popularity). Here every
group of equal scores counts as being in random order, and a metric is its mean over all orders, in
closed form (F. McSherry and M. Najork, "Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores", ECIR 2008). Without ties this is the ordinary value.

Shapes: B users, K positions of the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class TieGroups:
    """Which group of equal scores each position belongs to."""

    start_BK: Tensor
    """Position at which the group begins (int64)."""
    size_BK: Tensor
    """Videos in the group, counted in the whole catalogue."""

    def select(self, rows: Tensor) -> TieGroups:
        """The same of some of the users."""
        return TieGroups(self.start_BK[rows], self.size_BK[rows])


@dataclass(frozen=True)
class ExpectedHits:
    """What is known of the relevant videos at each position, float64."""

    relevance_BK: Tensor
    """Chance that the video is relevant."""
    hazard_BK: Tensor
    """The same, given that none before it is."""
    pairs_BK: Tensor
    """Expectation of: relevant, times the number of relevant ones up to and with this one."""


def hits_without_ties(hit_BK: Tensor) -> ExpectedHits:
    """Of lists whose order is certain; `hit_BK` is 1 where the video is relevant."""
    hit_BK = hit_BK.double()
    return ExpectedHits(hit_BK, hit_BK, hit_BK * hit_BK.cumsum(1))


def hits_with_ties(hit_BK: Tensor, groups: TieGroups, relevant_in_last_B: Tensor) -> ExpectedHits:
    """Of lists whose groups of equal scores are in random order.

    Args:
        hit_BK: 1 where the video that happened to be put there is relevant.
        groups: The groups of the positions.
        relevant_in_last_B: Relevant videos in the group of the last position, wherever in the
            catalogue they are: that group may go on beyond position K.
    """
    start, size = groups.start_BK, groups.size_BK.double()
    hit_BK = hit_BK.double()
    in_group = torch.zeros_like(hit_BK).scatter_add_(1, start, hit_BK)
    in_group.scatter_(1, start[:, -1:], relevant_in_last_B.double()[:, None])
    before = (in_group.cumsum(1) - in_group).gather(1, start)
    relevant = in_group.gather(1, start)
    place = (torch.arange(start.shape[1]) - start).double()  # within the group, from 0
    relevance = relevant / size
    # The first of a group is relevant with r/g, and the one after i irrelevant ones with r/(g-i).
    hazard = (relevant / (size - place)).clamp(max=1)
    others = place * (relevant - 1).clamp(min=0) / (size - 1).clamp(min=1)
    return ExpectedHits(relevance, hazard, relevance * (before + 1 + others))


@dataclass(frozen=True)
class HitSums:
    """What metrics of the first k are made of: running sums over the positions of lists.

    A list that is shorter than k counts as it is.
    """

    of: ExpectedHits

    def hits(self, k: int) -> Tensor:
        """Number of relevant videos (B)."""
        return self._until(self._hits_BK, k)

    def any_hit(self, k: int) -> Tensor:
        """Chance that any video is relevant (B)."""
        return 1 - self._until(self._none_yet_BK, k)

    def gain(self, k: int) -> Tensor:
        """Σ r_j / log2(j + 1) (B)."""
        return self._until(self._gain_BK, k)

    def reciprocal_rank(self, k: int) -> Tensor:
        """One over the position of the first relevant video, 0 where there is none (B)."""
        return self._until(self._reciprocal_BK, k)

    def precisions(self, k: int) -> Tensor:
        """Sum of the precisions at the positions of the relevant videos (B)."""
        return self._until(self._precisions_BK, k)

    @staticmethod
    def _until(sums_BK: Tensor, k: int) -> Tensor:
        return sums_BK[:, min(k, sums_BK.shape[1]) - 1]

    @cached_property
    def _position_K(self) -> Tensor:
        return torch.arange(1, self.of.relevance_BK.shape[1] + 1, dtype=torch.float64)

    @cached_property
    def _hits_BK(self) -> Tensor:
        return self.of.relevance_BK.cumsum(1)

    @cached_property
    def _none_yet_BK(self) -> Tensor:
        return (1 - self.of.hazard_BK).cumprod(1)

    @cached_property
    def _gain_BK(self) -> Tensor:
        discount_K = ideal_gain(len(self._position_K)).diff()
        return (self.of.relevance_BK * discount_K).cumsum(1)

    @cached_property
    def _reciprocal_BK(self) -> Tensor:
        none_yet = self._none_yet_BK
        none_before = torch.cat([torch.ones_like(none_yet[:, :1]), none_yet[:, :-1]], 1)
        return (none_before * self.of.hazard_BK / self._position_K).cumsum(1)

    @cached_property
    def _precisions_BK(self) -> Tensor:
        return (self.of.pairs_BK / self._position_K).cumsum(1)


@lru_cache
def ideal_gain(k: int) -> Tensor:
    """Σ 1 / log2(j + 1) over the first n positions, for n = 0…k (float64)."""
    gains = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    return torch.cat([torch.zeros(1, dtype=torch.float64), gains.cumsum(0)])
