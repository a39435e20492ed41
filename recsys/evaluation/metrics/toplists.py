"""The best K videos of each user, and where equal scores leave their order open.

Shapes: B users, N video rows (row 0 is never ranked), M of them that are ranked, K positions, L
of them that are looked at, Q quantities, O users whose list ends within a group of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.evaluation.metrics.expected import TieGroups

SPARE = 1.1
"""A part's share of a whole list differs from its share of the catalogue."""
ALL = "all"
"""Lists among the whole catalogue."""


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
    among: str = ALL
    """The part of the catalogue whose videos alone were ranked."""

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


@dataclass(frozen=True)
class Part:
    """A part of the catalogue that is ranked by itself, for some users."""

    name: str
    is_in_N: Tensor
    """Which videos it holds; never row 0."""
    asked_B: Tensor
    """For whom."""


def top_lists(
    user_B: Tensor, scores_BN: Tensor, depth: int, parts: Sequence[Part] = ()
) -> list[TopLists]:
    """The best `depth` videos of each user by score: the lists without ties, and the others.

    Args:
        user_B: Numbers of the users.
        scores_BN: Scores, the higher the better; -inf leaves a video out of the ranking. Column 0
            is not looked at.
        depth: K; lists are no longer than what is ranked.
        parts: Whose best videos are listed besides.

    Raises:
        ValueError: A score is NaN.
    """
    every_N = torch.ones(scores_BN.shape[1], dtype=torch.bool)
    every_N[0] = False
    best = _best(scores_BN[:, 1:], every_N, _reach(depth, parts))
    lists = _lists(user_B, scores_BN, best.cut(depth), ALL, torch.arange(len(user_B)))
    for part in parts:
        for rows, own in _best_of_part(scores_BN, best, part, depth):
            lists += _lists(user_B, scores_BN, own, part.name, rows)
    return lists


def _reach(depth: int, parts: Sequence[Part]) -> int:
    """Length of the whole list in which that of the largest part will be, for most users."""
    share = max((float(part.is_in_N[1:].double().mean()) for part in parts), default=0.0)
    return max(depth, math.ceil(SPARE * depth / share)) if share else depth


@dataclass(frozen=True)
class _Best:
    """The best videos of some users, on the CPU: one more than a list holds, to see it tied."""

    score_BL: Tensor
    """Falling; -inf where there are no more videos. L is K + 1."""
    video_BL: Tensor
    is_ranked_N: Tensor
    """The videos that they are the best of."""

    def select(self, rows: Tensor) -> _Best:
        """The same of some of the users."""
        return _Best(self.score_BL[rows], self.video_BL[rows], self.is_ranked_N)

    def cut(self, depth: int) -> _Best:
        """No more than a list of `depth` needs."""
        return _Best(self.score_BL[:, : depth + 1], self.video_BL[:, : depth + 1], self.is_ranked_N)


def _best(scores_BM: Tensor, is_ranked_N: Tensor, depth: int) -> _Best:
    """Of scores of the videos in `is_ranked_N`."""
    num_ranked = scores_BM.shape[1]
    depth = min(depth, num_ranked)
    score, column = torch.topk(scores_BM, min(depth + 1, num_ranked))
    with one_thread():
        score, column = score.cpu(), column.cpu()  # wherever the ranker works
        if score[:, 0].isnan().any():  # topk puts NaN first
            raise ValueError("the ranker gave a score that is NaN")
        video = is_ranked_N.nonzero().squeeze(1)[column]
        if num_ranked == depth:  # there is no next one to be tied with
            score, video = pad(score, (0, 1), value=-torch.inf), pad(video, (0, 1))
    return _Best(score, video, is_ranked_N)


def _best_of_part(
    scores_BN: Tensor, best: _Best, part: Part, depth: int
) -> Iterator[tuple[Tensor, _Best]]:
    """Users (by place among the B) and their best: out of the whole list where it reaches."""
    depth = min(depth, int(part.is_in_N.sum()))
    if not depth:
        return
    with one_thread():
        is_in_BL = part.is_in_N[best.video_BL] & (best.score_BL > -torch.inf)
        reaches_B = (is_in_BL.sum(1) > depth) & part.asked_B
        rows = reaches_B.nonzero().squeeze(1)
        order = (~is_in_BL[rows]).byte().argsort(dim=1, stable=True)[:, : depth + 1]
        score, video = (of[rows].gather(1, order) for of in (best.score_BL, best.video_BL))
    if len(rows):
        yield rows, _Best(score, video, part.is_in_N)
    rest = (part.asked_B & ~reaches_B).nonzero().squeeze(1)
    if len(rest):
        columns = part.is_in_N.nonzero().squeeze(1).to(scores_BN.device)
        scores_BM = scores_BN[rest.to(scores_BN.device)].index_select(1, columns)
        yield rest, _best(scores_BM, part.is_in_N, depth)


def _lists(
    user_B: Tensor, scores_BN: Tensor, best: _Best, among: str, rows: Tensor
) -> list[TopLists]:
    """The lists of the users at some of the B places."""
    score, user_B = best.score_BL, user_B[rows]
    depth = score.shape[1] - 1
    with one_thread():
        ranked = score > -torch.inf
        video_BK = (best.video_BL * ranked)[:, :depth]
        tied_B = ((score[:, 1:] == score[:, :-1]) & ranked[:, 1:]).any(1)
        if not tied_B.any():
            return [TopLists(user_B, video_BK, score[:, :depth], among=among)]
        sure_B = ~tied_B
        sure = TopLists(user_B[sure_B], video_BK[sure_B], score[sure_B, :depth], among=among)
    tied_scores_BN = scores_BN[rows[tied_B].to(scores_BN.device)].cpu()
    groups, members = _tie_groups(tied_scores_BN, best.select(tied_B), depth)
    tied = TopLists(user_B[tied_B], video_BK[tied_B], score[tied_B, :depth], groups, members, among)
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


def _tie_groups(scores_BN: Tensor, best: _Best, depth: int) -> tuple[TieGroups, Tensor]:
    score = best.score_BL
    begins = torch.ones_like(score, dtype=torch.bool)
    begins[:, 1:] = score[:, 1:] != score[:, :-1]
    position = torch.arange(depth + 1).expand_as(score)
    start = torch.where(begins, position, 0).cummax(1).values[:, :depth]
    count = torch.zeros_like(start).scatter_add_(1, start, torch.ones_like(start))
    last = score[:, depth - 1 : depth]
    members = (scores_BN == last) & (last > -torch.inf) & best.is_ranked_N
    # Positions left empty are no group; any size that exceeds their number keeps them at 0 hits.
    size = torch.where(last > -torch.inf, members.sum(1, keepdim=True), depth)
    count.scatter_(1, start[:, -1:], size)
    return TieGroups(start, count.gather(1, start)), members
