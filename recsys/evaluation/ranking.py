"""Ranks the whole catalogue for every test user and measures the lists, a chunk of users at a time.

No negatives are sampled, nothing is jittered, and no users × videos matrix is ever held: memory is
one chunk of scores and a few numbers a user.

Shapes: U users, B users of a chunk, N video rows, D dimensions, K positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config.run import EvaluateConfig
from recsys.evaluation.metrics.accuracy import AccuracyMeter, SliceMetrics, own_slices, video_slices
from recsys.evaluation.metrics.beyond import Exposure, ExposureMeter
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.evaluation.metrics.lists import ListMeter
from recsys.evaluation.metrics.toplists import ALL, Part, TopLists, one_thread, top_lists
from recsys.inference.ranker import Ranker

Columns = Mapping[str, NDArray[np.float64]]
"""Metric → a value a user, NaN where it is not defined: `RankerResult.per_user()`."""
CHUNK_SCORES = 2**23
"""Scores held at a time (32 MB)."""


@dataclass(frozen=True)
class RankerResult:
    """What one ranker's lists are worth."""

    slices: dict[str, SliceMetrics]
    """`all`, `warm`, `cold`, … → metrics with the relevant videos of that slice; by the names of
    `own_slices` those of lists of their videos alone."""
    lists: dict[str, NDArray[np.float64]]
    """`novelty@10`, `popularity@10`, `new@10`, `diversity@10`, … → a value a user (U)."""
    exposure: dict[int, Exposure]
    """k → how often each video is in a top k."""

    def per_user(self) -> dict[str, NDArray[np.float64]]:
        """Everything known of single users, one column each (U); NaN where it is not defined.

        The metrics of a slice other than `all` are named `cold/ndcg@10`.
        """
        num_users = len(self.slices["all"].users)
        columns = {}
        for name, part in self.slices.items():
            for metric, values in part.values.items():
                column = np.full(num_users, np.nan)
                column[part.users] = values
                columns[metric if name == "all" else f"{name}/{metric}"] = column
        return columns | self.lists


def evaluate_ranker(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, *, new_days: float = 3.0
) -> RankerResult:
    """Ranks all videos for all users and measures the lists.

    Args:
        data: Users and what they liked.
        ranker: Gives the scores.
        config: Cutoffs, and whether videos that a user already liked are left out.
        new_days: Age in days up to which a video counts as new.

    Raises:
        ValueError: The ranker gave scores of a wrong shape, or NaN.
    """
    lists = ranked(data, ranker, config, depth=max(config.k), own=True)
    return measure(data, lists, config, new_days=new_days)


def list_metrics(
    data: RankingSet,
    ranker: Ranker,
    config: EvaluateConfig,
    k: int,
    exposure: ExposureMeter | None = None,
) -> SliceMetrics:
    """The accuracy of the first k of every user, and nothing else but what `exposure` gathers."""
    every = {ALL: np.ones(data.num_videos, np.bool_)}
    meter = AccuracyMeter(data, (k,), every, chunk_users=chunk_users(data))
    for lists in ranked(data, ranker, config, depth=k):
        meter.add(lists)
        if exposure is not None:
            exposure.add(lists.user_B, lists.inclusion(k))
    return meter.result()[ALL]


def ranked(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, *, depth: int, own: bool = False
) -> Iterator[TopLists]:
    """The lists of all users, `depth` videos each.

    With `own` come those among the videos of `own_slices`, of users who are measured there.
    """
    slices = own_slices(data.videos) if own else {}
    asked = {name: torch.from_numpy(data.num_relevant(mask) > 0) for name, mask in slices.items()}
    step = chunk_users(data)
    for start in range(0, data.num_users, step):
        stop = min(start + step, data.num_users)
        scores_BN = ranker(start, stop)
        if scores_BN.shape != (stop - start, data.num_videos):
            raise ValueError(
                f"the ranker gave scores of shape {tuple(scores_BN.shape)} for users {start} to "
                f"{stop} and {data.num_videos} video rows"
            )
        if config.mask_history:
            scores_BN = _without_left_out(scores_BN, data, start, stop)
        parts = [
            Part(name, torch.from_numpy(mask), asked[name][start:stop])
            for name, mask in slices.items()
        ]
        yield from top_lists(torch.arange(start, stop), scores_BN, depth, parts)


def measure(
    data: RankingSet, chunks: Iterable[TopLists], config: EvaluateConfig, *, new_days: float = 3.0
) -> RankerResult:
    """Measures lists, however they were made; of those among a slice's own their accuracy."""
    cutoffs = sorted(set(config.k))
    slices = {ALL: video_slices(data.videos)}
    slices |= {name: {name: mask} for name, mask in own_slices(data.videos).items()}
    accuracy: dict[str, AccuracyMeter] = {}
    lists = ListMeter(data, cutoffs, new_days=new_days)
    exposure = {k: ExposureMeter(data, k) for k in cutoffs}
    for chunk in chunks:
        # Ties bring whole rows of the catalogue along, which are worth several threads.
        with one_thread() if chunk.ties is None else nullcontext():
            if chunk.among not in accuracy:
                meter = AccuracyMeter(
                    data, cutoffs, slices[chunk.among], chunk_users=chunk_users(data)
                )
                accuracy[chunk.among] = meter
            accuracy[chunk.among].add(chunk)
            if chunk.among != ALL:
                continue
            for k in cutoffs:
                included = chunk.inclusion(k)
                lists.add(chunk.user_B, included, k)
                exposure[k].add(chunk.user_B, included)
    shown = {k: meter.result() for k, meter in exposure.items()}
    measured = [meter.result() for meter in accuracy.values()]
    of_slices = {name: part for parts in measured for name, part in parts.items()}
    return RankerResult(of_slices, lists.result(), shown)


def chunk_users(data: RankingSet) -> int:
    """How many users' scores are held at a time."""
    return min(data.num_users, max(1, CHUNK_SCORES // data.num_videos))


def _without_left_out(scores_BN: Tensor, data: RankingSet, start: int, stop: int) -> Tensor:
    users, rows = data.left_out(start, stop)
    scores_BN = scores_BN.clone()  # the ranker's own tensor may be a view of what it keeps
    index = (torch.from_numpy(users), torch.from_numpy(rows).long())
    scores_BN[tuple(part.to(scores_BN.device) for part in index)] = -torch.inf
    return scores_BN
