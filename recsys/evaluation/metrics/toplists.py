"""The best K videos of each user, and where equal scores leave their order open.

Shapes: B users, N video rows (row 0 is never ranked), K positions, Q quantities, O users whose list
ends within a group of equal scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.evaluation.metrics.expected import TieGroups


@dataclass(frozen=True)
class OpenGroups:
    """Groups of equal scores that go on beyond the end of their lists.

    Their videos may be anywhere in the catalogue, so they are named by a mask, not by position.
    """

    user_O: Tensor
    """Number of the user among the B."""
    chance_O: Tensor
    """Chance of each video of the group to be in the list (float64)."""
    size_O: Tensor
    """Number of videos in the group (float64)."""
    members_ON: Tensor
    """Which videos they are."""


@dataclass(frozen=True)
class Inclusion:
    """How surely each video is among a user's first k."""

    video_BK: Tensor
    chance_BK: Tensor
    """Chance of the video at each position (float64); 0 where it is counted in `open`."""
    open: OpenGroups | None = None

    def sums(self, values_NQ: Tensor) -> Tensor:
        """Expected sum of some values (float64) over the first k videos: (B, Q)."""
        sums_BQ = (values_NQ[self.video_BK] * self.chance_BK[..., None]).sum(1)
        if self.open is not None:
            of_group_OQ = self.open.members_ON.double() @ values_NQ
            sums_BQ[self.open.user_O] += self.open.chance_O[:, None] * of_group_OQ
        return sums_BQ


@dataclass(frozen=True)
class TopLists:
    """Lists in order of falling score, either all without ties or all with."""

    user_B: Tensor
    """Whose lists they are, by number in the ranking set (int64)."""
    video_BK: Tensor
    """Video rows (int64); 0 where a user has fewer than K videos to rank."""
    score_BK: Tensor | None = None
    """Scores by which they were ranked; None where the order was made in another way."""
    ties: TieGroups | None = None
    """Groups of equal scores, (B, K); None says that the order is certain."""
    last_members_BN: Tensor | None = None
    """True for every video of a list's last group, wherever in the catalogue."""

    def inclusion(self, k: int) -> Inclusion:
        """How surely each video is among the first k."""
        if self.ties is None:
            video_BK = self.video_BK[:, :k]
            return Inclusion(video_BK, (video_BK > 0).double())
        start, size = self.ties.start_BK, self.ties.size_BK
        chance = ((k - start).double() / size).clamp(0, 1) * (self.video_BK > 0)
        last, width = chance[:, -1], start.shape[1] - start[:, -1]
        is_open = (last > 0) & (last < 1) & (size[:, -1] > width)
        if not is_open.any() or self.last_members_BN is None:
            return Inclusion(self.video_BK, chance)
        chance = chance.masked_fill(is_open[:, None] & (start == start[:, -1:]), 0)
        user, members = is_open.nonzero().squeeze(1), self.last_members_BN[is_open]
        groups = OpenGroups(user, last[is_open], size[is_open, -1].double(), members)
        return Inclusion(self.video_BK, chance, groups)


def top_lists(user_B: Tensor, scores_BN: Tensor, depth: int) -> list[TopLists]:
    """The best `depth` videos of each user by score: the lists without ties, and the others.

    Args:
        user_B: Numbers of the users.
        scores_BN: Scores, the higher the better; -inf leaves a video out of the ranking. Column 0
            is not looked at.
        depth: K; lists are no longer than the catalogue.

    Raises:
        ValueError: A score is NaN.
    """
    num_ranked = scores_BN.shape[1] - 1
    depth = min(depth, num_ranked)
    score, column = torch.topk(scores_BN[:, 1:], min(depth + 1, num_ranked))
    with one_thread():
        score, column = score.cpu(), column.cpu()  # wherever the ranker works
        if score[:, 0].isnan().any():  # topk puts NaN first
            raise ValueError("the ranker gave a score that is NaN")
        if num_ranked == depth:  # there is no next one to be tied with
            score, column = pad(score, (0, 1), value=-torch.inf), pad(column, (0, 1))
        ranked = score > -torch.inf
        video_BK = (column + 1).mul_(ranked)[:, :depth]
        tied_B = ((score[:, 1:] == score[:, :-1]) & ranked[:, 1:]).any(1)
        if not tied_B.any():
            return [TopLists(user_B, video_BK, score[:, :depth])]
        sure_B = ~tied_B
        sure = TopLists(user_B[sure_B], video_BK[sure_B], score[sure_B, :depth])
    tied_scores_BN = scores_BN[tied_B.to(scores_BN.device)].cpu()
    groups, members = _tie_groups(tied_scores_BN, score[tied_B], depth)
    tied = TopLists(user_B[tied_B], video_BK[tied_B], score[tied_B, :depth], groups, members)
    return [sure, tied] if sure_B.any() else [tied]


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch work on one thread for a while.

    For many small operations in a row: on a busy machine each would wait until the other threads
    get their turn.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tie_groups(scores_BN: Tensor, score: Tensor, depth: int) -> tuple[TieGroups, Tensor]:
    begins = torch.ones_like(score, dtype=torch.bool)
    begins[:, 1:] = score[:, 1:] != score[:, :-1]
    position = torch.arange(depth + 1).expand_as(score)
    start = torch.where(begins, position, 0).cummax(1).values[:, :depth]
    count = torch.zeros_like(start).scatter_add_(1, start, torch.ones_like(start))
    last = score[:, depth - 1 : depth]
    members = (scores_BN == last) & (last > -torch.inf)
    members[:, 0] = False
    # Positions left empty are no group; any size that exceeds their number keeps them at 0 hits.
    size = torch.where(last > -torch.inf, members.sum(1, keepdim=True), depth)
    count.scatter_(1, start[:, -1:], size)
    return TieGroups(start, count.gather(1, start)), members
