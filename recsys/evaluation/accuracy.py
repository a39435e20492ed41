"""Ranking metrics of each user, also with the relevant videos of one slice of the catalogue only.

A slice's list is the whole list: all videos are ranked, and only those of the slice count as
relevant. A user counts in a slice with at least one relevant video in it.

Shapes: U users, B users of some lists, N video rows, K positions, P (user, relevant video) pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.expected import ExpectedHits, hits_with_ties, hits_without_ties, metrics_at
from recsys.evaluation.interactions import RankingSet, Videos
from recsys.evaluation.toplists import TopLists

AGES = (1.0, 3.0, 7.0, 30.0)
"""Bounds of the age slices, in days."""


@dataclass(frozen=True)
class SliceMetrics:
    """Metrics of the users who have a relevant video in one slice of the catalogue."""

    users: NDArray[np.int64]
    """Their numbers, rising."""
    values: Mapping[str, NDArray[np.float64]]
    """Metric (`ndcg@10`, …) → one value for each of them."""


def video_slices(videos: Videos) -> dict[str, NDArray[np.bool_]]:
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


class AccuracyMeter:
    """Gathers the metrics of each user, slice by slice, from lists."""

    def __init__(self, data: RankingSet, cutoffs: Sequence[int], *, chunk_users: int) -> None:
        self._data = data
        self._cutoffs = cutoffs
        slices = video_slices(data.videos)
        relevant = data.relevant
        # One number a video: bit s is set where it belongs to slice s.
        self._code_N = torch.zeros(data.num_videos, dtype=torch.int16)
        self._slices: dict[str, _Slice] = {}
        for bit, (name, mask) in enumerate(slices.items()):
            self._code_N |= torch.from_numpy(mask).to(torch.int16) << bit
            counted = mask[relevant.values]
            self._slices[name] = _Slice(
                np.bincount(relevant.list_of_value[counted], minlength=data.num_users)
            )
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
            self._add_sure(lists.user_B, code_BK)
            return
        assert lists.last_members_BN is not None
        in_last_P = lists.last_members_BN[user_P, video_P]
        user_P, code_P = user_P[in_last_P], code_P[in_last_P]
        for bit, found in enumerate(self._slices.values()):
            at = found.wanted(lists.user_B)
            in_last_B = torch.bincount(user_P[(code_P >> bit & 1).bool()], minlength=len(code_BK))
            groups = lists.ties.select(at)
            hits = hits_with_ties(code_BK[at] >> bit & 1, groups, in_last_B[at])
            found.put(lists.user_B[at], hits, self._cutoffs)

    def _add_sure(self, user_B: Tensor, code_BK: Tensor) -> None:
        # Most lists hold nothing relevant: their metrics stay at 0.
        any_B = code_BK.any(1)
        user_B, code_BK = user_B[any_B], code_BK[any_B]
        for bit, found in enumerate(self._slices.values()):
            hit_BK = code_BK >> bit & 1
            at = hit_BK.any(1)
            found.put(user_B[at], hits_without_ties(hit_BK[at]), self._cutoffs)

    def result(self) -> dict[str, SliceMetrics]:
        """Slice → its users and their metrics."""
        return {name: found.result() for name, found in self._slices.items()}


class _Slice:
    """The metrics of one slice; 0 until a list says otherwise."""

    def __init__(self, num_relevant_U: NDArray[np.int64]) -> None:
        self._num_relevant_U = torch.from_numpy(num_relevant_U)
        self._users = num_relevant_U.nonzero()[0]
        self._place_U = (num_relevant_U > 0).cumsum() - 1
        self._values: dict[str, NDArray[np.float64]] = {}

    def wanted(self, user_B: Tensor) -> Tensor:
        """Which of these users have a relevant video in the slice, by place."""
        return self._num_relevant_U[user_B].nonzero().squeeze(1)

    def put(self, user_B: Tensor, hits: ExpectedHits, cutoffs: Sequence[int]) -> None:
        """Keeps the metrics of users who are wanted."""
        place_B = self._place_U[user_B.numpy()]
        found = metrics_at(hits, self._num_relevant_U[user_B], cutoffs)
        for name, value_B in found.items():
            values = self._values.setdefault(name, np.zeros(len(self._users)))
            values[place_B] = value_B.numpy()

    def result(self) -> SliceMetrics:
        return SliceMetrics(self._users, self._values)
