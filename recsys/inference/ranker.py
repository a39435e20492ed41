"""What ranks the catalogue for users: scores, a chunk of users at a time.

Shapes: U users, B users of a chunk, N videos, D retrieval vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import Ragged

Ranker = Callable[[int, int], Tensor]
"""Scores, (stop - start, N) float32, of users `start` to `stop`; -inf leaves a video out."""


def dot_product(queries_UD: Tensor, vectors_ND: Tensor) -> Ranker:
    """The ranker of a model: the dot products of user queries and video vectors."""
    queries_UD, vectors_DN = queries_UD.detach(), vectors_ND.detach().T
    return lambda start, stop: queries_UD[start:stop] @ vectors_DN


def with_bias(ranker: Ranker, rows: Ragged, bias: NDArray[np.float32]) -> Ranker:
    """A ranker with something added to the scores of a few videos of each user.

    Args:
        ranker: Whose tensors may be written to.
        rows: U lists of video rows; one that stands there twice gets both.
        bias: One number for each of them.
    """
    added = torch.from_numpy(bias)

    def scores(start: int, stop: int) -> Tensor:
        scores_BN = ranker(start, stop)
        device = scores_BN.device
        owners, videos = (torch.from_numpy(p).long().to(device) for p in rows.pairs(start, stop))
        part = added[rows.offsets[start] : rows.offsets[stop]].to(device)
        return scores_BN.index_put_((owners, videos), part, accumulate=True)

    return scores
