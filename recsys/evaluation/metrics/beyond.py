"""What lists are like besides right or wrong: novelty, popularity, diversity, coverage, exposure.

All are expectations where equal scores leave an order open.

Shapes: U users, B users of a chunk, N video rows, K positions, C category rows, M most categories
of a video, G blocks of users, O groups of equal scores that go on beyond a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.toplists import Inclusion

NUM_BLOCKS = 20
"""Parts that users are dealt into, by whose differences the error of exposure is estimated."""


def self_information(videos: VideoTable) -> NDArray[np.float64]:
    """How surprising each video is: -log2 of its share of the known positives, in bits (N).

    T. Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", 2010;
    with one positive added to each video, since one without any would be infinitely surprising.
    """
    counts = videos.popularity_N.astype(np.float64) + 1
    return -np.log2(counts / counts[1:].sum())


OfLists = Callable[[Inclusion, Tensor], Tensor]
"""Takes the lists and how many videos each holds (B); gives a value each (B)."""


def diversity(videos: VideoTable) -> OfLists | None:
    """One minus the mean cosine of the categories of two videos of a list; None without categories.

    It is 0 where all are of one category (B. Smyth and P. McClave, "Similarity vs. Diversity",
    2001); videos without a category count as a category of their own.
    """
    if videos.categories is None:
        return None
    vectors = _CategoryVectors(videos)

    def of_lists(included: Inclusion, size_B: Tensor) -> Tensor:
        return 1 - vectors.alike_pairs(included) / (size_B * (size_B - 1))

    return of_lists


class _CategoryVectors:
    """The categories of videos as vectors of length 1, kept sparse."""

    def __init__(self, videos: VideoTable) -> None:
        assert videos.categories is not None
        rows_NM, weight_N = videos.categories.padded()
        self.rows_NM = torch.from_numpy(rows_NM).long()
        self.weight_NM = torch.from_numpy((rows_NM >= 0) * weight_N[:, None])
        self.rows_NM.clamp_(min=0)
        self.num_categories = int(self.rows_NM.max()) + 1

    def tally(self, included: Inclusion, chance_BK: Tensor) -> Tensor:
        """Sum of the vectors of the videos, each times its `chance_BK`: (B, C)."""
        weights = self.weight_NM[included.video_BK] * chance_BK[..., None]
        total_BC = torch.zeros(len(chance_BK), self.num_categories, dtype=torch.float64)
        rows = self.rows_NM[included.video_BK]
        return total_BC.scatter_add_(1, rows.flatten(1), weights.flatten(1))

    def alike_pairs(self, included: Inclusion) -> Tensor:
        """Expected sum of the cosines over all ordered pairs of different videos (B).

        With A the vectors of the videos that are in the list for sure, and m of the g videos of
        one group in random order, whose vectors are G: pairs within A, between A and G, within G.
        """
        sure_BK = (included.chance_BK == 1).double()
        sure_BC = self.tally(included, sure_BK)
        pairs_B = sure_BC.square().sum(1) - sure_BK.sum(1)
        maybe_BK = included.chance_BK * (included.chance_BK < 1)
        if included.open is None and not maybe_BK.any():
            return pairs_B
        chance_B, size_B = maybe_BK.max(1).values, (maybe_BK > 0).sum(1).double()
        group_BC = self.tally(included, (maybe_BK > 0).double())
        if included.open is not None:
            users = included.open.user_O
            chance_B[users], size_B[users] = included.open.chance_O, included.open.size_O
            group_BC[users] = self._tally_of_members(included.open.members_ON)
        both_B = chance_B * ((chance_B * size_B - 1) / (size_B - 1).clamp(min=1)).clamp(min=0)
        pairs_B += 2 * chance_B * (sure_BC * group_BC).sum(1)
        return pairs_B + both_B * (group_BC.square().sum(1) - size_B)

    def _tally_of_members(self, members_ON: Tensor) -> Tensor:
        num_videos, most = self.rows_NM.shape
        owners = torch.arange(num_videos).repeat_interleave(most)
        index = torch.stack([self.rows_NM.flatten(), owners])
        vectors_CN = torch.sparse_coo_tensor(
            index,
            self.weight_NM.flatten(),
            (self.num_categories, num_videos),
            check_invariants=False,
        )
        return (vectors_CN @ members_ON.T.double()).T


@dataclass(frozen=True)
class Exposure:
    """How often each video is among the first k, as expectations, by block of users."""

    k: int
    sure_GN: NDArray[np.int32]
    """Number of lists that hold the video for sure, …"""
    maybe_GN: NDArray[np.float64]
    """… of the others, in which equal scores leave it open, …"""
    missed_GN: NDArray[np.float64]
    """… and log of the chance that none of these does."""

    @property
    def shown_N(self) -> NDArray[np.float64]:
        """Number of lists of all users that hold the video."""
        return sum(self.shown_by_block(), np.zeros(self.sure_GN.shape[1]))

    def shown_by_block(self) -> Iterator[NDArray[np.float64]]:
        """The same of each block's users (N)."""
        for sure_N, maybe_N in zip(self.sure_GN, self.maybe_GN, strict=True):
            yield sure_N + maybe_N

    def coverage(self, without_block: int | None = None) -> float:
        """Expected share of the catalogue that is in any list."""
        blocks = np.arange(len(self.sure_GN)) != (-1 if without_block is None else without_block)
        sure, missed = self.sure_GN[blocks].sum(0), self.missed_GN[blocks].sum(0)
        return float(np.where(sure > 0, 1, -np.expm1(missed))[1:].mean())


class ExposureMeter:
    """Gathers the exposure of each video at one cutoff."""

    def __init__(self, data: RankingSet, k: int) -> None:
        self._k = k
        # Dealt at random, so that an order in which users came cannot make blocks differ.
        blocks = np.random.default_rng(0).permutation(data.num_users) % NUM_BLOCKS
        self._block_U = torch.from_numpy(blocks)
        self._size = data.num_videos
        # Of NumPy, whose zeros take no memory until something is added to them.
        self._sure, self._maybe, self._missed = (
            torch.from_numpy(np.zeros(NUM_BLOCKS * data.num_videos, kind))
            for kind in (np.int32, np.float64, np.float64)
        )

    def add(self, user_B: Tensor, included: Inclusion) -> None:
        """Adds the lists of some users."""
        block_B = self._block_U[user_B]
        cell = (block_B[:, None] * self._size + included.video_BK).flatten()
        chance = included.chance_BK.flatten()
        self._sure.scatter_add_(0, cell, (chance == 1).int())
        at = ((chance > 0) & (chance < 1)).nonzero().squeeze(1)
        if len(at):
            self._maybe.scatter_add_(0, cell[at], chance[at])
            self._missed.scatter_add_(0, cell[at], (-chance[at]).log1p())
        if included.open is not None:
            chance_O, members_ON = included.open.chance_O, included.open.members_ON.double()
            blocks = torch.arange(NUM_BLOCKS)[:, None]
            of_block_GO = (block_B[included.open.user_O] == blocks).double()
            self._maybe += ((of_block_GO * chance_O) @ members_ON).flatten()
            self._missed += ((of_block_GO * (-chance_O).log1p()) @ members_ON).flatten()

    def result(self) -> Exposure:
        """What was gathered."""
        parts = (self._sure, self._maybe, self._missed)
        return Exposure(self._k, *(part.view(NUM_BLOCKS, -1).numpy() for part in parts))
