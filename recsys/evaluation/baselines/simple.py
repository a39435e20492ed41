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
"""Videos that are counted with all others at a time."""
BLOCK_PAIRS = 1 << 23
"""Pairs of videos that one user liked that are counted at a time, of more than one video."""
MOST_PAIRS = 1 << 31
"""Pairs that item-kNN is made of: a minute or two, however many users there are."""


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
    share_of_users: float = 1.0
    """Of the users, those that were counted."""

    @classmethod
    def of(cls, positives: Ragged, num_videos: int, *, most: int, seed: int = 0) -> Neighbours:
        """At most so many of each video, of what users (A lists) liked, or some of them: see `few`.

        Of two that are as near, the one with the lower row comes first.
        """
        likes, share = few(distinct(positives), seed=seed)
        norm_N = np.sqrt(np.maximum(np.bincount(likes.values, minlength=num_videos), 1))
        parts = [np.zeros((2, 0), np.int64)]
        cosines = [np.zeros(0)]
        for rows, others, users in pairs_liked(likes, num_videos):
            cosine = users / norm_N[others] / norm_N[rows]
            order = np.lexsort((-cosine, rows))
            order = order[_place_in_run(rows[order]) < most]
            parts.append(np.stack([rows, others])[:, order])
            cosines.append(cosine[order])
        owners, near = np.concatenate(parts, axis=1)
        offsets = np.searchsorted(owners, np.arange(num_videos + 1))
        return cls(Ragged(offsets, near.astype(np.int32)), np.concatenate(cosines), share)

    def first(self, count: int) -> Neighbours:
        """No more than so many of each video."""
        place = np.arange(len(self.cosines)) - self.lists.offsets[self.lists.list_of_value]
        kept = place < count
        ends = np.concatenate([[0], np.cumsum(kept)])
        lists = Ragged(ends[self.lists.offsets], self.lists.values[kept])
        return Neighbours(lists, self.cosines[kept], self.share_of_users)


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


def few(likes: Ragged, *, seed: int) -> tuple[Ragged, float]:
    """The lists of users drawn at random, so many that they hold `MOST_PAIRS` pairs; their share.

    Who liked n videos holds n² pairs of them: a few thousand likes of one user take as long as
    those of a million others, and so does the work for all of them with the number of users.
    """
    order = np.random.default_rng(seed).permutation(len(likes))
    pairs = np.cumsum(likes.lengths[order] ** 2)
    if not len(likes) or pairs[-1] <= MOST_PAIRS:
        return likes, 1.0
    drawn = np.sort(order[: max(1, int(np.searchsorted(pairs, MOST_PAIRS, side="right")))])
    return likes.select(drawn), len(drawn) / len(likes)


def pairs_liked(
    likes: Ragged, num_values: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of two different values that some lists hold both, a block of first ones at a time.

    Args:
        likes: Lists without repeated values.
        num_values: N; values are below it.

    Yields:
        First values, sorted, second ones, sorted for each first one, and the numbers of lists.
    """
    lists_of_value = _turned(likes, num_values)
    pairs = np.bincount(likes.values, likes.lengths[likes.list_of_value], num_values)
    ends = np.cumsum(pairs)
    start = 0
    while start < num_values:
        so_far = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, so_far + BLOCK_PAIRS, side="right")))
        value, owner = lists_of_value.pairs(start, stop)
        together = likes.select(owner.astype(np.int64))
        first = np.repeat(value + start, together.lengths)
        keys = (first << 32 | together.values)[first != together.values]
        keys, lists = np.unique(keys, return_counts=True)
        yield keys >> 32, keys & 0xFFFFFFFF, lists
        start = stop


def liked_together(likes: Ragged, num_values: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """How many lists hold both of two values, for all pairs: (first, (≤ `BLOCK`, N)) in turns.

    Args:
        likes: Lists without repeated values.
        num_values: N; values are below it.
    """
    lists_of_value = _turned(likes, num_values)
    for start in range(0, num_values, BLOCK):
        stop = min(start + BLOCK, num_values)
        value, owner = lists_of_value.pairs(start, stop)
        together = likes.select(owner.astype(np.int64))
        cells = np.repeat(value, together.lengths) * num_values + together.values
        both = np.bincount(cells, minlength=(stop - start) * num_values)
        yield start, both.reshape(-1, num_values)


def _turned(lists: Ragged, num_values: int) -> Ragged:
    """The lists that hold each value, of N values."""
    order = np.argsort(lists.values, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(lists.values, minlength=num_values))])
    return Ragged(offsets, lists.list_of_value[order].astype(np.int32))


def _place_in_run(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each value's place among those that are equal to it, of sorted ones.

    >>> _place_in_run(np.array([4, 4, 7, 9, 9, 9])).tolist()
    [0, 1, 0, 0, 1, 2]
    """
    place = np.arange(len(values))
    return place - np.searchsorted(values, values)
