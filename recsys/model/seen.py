"""Which videos a user has seen before a request: their scores gain or lose by it.

A state of fixed width cannot hold which videos a user has seen, and that nearly nobody watches a
film twice, or everybody a song, is the plainest thing to know of a catalogue. So it is a term of
its own, learnt with the rest: one number for having been shown a video, one for having liked it.

Shapes: B timelines, L positions, P queries, K = 2 kinds of having seen a video, R distinct videos
that the queries' users have seen, one query after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SHOWN, LIKED = KINDS = (0, 1)


class Seen(NamedTuple):
    """The videos that were seen before some queries; each field is (R,) int64.

    A video that was liked stands there twice, as SHOWN and as LIKED.
    """

    query: Tensor
    event: Tensor
    """Position in the query's timeline."""
    kind: Tensor
    """SHOWN or LIKED."""


def seen_before(rows_BL: Tensor, liked_BL: Tensor, *, owner: Tensor, num_prior: Tensor) -> Seen:
    """The distinct videos that each query's user had seen before it.

    Args:
        rows_BL: int64, what names the videos of some timelines.
        liked_BL: bool.
        owner: (P,) timeline of each query.
        num_prior: (P,) how many of its first events count.

    >>> rows, liked = torch.tensor([[5, 7, 5]]), torch.tensor([[False, True, True]])
    >>> seen = seen_before(rows, liked, owner=torch.tensor([0, 0]), num_prior=torch.tensor([1, 3]))
    >>> list(zip(seen.query.tolist(), seen.event.tolist(), seen.kind.tolist()))
    [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 1)]
    """
    first_PLK = first_events(rows_BL, liked_BL)[owner]
    first_PLK &= before(num_prior, rows_BL.shape[1]).unsqueeze(-1)
    return Seen(*first_PLK.nonzero(as_tuple=True))


def first_events(rows_BL: Tensor, liked_BL: Tensor) -> Tensor:
    """Which events are the first of their video in the timeline, shown and liked: (B, L, K) bool.

    It takes what `seen_before` takes, and a GPU is not waited for.
    """
    # Which earlier events of the timeline are of the same video.
    same_BLL = (rows_BL.unsqueeze(2) == rows_BL.unsqueeze(1)).tril(-1)
    was_liked_BL = (same_BLL & liked_BL.unsqueeze(1)).any(-1)
    return torch.stack([~same_BLL.any(-1), liked_BL & ~was_liked_BL], -1)


def before(num_prior: Tensor, length: int) -> Tensor:
    """Which of a timeline's first events count for each query: (P,) -> (P, L) bool, L the length.

    >>> before(torch.tensor([0, 2]), 3).tolist()
    [[False, False, False], [True, True, False]]
    """
    return torch.arange(length, device=num_prior.device) < num_prior.unsqueeze(-1)
