"""Trivial rankers that a model must beat, to be ranked and measured exactly as it is.

Shapes: U test users, A all users, B users of a chunk, N video rows, D dimensions, P (user, video)
pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.inference.ranker import Ranker, dot_product

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
    """By positive events before the test cut, recent ones counting more: see `Likes.recent`."""
    return same_for_all(torch.from_numpy(recent_N))


@dataclass(frozen=True)
class Neighbours:
    """The videos most often liked together with each video, the nearest first."""

    lists: Ragged
    """N lists of video rows."""
    cosines: NDArray[np.float64]
    """One for each of them: the number of users who liked both videos over the root of the product
    of their numbers of users."""

    @classmethod
    def of(cls, positives: Ragged, num_videos: int, *, most: int) -> Neighbours:
        """At most so many of each video, of what users (A lists) liked."""
        likes = distinct(positives)
        norm_N = np.sqrt(np.maximum(np.bincount(likes.values, minlength=num_videos), 1))
        parts = []
        for start, both in liked_together(likes, num_videos):
            rows = np.arange(start, start + len(both))
            cosine = both / norm_N / norm_N[rows, None]
            cosine[rows - start, rows] = 0  # itself
            best = torch.topk(torch.from_numpy(cosine), min(most, num_videos))
            kept = best.values > 0
            parts.append((kept.sum(1), best.indices[kept], best.values[kept]))
        lengths, rows, cosines = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(Ragged(offsets, rows.astype(np.int32)), cosines)

    def first(self, count: int) -> Neighbours:
        """No more than so many of each video."""
        place = np.arange(len(self.cosines)) - self.lists.offsets[self.lists.list_of_value]
        kept = place < count
        ends = np.concatenate([[0], np.cumsum(kept)])
        lists = Ragged(ends[self.lists.offsets], self.lists.values[kept])
        return Neighbours(lists, self.cosines[kept])


def item_knn(neighbours: Neighbours, data: RankingSet) -> Ranker:
    """By the videos that were liked together with those of the user's history.

    A video's score is the sum of its cosines with the history's different videos (B. Sarwar et al.,
    "Item-based collaborative filtering", 2001). Equal scores, and so the lists of users without a
    history, are in order of popularity.
    """
    known, num_videos = distinct(data.known), data.num_videos
    near, cosines = neighbours.lists, neighbours.cosines
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


def distinct(lists: Ragged) -> Ragged:
    """Each value once a list, in rising order; without row 0."""
    kept = lists.values > 0
    return Ragged.of_sets(lists.list_of_value[kept], lists.values[kept], len(lists))


def liked_together(likes: Ragged, num_values: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """How many lists hold both of two values, for all pairs: (first, (≤ `BLOCK`, N)) in turns.

    Args:
        likes: Lists without repeated values.
        num_values: N; values are below it.
    """
    order = np.argsort(likes.values, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(likes.values, minlength=num_values))])
    lists_of_value = Ragged(offsets, likes.list_of_value[order].astype(np.int32))
    for start in range(0, num_values, BLOCK):
        stop = min(start + BLOCK, num_values)
        value, owner = lists_of_value.pairs(start, stop)
        together = likes.select(owner.astype(np.int64))
        cells = np.repeat(value, together.lengths) * num_values + together.values
        both = np.bincount(cells, minlength=(stop - start) * num_values)
        yield start, both.reshape(-1, num_values)
