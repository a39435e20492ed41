"""The best K videos of each user of a chunk, and where equal scores leave their order open.

Shapes: B users of a chunk, N video rows (row 0 is never ranked), K positions, T users with ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.evaluation.expected import TieGroups


@dataclass(frozen=True)
class TopLists:
    """Lists in order of falling score; made by `top_lists` or `fixed_lists`."""

    video_BK: Tensor
    """Video rows (int64); 0 where a user has fewer than K videos to rank."""
    tied_T: Tensor
    """Users, by number in the chunk, of whom any two of the best K + 1 videos have equal scores."""
    groups: TieGroups
    """Groups of equal scores of those users, (T, K)."""
    last_members_TN: Tensor
    """True for every video of those users' last group, wherever in the catalogue (T, N)."""

    def chance_BK(self, k: int) -> Tensor:
        """Chance that the video at each position is among the first k (float64).

        1 or 0 where nothing is tied. The videos of a group have one chance, and those of the last
        group have it beyond position K too: see `last_members_TN`.
        """
        num_users, depth = self.video_BK.shape
        chance = (torch.arange(depth) < k).double().repeat(num_users, 1)
        if len(self.tied_T):
            places = (k - self.groups.start_BK).double() / self.groups.size_BK
            chance[self.tied_T] = places.clamp(0, 1)
        return chance * (self.video_BK > 0)


def top_lists(scores_BN: Tensor, depth: int) -> TopLists:
    """The best `depth` videos of each user by score.

    Args:
        scores_BN: Scores, the higher the better; -inf leaves a video out of the ranking. Column 0
            is not looked at.
        depth: K; lists are no longer than the catalogue.

    Raises:
        ValueError: A score is NaN.
    """
    num_ranked = scores_BN.shape[1] - 1
    depth = min(depth, num_ranked)
    score, column = torch.topk(scores_BN[:, 1:], min(depth + 1, num_ranked))
    if score.isnan().any():  # topk puts NaN first
        raise ValueError("the ranker gave a score that is NaN")
    if num_ranked == depth:  # there is no next one to be tied with
        score = torch.nn.functional.pad(score, (0, 1), value=-torch.inf)
        column = torch.nn.functional.pad(column, (0, 1))
    ranked = score > -torch.inf
    video_BK = torch.where(ranked, column + 1, 0)[:, :depth]
    equal = (score[:, 1:] == score[:, :-1]) & ranked[:, 1:]
    tied_T = equal.any(1).nonzero().squeeze(1)
    groups, members = _tie_groups(scores_BN, score, tied_T, depth)
    return TopLists(video_BK, tied_T, groups, members)


def fixed_lists(video_BK: Tensor) -> TopLists:
    """Lists whose order is certain, such as re-ranked ones; 0 fills a list that is too short."""
    nothing = torch.empty(0, video_BK.shape[1], dtype=torch.int64)
    members = torch.empty(0, 0, dtype=torch.bool)
    tied = torch.empty(0, dtype=torch.int64)
    return TopLists(video_BK, tied, TieGroups(nothing, nothing), members)


def _tie_groups(
    scores_BN: Tensor, score: Tensor, tied_T: Tensor, depth: int
) -> tuple[TieGroups, Tensor]:
    score = score[tied_T]
    begins = torch.ones_like(score, dtype=torch.bool)
    begins[:, 1:] = score[:, 1:] != score[:, :-1]
    position = torch.arange(depth + 1).expand_as(score)
    start = torch.where(begins, position, 0).cummax(1).values[:, :depth]
    count = torch.zeros_like(start).scatter_add_(1, start, torch.ones_like(start))
    last = score[:, depth - 1 : depth]
    members = (scores_BN[tied_T] == last) & (last > -torch.inf)
    members[:, 0] = False
    # Positions left empty are no group; any size that exceeds their number keeps them at 0 hits.
    size = torch.where(last > -torch.inf, members.sum(1, keepdim=True), depth)
    count.scatter_(1, start[:, -1:], size)
    return TieGroups(start, count.gather(1, start)), members
