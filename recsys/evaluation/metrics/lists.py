"""The metrics that each user's list has beside its accuracy, gathered from chunks of users.

Shapes: U users, B users of a chunk, N video rows, Q values of a video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.metrics import table
from recsys.evaluation.metrics.beyond import OfLists
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.evaluation.metrics.toplists import Inclusion


class ListMeter:
    """Gathers each user's value of every metric of `MeanOfVideos` and `OfWholeLists`.

    A metric that the catalogue does not know enough for is left out.
    """

    def __init__(self, data: RankingSet, cutoffs: Sequence[int], *, new_days: float) -> None:
        of_videos: dict[str, NDArray[np.float64]] = {}
        self._of_lists: dict[str, OfLists] = {}
        for metric in table.METRICS:
            if isinstance(metric.compute, table.MeanOfVideos):
                value_N = metric.compute.of(data.videos, new_days)
                if value_N is not None:
                    of_videos[metric.user_column] = value_N.astype(np.float64)
            elif isinstance(metric.compute, table.OfWholeLists):
                of_lists = metric.compute.of(data.videos)
                if of_lists is not None:
                    self._of_lists[metric.user_column] = of_lists
        self._names = list(of_videos)
        # One matrix, so that a list's videos are looked up once for all of them.
        self._values_NQ = torch.from_numpy(np.stack(list(of_videos.values()), 1))
        self._values = {
            f"{name}@{k}": np.full(data.num_users, np.nan)
            for k in cutoffs
            for name in (*self._names, *self._of_lists)
        }

    def add(self, user_B: Tensor, included: Inclusion, k: int) -> None:
        """Adds the first k videos of some users."""
        users = user_B.numpy()
        size_B = (included.video_BK > 0).sum(1).clamp(max=k).double()
        mean_BQ = included.sums(self._values_NQ) / size_B[:, None]
        for name, value_B in zip(self._names, mean_BQ.T, strict=True):
            self._values[f"{name}@{k}"][users] = value_B.numpy()
        for name, of_lists in self._of_lists.items():
            self._values[f"{name}@{k}"][users] = of_lists(included, size_B).numpy()

    def result(self) -> dict[str, NDArray[np.float64]]:
        """Metric (`novelty@10`, …) → a value a user (U), NaN where it is not defined."""
        return self._values
