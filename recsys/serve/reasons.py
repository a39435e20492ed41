"""Why a video is in a list: the sources that put it there, each said only where it is true.

Shapes: B users, K videos of a list, C candidates, L videos that a user liked, D retrieval vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from recsys.data.ragged import FloatArray, IntArray
from recsys.model.recommender import Recommender
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import Reason

MOST_LIKED = 20
"""Newest liked videos that are looked at."""
MOST_NAMED = 2
LEAST_LIKENESS = 0.2
"""Cosine from which on a video resembles another one."""
EXPLORE, POPULAR, PERSONAL = Reason("explore"), Reason("popular"), Reason("personal")


class Resemblance:
    """Which of the videos that a user liked speak for a video, and how much of its score is theirs.

    A query is linear in the mean vector of the liked videos (`HistoryLSTM`), so each of them has a
    share of every score of its own: what the score would lose, along that way, without it.
    """

    def __init__(self, model: Recommender, vectors: FloatArray) -> None:
        look_for = model.query[-1]
        assert isinstance(look_for, nn.Linear)
        begin = model.history.lstm.hidden_size
        weight = look_for.weight[:, begin : begin + model.dim]
        vectors_ND = torch.from_numpy(vectors[:, : model.dim])
        with torch.inference_mode():
            self._pull_ND = vectors_ND @ weight.T
            self._unit_ND = functional.normalize(vectors_ND, dim=1)

    @torch.inference_mode()
    def best(self, liked: Sequence[IntArray], rows_BK: IntArray) -> list[list[list[int]]]:
        """Of each of K videos of B users the liked ones (rows) that speak most for it.

        The best first, and only such as it resembles and without which it would score lower.

        Args:
            liked: Of each user, the newest first.
            rows_BK: Of the videos; row 0 has none.
        """
        width = max((min(len(rows), MOST_LIKED) for rows in liked), default=0)
        if not width:
            return [[[] for _ in rows] for rows in rows_BK]
        liked_BL = np.zeros((len(liked), width), np.int64)
        for line, rows in zip(liked_BL, liked, strict=True):
            line[: min(len(rows), width)] = rows[:width]
        wanted, theirs = torch.from_numpy(rows_BK), torch.from_numpy(liked_BL)
        unit_BKD = self._unit_ND[wanted]
        likeness_BKL = unit_BKD @ self._unit_ND[theirs].transpose(1, 2)
        pull_BKL = unit_BKD @ self._pull_ND[theirs].transpose(1, 2)
        speaks = (likeness_BKL >= LEAST_LIKENESS) & (theirs > UNKNOWN_ROW).unsqueeze(1)
        pull_BKL = torch.where(speaks, pull_BKL, 0.0)
        best = pull_BKL.topk(min(MOST_NAMED, width), dim=2)
        rows_BKM = np.take_along_axis(
            np.broadcast_to(liked_BL[:, None], (*rows_BK.shape, width)), best.indices.numpy(), 2
        )
        rows_BKM = np.where(best.values.numpy() > 0, rows_BKM, UNKNOWN_ROW)
        named: list[list[list[int]]] = rows_BKM.tolist()
        return [[[row for row in one if row] for one in videos] for videos in named]

    @torch.inference_mode()
    def nearest(self, row: int, k: int) -> tuple[IntArray, FloatArray]:
        """The k videos with the largest cosine to one, and the cosines."""
        cosine = self._unit_ND @ self._unit_ND[row]
        cosine[[UNKNOWN_ROW, row]] = -torch.inf
        best = cosine.topk(min(k, len(cosine) - 2))
        return best.indices.numpy(), best.values.numpy()


def kept_by_trend(scores_BC: FloatArray, trending_BC: FloatArray, k: int) -> NDArray[np.bool_]:
    """(B, C) which of the best candidates would not be among the first k but for what is trending.

    >>> scores, trending = np.array([[3.0, 2.0, 1.5]]), np.array([[2.5, 0.0, 0.0]])
    >>> kept_by_trend(scores, trending, 1).tolist()
    [[True, False, False]]
    """
    without = scores_BC - trending_BC
    if k >= without.shape[1]:
        return np.zeros(without.shape, np.bool_)
    least = -np.partition(-without, k - 1, axis=1)[:, k - 1 : k]
    lifted: NDArray[np.bool_] = (without < least) & (trending_BC > 0)
    return lifted


def reason(
    liked: Sequence[str], *, explored: bool, popular: bool, creator_id: str | None
) -> Reason:
    """The reason of a video: the first that holds.

    Args:
        liked: The videos that speak most for it.
        explored: It was drawn to be tried out.
        popular: It would not be there without being popular now.
        creator_id: The creator, where the video is new and the user liked another of theirs.
    """
    if explored:
        return EXPLORE
    if creator_id is not None:
        return Reason("creator", creator_id=creator_id)
    if popular:
        return POPULAR
    return Reason("resembles", video_ids=tuple(liked)) if liked else PERSONAL
