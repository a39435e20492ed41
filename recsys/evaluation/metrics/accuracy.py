"""Ranking metrics of each user, also with the relevant videos of one slice of the catalogue only.

There are two questions to ask of a slice. Among all videos: the whole catalogue is ranked, and only
the slice's videos count as relevant; who never shows cold videos does well on warm ones by that
alone. Among its own: nothing but the slice's videos is ranked, which leaves the order within it. A
user counts in a slice with at least one relevant video in it.

Shapes: U users, B users of some lists, N video rows, K positions, P (user, relevant video) pairs,
S slices, E (slice, user) entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.metrics.expected import (
    ExpectedHits,
    hits_with_ties,
    hits_without_ties,
)
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.table import metrics_at
from recsys.evaluation.metrics.toplists import TopLists

WARM_AMONG_WARM, COLD_AMONG_COLD = "warm_among_warm", "cold_among_cold"
WARM_AND_COLD = ("warm", "cold", WARM_AMONG_WARM, COLD_AMONG_COLD)
"""The slices that are tested and shown of every ranker."""

AGES = (1.0, 3.0, 7.0, 30.0)
"""Bounds of the age slices, in days."""


@dataclass(frozen=True)
class SliceMetrics:
    """Metrics of the users who have a relevant video in one slice of the catalogue."""

    users: NDArray[np.int64]
    """Their numbers, rising."""
    values: Mapping[str, NDArray[np.float64]]
    """Metric (`ndcg@10`, …) → one value for each of them."""


def video_slices(videos: VideoTable) -> dict[str, NDArray[np.bool_]]:
    """Name → which video rows belong to that slice (N).

    `all`, `warm` (with training events), `cold` (without), and `age: …` where ages are known.
    """
    slices = {"all": np.ones(len(videos), np.bool_), "warm": ~videos.cold_N, "cold": videos.cold_N}
    age = videos.age_days_N
    if age is None:
        return slices
    slices["age: not yet seen"] = np.isnan(age) | (age < 0)
    for low, high in zip((0.0, *AGES), (*AGES, np.inf), strict=True):
        name = f"{low:g} to {high:g} days" if high < np.inf else f"over {low:g} days"
        slices[f"age: {name}"] = (age >= low) & (age < high)
    return slices


def own_slices(videos: VideoTable) -> dict[str, NDArray[np.bool_]]:
    """Name → the videos that are ranked among themselves; together they are the catalogue (N)."""
    is_video_N = np.arange(len(videos)) > 0
    return {
        WARM_AMONG_WARM: ~videos.cold_N & is_video_N,
        COLD_AMONG_COLD: videos.cold_N & is_video_N,
    }


class AccuracyMeter:
    """Gathers the metrics of each user and slice from lists.

    An entry is a user in a slice in which they have a relevant video; all entries are in one row,
    slice by slice, and start at 0, since most lists hold nothing relevant.
    """

    def __init__(
        self,
        data: RankingSet,
        cutoffs: Sequence[int],
        slices: Mapping[str, NDArray[np.bool_]],
        *,
        chunk_users: int,
    ) -> None:
        self._data = data
        self._cutoffs = cutoffs
        self._names = list(slices)
        masks_SN = np.stack(list(slices.values()))
        # One number a video: bit s is set where it belongs to slice s.
        code_N = (masks_SN.astype(np.int16) << np.arange(len(slices))[:, None]).sum(0)
        self._code_N = torch.from_numpy(code_N.astype(np.int16))
        self._bits_S = torch.arange(len(slices), dtype=torch.int16)
        counts_SU = np.stack([data.num_relevant(mask_N) for mask_N in masks_SN])
        self._num_relevant_SU = torch.from_numpy(counts_SU)
        self._entry_SU = (counts_SU > 0).ravel().cumsum().reshape(counts_SU.shape) - 1
        self._values: dict[str, NDArray[np.float64]] = {}
        self._marks_BN = torch.zeros(chunk_users, data.num_videos, dtype=torch.int16)

    def add(self, lists: TopLists) -> None:
        """Adds the lists of some users."""
        picked = self._data.relevant.select(lists.user_B.numpy())
        user_P = torch.from_numpy(picked.list_of_value)
        video_P = torch.from_numpy(picked.values).long()
        code_P = self._code_N[video_P]
        self._marks_BN[user_P, video_P] = code_P
        code_BK = self._marks_BN[: len(lists.user_B)].gather(1, lists.video_BK)
        self._marks_BN[user_P, video_P] = 0
        if lists.ties is None:
            some_B = code_BK.any(1)
            hit_SBK = self._of_slices(code_BK[some_B])
            slice_E, row_E = hit_SBK.any(2).nonzero(as_tuple=True)
            user_E = lists.user_B[some_B][row_E]
            self._put(slice_E, user_E, hits_without_ties(hit_SBK[slice_E, row_E]))
            return
        assert lists.last_members_BN is not None
        slice_E, row_E = self._num_relevant_SU[:, lists.user_B].nonzero(as_tuple=True)
        in_last_SP = self._of_slices(code_P) & lists.last_members_BN[user_P, video_P]
        in_last_SB = torch.zeros(len(self._names), len(lists.user_B), dtype=torch.int64)
        in_last_SB.index_add_(1, user_P, in_last_SP.long())
        hit_EK = self._of_slices(code_BK)[slice_E, row_E]
        groups, in_last_E = lists.ties.select(row_E), in_last_SB[slice_E, row_E]
        self._put(slice_E, lists.user_B[row_E], hits_with_ties(hit_EK, groups, in_last_E))

    def _of_slices(self, code: Tensor) -> Tensor:
        """Whether each code has each slice's bit: (S, …)."""
        bits_S = self._bits_S.view(-1, *[1] * code.dim())
        return (code >> bits_S & 1).bool()

    def _put(self, slice_E: Tensor, user_E: Tensor, hits: ExpectedHits) -> None:
        metrics = metrics_at(hits, self._num_relevant_SU[slice_E, user_E], self._cutoffs)
        entry_E = self._entry_SU[slice_E.numpy(), user_E.numpy()]
        for name, value_E in metrics.items():
            values = self._values.setdefault(name, np.zeros(self._entry_SU[-1, -1] + 1))
            values[entry_E] = value_E.numpy()

    def result(self) -> dict[str, SliceMetrics]:
        """Slice → its users and their metrics."""
        slices, begin = {}, 0
        for name, counts_U in zip(self._names, self._num_relevant_SU.numpy(), strict=True):
            users = counts_U.nonzero()[0]
            part = slice(begin, begin + len(users))
            values = {metric: values[part] for metric, values in self._values.items()}
            slices[name], begin = SliceMetrics(users, values), begin + len(users)
        return slices
