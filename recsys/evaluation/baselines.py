"""Trivial rankers that a model must beat, to be ranked and measured exactly as it is.

Shapes: U test users, A all users, B users of a chunk, N video rows, D dimensions, E events,
P (user, video) pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.inference.ranker import Ranker, dot_product

DAY_MS = 86_400_000
TIE_BREAK = 1e-9
"""What the most popular video gains: less than any cosine does of fewer than 10^9 users."""
BLOCK = 256
"""Videos whose neighbours are sought at a time."""


def same_for_all(scores_N: Tensor) -> Ranker:
    """Ranks alike for everybody."""
    return lambda start, stop: scores_N.expand(stop - start, -1)


def random_order(num_videos: int) -> Ranker:
    """All scores equal: metrics are then the exact expectation of a random order."""
    return same_for_all(torch.zeros(num_videos))


def popularity(popularity_N: NDArray[np.int64]) -> Ranker:
    """By the number of positive events before the test cut."""
    return same_for_all(torch.from_numpy(popularity_N.astype(np.float64)))


def recent_popularity(recent_N: NDArray[np.float64]) -> Ranker:
    """By positive events before the test cut, recent ones counting more: see `recent_counts`."""
    return same_for_all(torch.from_numpy(recent_N))


def recent_counts(
    video_row_E: NDArray[np.int32],
    time_ms_E: NDArray[np.int64],
    *,
    cut_ms: int,
    half_life_days: float,
    num_videos: int,
) -> NDArray[np.float64]:
    """Σ 2^(-age / half life) over each video's events before `cut_ms` (N).

    The counts of several parts of the events add up.

    >>> times = np.array([0, DAY_MS, 9 * DAY_MS])
    >>> rows = np.array([1, 1, 1], np.int32)
    >>> recent_counts(rows, times, cut_ms=2 * DAY_MS, half_life_days=1, num_videos=2).tolist()
    [0.0, 0.75]
    """
    before = time_ms_E < cut_ms
    age_days = (cut_ms - time_ms_E[before]) / DAY_MS
    weights = 0.5 ** (age_days / half_life_days)
    return np.bincount(video_row_E[before], weights, num_videos).astype(np.float64)


def item_knn(positives: Ragged, data: RankingSet, *, neighbours: int = 500) -> Ranker:
    """By the videos that were liked together with those of the user's history.

    A video's score is the sum of its cosines with the history's different videos, where the
    cosine of two videos is the number of users who liked both over the root of the product of
    their numbers of users (B. Sarwar et al., "Item-based collaborative filtering", 2001). Equal
    scores, and so the lists of users without a history, are in order of popularity.

    Args:
        positives: A lists of video rows: the positives before the test cut of ALL users.
        data: The test users.
        neighbours: Most similar videos kept of each video.
    """
    near, cosines = _neighbours(_distinct(positives), data.num_videos, neighbours)
    known, num_videos = _distinct(data.known), data.num_videos
    popularity_N = data.videos.popularity_N
    order_N = TIE_BREAK * popularity_N / max(1, popularity_N.max())

    def scores(start: int, stop: int) -> Tensor:
        owners, rows = known.pairs(start, stop)
        places = near.places(rows.astype(np.int64))
        cells = np.repeat(owners, near.lengths[rows]) * num_videos + near.values[places]
        sums = np.bincount(cells, cosines[places], (stop - start) * num_videos)
        return torch.from_numpy(sums.reshape(-1, num_videos) + order_N)

    return scores


def content_knn(vectors_ND: Tensor, data: RankingSet) -> Ranker:
    """By the cosine with the mean of the content vectors of the user's history.

    Users without a history get equal scores.

    Args:
        vectors_ND: Content vectors; those of length 0 count as no content.
        data: The test users.
    """
    unit_ND = torch.nn.functional.normalize(vectors_ND.float(), dim=1)
    owners, rows = data.known.pairs(0, data.num_users)
    means_UD = torch.zeros(data.num_users, unit_ND.shape[1])
    for at in range(0, len(rows), 2**18):  # not all of the history's vectors at a time
        part = slice(at, at + 2**18)
        vectors_PD = unit_ND[torch.from_numpy(rows[part]).long()]
        means_UD.index_add_(0, torch.from_numpy(owners[part]), vectors_PD)
    return dot_product(means_UD, unit_ND)


def _distinct(lists: Ragged) -> Ragged:
    """Each value once a list, in rising order; without row 0."""
    keys = np.unique(lists.list_of_value << 32 | lists.values)
    keys = keys[keys & 0xFFFFFFFF > 0]
    offsets = np.searchsorted(keys, np.arange(len(lists) + 1) << 32)
    return Ragged(offsets, (keys & 0xFFFFFFFF).astype(np.int32))


def _neighbours(likes: Ragged, num_videos: int, count: int) -> tuple[Ragged, NDArray[np.float64]]:
    """The most similar videos of each video, at most `count`, and the cosine of each."""
    order = np.argsort(likes.values, kind="stable")
    num_users_N = np.bincount(likes.values, minlength=num_videos)
    offsets = np.concatenate([[0], np.cumsum(num_users_N)])
    users_of_video = Ragged(offsets, likes.list_of_value[order].astype(np.int32))
    norm_N = np.sqrt(np.maximum(num_users_N, 1))
    parts = []
    for start in range(0, num_videos, BLOCK):
        stop = min(start + BLOCK, num_videos)
        video, user = users_of_video.pairs(start, stop)
        together = likes.select(user.astype(np.int64))
        cells = np.repeat(video, together.lengths) * num_videos + together.values
        both = np.bincount(cells, minlength=(stop - start) * num_videos)
        cosine = both.reshape(-1, num_videos) / norm_N / norm_N[start:stop, None]
        cosine[np.arange(stop - start), np.arange(start, stop)] = 0  # itself
        best = torch.topk(torch.from_numpy(cosine), min(count, num_videos))
        kept = best.values > 0
        parts.append((kept.sum(1), best.indices[kept], best.values[kept]))
    lengths, rows, cosines = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Ragged(offsets, rows.astype(np.int32)), cosines
