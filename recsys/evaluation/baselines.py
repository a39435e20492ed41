"""Trivial rankers that a model must beat, to be ranked and measured exactly as it is.

Shapes: U users, B users of a chunk, N video rows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.ranking import Ranker


def same_for_all(scores_N: Tensor) -> Ranker:
    """Ranks alike for everybody."""
    return lambda start, stop: scores_N.expand(stop - start, -1)


def random_order(num_videos: int) -> Ranker:
    """All scores equal: metrics are then the exact expectation of a random order."""
    return same_for_all(torch.zeros(num_videos))


def popularity(popularity_N: NDArray[np.int64]) -> Ranker:
    """By the number of positive events before the test cut."""
    return same_for_all(torch.from_numpy(popularity_N.astype(np.float32)))
