"""Ranks the whole catalogue for every test user and measures the lists, a chunk of users at a time.

No negatives are sampled, nothing is jittered, and no users × videos matrix is ever held: memory is
one chunk of scores and a few numbers a user.

Shapes: U users, B users of a chunk, N video rows, K positions, P (user, relevant video) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import EvaluateConfig
from recsys.evaluation.expected import hits_with_ties, hits_without_ties, metrics_at
from recsys.evaluation.interactions import RankingSet, Videos
from recsys.evaluation.toplists import TopLists, top_lists

Ranker = Callable[[int, int], Tensor]
"""Scores, (stop - start, N) float32, of users `start` to `stop`; -inf leaves a video out."""

CHUNK_SCORES = 2**23
"""Scores held at a time (32 MB)."""


@dataclass(frozen=True)
class SliceMetrics:
    """Metrics of the users who have a relevant video in one slice of the catalogue."""

    users: NDArray[np.int64]
    """Their numbers, rising."""
    values: dict[str, NDArray[np.float64]]
    """Metric (`ndcg@10`, …) → one value for each of them."""


@dataclass
class RankerResult:
    """What `evaluate_ranker` found."""

    slices: dict[str, SliceMetrics]
    """`all`, `warm`, `cold`, … → metrics with the relevant videos of that slice."""
    exposure: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """k → how often each video row is in a top k (N)."""


def dot_product(queries_UD: Tensor, vectors_ND: Tensor) -> Ranker:
    """The ranker of a model: the dot products of user queries and video vectors."""
    transposed = vectors_ND.T
    return lambda start, stop: queries_UD[start:stop] @ transposed


def evaluate_ranker(data: RankingSet, ranker: Ranker, config: EvaluateConfig) -> RankerResult:
    """Ranks all videos for all users and measures the lists.

    Raises:
        ValueError: The ranker gave scores of a wrong shape, or NaN.
    """
    pass_ = _Pass(data, config)
    for start, stop in _chunks(data):
        scores_BN = ranker(start, stop)
        if scores_BN.shape != (stop - start, data.num_videos):
            raise ValueError(
                f"the ranker gave scores of shape {tuple(scores_BN.shape)} for users {start} to "
                f"{stop} and {data.num_videos} video rows"
            )
        if config.mask_history:
            scores_BN = without_known(scores_BN, data, start, stop)
        pass_.add(start, stop, top_lists(scores_BN, max(config.k)))
    return pass_.result()


def without_known(scores_BN: Tensor, data: RankingSet, start: int, stop: int) -> Tensor:
    """The scores with -inf at the videos that each user is known to like."""
    users, rows = data.known.pairs(start, stop)
    scores_BN = scores_BN.clone()  # the ranker's own tensor may be a view of what it keeps
    scores_BN[torch.from_numpy(users), torch.from_numpy(rows).long()] = -torch.inf
    return scores_BN


def video_slices(videos: Videos) -> dict[str, NDArray[np.bool_]]:
    """Name → which video rows count as relevant in that slice (N)."""
    everything = np.ones(len(videos), np.bool_)
    return {"all": everything, "warm": ~videos.cold_N, "cold": videos.cold_N}


def _chunks(data: RankingSet) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_SCORES // data.num_videos)
    for start in range(0, data.num_users, step):
        yield start, min(start + step, data.num_users)


class _Pass:
    """One way through all users; collects what the lists of each chunk show."""

    def __init__(self, data: RankingSet, config: EvaluateConfig) -> None:
        self.data = data
        self.config = config
        self.names = list(video_slices(data.videos))
        masks = video_slices(data.videos).values()
        # One number a video: bit s is set where it belongs to slice s.
        self.code_N = torch.zeros(data.num_videos, dtype=torch.int16)
        for bit, mask in enumerate(masks):
            self.code_N |= torch.from_numpy(mask).to(torch.int16) << bit
        self.found: dict[str, list[tuple[Tensor, dict[str, Tensor]]]] = {n: [] for n in self.names}
        self.exposure = {k: torch.zeros(data.num_videos, dtype=torch.float64) for k in config.k}
        rows = min(data.num_users, max(1, CHUNK_SCORES // data.num_videos))
        self.marks_BN = torch.zeros(rows, data.num_videos, dtype=torch.int16)

    def add(self, start: int, stop: int, lists: TopLists) -> None:
        users, rows = (
            torch.from_numpy(part).long() for part in self.data.relevant.pairs(start, stop)
        )
        code_P = self.code_N[rows]
        self.marks_BN[users, rows] = code_P
        code_BK = self.marks_BN[: stop - start].gather(1, lists.video_BK)
        self.marks_BN[users, rows] = 0
        tied_B = torch.zeros(stop - start, dtype=torch.bool)
        tied_B[lists.tied_T] = True
        for bit, name in enumerate(self.names):
            of_slice = ((code_P >> bit) & 1).bool()
            num_relevant_B = torch.bincount(users[of_slice], minlength=stop - start)
            hit_BK = (code_BK >> bit) & 1
            marks = _Slice(users[of_slice], rows[of_slice], num_relevant_B, hit_BK, tied_B)
            found = marks.metrics(lists, self.config.k)
            has = (num_relevant_B > 0).nonzero().squeeze(1)
            self.found[name].append((has + start, {key: v[has] for key, v in found.items()}))
        for k, total_N in self.exposure.items():
            add_exposure(total_N, lists, k)

    def result(self) -> RankerResult:
        slices = {}
        for name, parts in self.found.items():
            users = torch.cat([users for users, _ in parts]).numpy()
            keys = parts[0][1]
            values = {key: torch.cat([v[key] for _, v in parts]).numpy() for key in keys}
            slices[name] = SliceMetrics(users, values)
        return RankerResult(slices, {k: total.numpy() for k, total in self.exposure.items()})


@dataclass(frozen=True)
class _Slice:
    """A chunk's relevant videos of one slice."""

    users_P: Tensor
    rows_P: Tensor
    num_relevant_B: Tensor
    hit_BK: Tensor
    tied_B: Tensor

    def metrics(self, lists: TopLists, cutoffs: tuple[int, ...]) -> dict[str, Tensor]:
        """One value a user; only users with a hit or a tie are worked out, all others have 0."""
        wanted = self.num_relevant_B > 0
        plain = (wanted & ~self.tied_B & self.hit_BK.any(1)).nonzero().squeeze(1)
        hits = hits_without_ties(self.hit_BK[plain])
        parts = [(plain, metrics_at(hits, self.num_relevant_B[plain], cutoffs))]
        if len(lists.tied_T):
            tied = lists.tied_T
            position = torch.full_like(self.tied_B, -1, dtype=torch.int64)
            position[tied] = torch.arange(len(tied))
            of_tied = self.tied_B[self.users_P]
            owner = position[self.users_P[of_tied]]
            member = lists.last_members_TN[owner, self.rows_P[of_tied]]
            in_last = torch.bincount(owner[member], minlength=len(tied))
            hits = hits_with_ties(self.hit_BK[tied], lists.groups, in_last)
            parts.append((tied, metrics_at(hits, self.num_relevant_B[tied].clamp(min=1), cutoffs)))
        values: dict[str, Tensor] = {}
        for rows, part in parts:
            for key, value in part.items():
                whole = values.setdefault(key, torch.zeros(len(self.tied_B), dtype=torch.float64))
                whole[rows] = value
        return values


def add_exposure(total_N: Tensor, lists: TopLists, k: int) -> None:
    """Adds to each video how often it is among the first k of these lists, as an expectation."""
    chance_BK = lists.chance_BK(k)
    if len(lists.tied_T):
        open_T = chance_BK[lists.tied_T, -1]
        last = lists.groups.start_BK == lists.groups.start_BK[:, -1:]
        chance_BK[lists.tied_T] *= ~last
        total_N += open_T @ lists.last_members_TN.double()
    total_N.scatter_add_(0, lists.video_BK.flatten(), chance_BK.flatten())
    total_N[0] = 0
