"""Trivial rankers that a model must beat, to be ranked and measured exactly as it is.

Shapes: U test users, A all users, B users of a chunk, N video rows, D dimensions, P (user, video)
pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import Ragged, expand_ranges, union
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.inference.ranker import Ranker, dot_product

TIE_BREAK = 1e-9
"""What the most popular video gains: less than any cosine does of fewer than 10^9 users."""
BLOCK = 256
"""Videos that are counted with all others at a time."""
BLOCK_PAIRS = 1 << 21
"""Pairs of videos that one user liked that are counted at a time, or those of one user alone."""
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
    """N lists of video rows, of each of which the first `most` count."""
    both: NDArray[np.int32]
    """Of each of them the number of users who liked it and the list's video."""
    norm_N: NDArray[np.float64]
    """The root of the number of users who liked each video."""
    most: int
    share_of_users: float = 1.0
    """Of the users, those that were counted."""

    @classmethod
    def of(
        cls, positives: Ragged, num_videos: int, asked: Ragged, *, most: int, seed: int = 0
    ) -> Neighbours:
        """At most so many of each video of `asked`, of what users (A lists) liked.

        Of what some of the users liked where all are too many: see `few`. Of two neighbours that
        are as near, the one with the lower row comes first. Others than the videos that the lists
        of `asked` hold have none: gigabytes of all that users who are not measured ever liked.
        """
        likes, share = few(distinct(positives), seed=seed)
        norm_N = np.sqrt(np.maximum(np.bincount(likes.values, minlength=num_videos), 1))
        lengths_N = np.zeros(num_videos, np.int64)
        asked_rows = union(asked.values).astype(np.int64)
        # What is not written to takes no memory.
        room = int(np.minimum(_num_pairs(likes, num_videos)[asked_rows], most).sum())
        near, both = (np.empty(room, np.int32) for _ in range(2))
        for rows, others, users in pairs_liked(likes, num_videos, asked_rows):
            cosine = users / norm_N[others] / norm_N[rows]
            order = np.lexsort((-cosine, rows))
            order = order[_place_in_run(rows[order]) < most]
            start = lengths_N.sum()
            lengths_N += np.bincount(rows[order], minlength=num_videos)
            near[start : start + len(order)] = others[order]
            both[start : start + len(order)] = users[order]
        ends = np.concatenate([[0], np.cumsum(lengths_N)])
        return cls(Ragged(ends, near[: ends[-1]]), both[: ends[-1]], norm_N, most, share)

    def first(self, count: int) -> Neighbours:
        """No more than so many of each video; nothing is copied."""
        return replace(self, most=min(self.most, count))

    def near(
        self, rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """The neighbours of some videos: how many of each, their rows and their cosines.

        A cosine is the number of users who liked both videos over the root of the product of their
        numbers of users.
        """
        starts = self.lists.offsets[rows]
        lengths = np.minimum(self.lists.offsets[rows + 1] - starts, self.most)
        places = expand_ranges(starts, lengths)
        near = self.lists.values[places]
        own = np.repeat(self.norm_N[rows], lengths)
        return lengths, near, self.both[places] / self.norm_N[near] / own


def item_knn(neighbours: Neighbours, data: RankingSet) -> Ranker:
    """By the videos that were liked together with those of the user's history.

    A video's score is the sum of its cosines with the history's different videos (B. Sarwar et al.,
    "Item-based collaborative filtering", 2001). Equal scores, and so the lists of users without a
    history, are in order of popularity.
    """
    known, num_videos = distinct(data.known), data.num_videos
    popularity_N = data.videos.popularity_N
    order_N = TIE_BREAK * popularity_N / max(1, popularity_N.max())

    def scores(start: int, stop: int) -> Tensor:
        owners, rows = known.pairs(start, stop)
        lengths, near, cosines = neighbours.near(rows)
        cells = np.repeat(owners, lengths) * num_videos + near
        # Without any neighbour NumPy's counts are whole numbers.
        sums = np.bincount(cells, cosines, (stop - start) * num_videos).astype(float, copy=False)
        scores_BN = sums.reshape(-1, num_videos)
        scores_BN += order_N
        return torch.from_numpy(scores_BN)

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
    likes: Ragged, num_values: int, firsts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of two different values that some lists hold both, a block of first ones at a time.

    Args:
        likes: Lists without repeated values.
        num_values: N; values are below it.
        firsts: Values, rising, that are first ones.

    Yields:
        First values, sorted, second ones, sorted for each first one, and the numbers of lists.
    """
    lists_of_first, lengths = _turned(likes, num_values).select(firsts), likes.lengths
    for block in pieces(_num_pairs(likes, num_values)[firsts], BLOCK_PAIRS):
        place, owner = lists_of_first.pairs(block.start, block.stop)
        value = firsts[block.start + place]
        keys, lists = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for part in pieces(lengths[owner], BLOCK_PAIRS):  # more than one of a popular video
            together = likes.select(owner[part].astype(np.int64))
            first = np.repeat(value[part], together.lengths)
            found = np.unique(
                (first << 32 | together.values)[first != together.values], return_counts=True
            )
            keys, lists = _added((keys, lists), found) if len(keys) else found
        yield keys >> 32, keys & 0xFFFFFFFF, lists


Counted = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Sorted keys, and how often each was there."""


def _added(one: Counted, other: Counted) -> Counted:
    keys, place = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, place, np.concatenate([one[1], other[1]]))
    return keys, counts


def liked_together(likes: Ragged, num_values: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """How many lists hold both of two values, for all pairs: (first, (≤ `BLOCK`, N)) in turns.

    Args:
        likes: Lists without repeated values.
        num_values: N; values are below it.
    """
    lists_of_value, lengths = _turned(likes, num_values), likes.lengths
    for start in range(0, num_values, BLOCK):
        stop = min(start + BLOCK, num_values)
        both = np.zeros((stop - start) * num_values, np.int64)
        value, owner = lists_of_value.pairs(start, stop)
        for part in pieces(lengths[owner], BLOCK_PAIRS):
            together = likes.select(owner[part].astype(np.int64))
            cells = np.repeat(value[part], together.lengths) * num_values + together.values
            both += np.bincount(cells, minlength=len(both))
        yield start, both.reshape(-1, num_values)


def pieces(sizes: NDArray[np.number], most: int) -> Iterator[slice]:
    """Cuts things of some sizes, in their order, into pieces of at most `most`, or of one thing.

    >>> [(piece.start, piece.stop) for piece in pieces(np.array([2, 3, 9, 0, 1]), 5)]
    [(0, 2), (2, 3), (3, 5)]
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        so_far = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, so_far + most, side="right")))
        yield slice(start, stop)
        start = stop


def _num_pairs(likes: Ragged, num_values: int) -> NDArray[np.float64]:
    """Pairs of each of N values with those of the lists that hold it, with itself too."""
    pairs = np.bincount(likes.values, likes.lengths[likes.list_of_value], num_values)
    return pairs.astype(np.float64)


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
