"""Ranking metrics of one list a user, as their exact expectation where scores are tied.

A ranker that gives two videos the same score has not said which comes first. Whatever a sort then
does is luck, and may be biased luck (video rows are often in order of popularity). Here every
group of equal scores counts as being in random order, and a metric is its mean over all orders, in
closed form (F. McSherry and M. Najork, "Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores", ECIR 2008). Without ties this is the ordinary value.

Shapes: B users, K positions of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

METRICS = ("hr", "recall", "precision", "ndcg", "mrr", "map")


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


def metrics_at(
    hits: ExpectedHits, num_relevant_B: Tensor, cutoffs: Sequence[int]
) -> dict[str, Tensor]:
    """HR, recall, precision, NDCG, MRR and MAP at each cutoff, one value a user (float64).

    With r_j ∈ {0, 1} the relevance of position j = 1…K and R the number of relevant videos:
    hr = 1 if any r_j up to k; recall = Σ r_j / R; precision = Σ r_j / k;
    ndcg = Σ r_j / log2(j + 1) over the same sum of a list that begins with min(k, R) relevant ones;
    mrr = 1 / the first j with r_j = 1, or 0; map = Σ r_j precision@j / R.

    >>> hits = hits_without_ties(torch.tensor([[0, 1, 1]]))
    >>> values = metrics_at(hits, torch.tensor([2]), [3])
    >>> {name: round(value.item(), 4) for name, value in values.items()}
    {'hr@3': 1.0, 'recall@3': 1.0, 'precision@3': 0.6667, 'ndcg@3': 0.6934, 'mrr@3': 0.5, 'map@3': 0.5833}
    """  # noqa: E501
    num_positions = hits.relevance_BK.shape[1]
    position_K = torch.arange(1, num_positions + 1, dtype=torch.float64)
    discount_K = ideal_gain(num_positions).diff()
    none_yet = (1 - hits.hazard_BK).cumprod(1)
    none_before = torch.cat([torch.ones_like(none_yet[:, :1]), none_yet[:, :-1]], 1)
    total = hits.relevance_BK.cumsum(1)
    gain = (hits.relevance_BK * discount_K).cumsum(1)
    reciprocal = (none_before * hits.hazard_BK / position_K).cumsum(1)
    precisions = (hits.pairs_BK / position_K).cumsum(1)
    values: dict[str, Tensor] = {}
    for k in cutoffs:
        last = min(k, num_positions) - 1
        values[f"hr@{k}"] = 1 - none_yet[:, last]
        values[f"recall@{k}"] = total[:, last] / num_relevant_B
        values[f"precision@{k}"] = total[:, last] / k
        values[f"ndcg@{k}"] = gain[:, last] / ideal_gain(k)[num_relevant_B.clamp(max=k)]
        values[f"mrr@{k}"] = reciprocal[:, last]
        values[f"map@{k}"] = precisions[:, last] / num_relevant_B
    return values


@lru_cache
def ideal_gain(k: int) -> Tensor:
    """Σ 1 / log2(j + 1) over the first n positions, for n = 0…k (float64)."""
    gains = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    return torch.cat([torch.zeros(1, dtype=torch.float64), gains.cumsum(0)])
