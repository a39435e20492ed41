"""Why a video is in a list: the sources that put it there, each said only where it is true.

Shapes: B users, K videos of a list, C candidates, L videos that a user liked, M of
them that are named (or live videos), N videos, D retrieval vector.
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
from recsys.serve.retrieve.catalogue import Catalogue

MOST_LIKED = 20
"""Newest liked videos that are looked at."""
MOST_NAMED = 2
LEAST_LIKENESS = 0.2
"""Cosine from which on a video resembles another one."""
CLOSE = 1e-5
"""How much two sums of the same score may differ by rounding, as a share of what is added up."""
NOTHING = np.zeros(0, np.int64)
EXPLORE, POPULAR = Reason("explore"), Reason("popular")
PERSONAL, NEWCOMER = Reason("personal"), Reason("newcomer")


class Resemblance:
    """Which of the videos that a user liked speak for a video, and how much of its score is theirs.

    A query is linear in the mean vector of the liked videos (`HistoryLSTM`), so each of them has a
    share of every score of its own: what the score would lose, along that way, without it.
    """

    def __init__(self, model: Recommender, vectors: FloatArray, catalogue: Catalogue) -> None:
        look_for = model.query[-1]
        assert isinstance(look_for, nn.Linear)
        begin = model.history.lstm.hidden_size
        self._weight = look_for.weight[:, begin : begin + model.dim].detach()
        self._dim, self._catalogue = model.dim, catalogue
        self._vectors_ND = torch.from_numpy(vectors[:, : model.dim])
        self._lengths_N = self._vectors_ND.norm(dim=1).clamp(min=1e-12)

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
        unit_BKD = functional.normalize(self._vectors(wanted), dim=2)
        liked_BLD = self._vectors(theirs)
        likeness_BKL = unit_BKD @ functional.normalize(liked_BLD, dim=2).transpose(1, 2)
        pull_BKL = unit_BKD @ (liked_BLD @ self._weight.T).transpose(1, 2)
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
    def nearest(
        self, row: int, k: int, *, excluded: IntArray = NOTHING
    ) -> tuple[IntArray, FloatArray]:
        """The k videos with the largest cosine to one, and the cosines."""
        unit_D = functional.normalize(self._vectors(torch.tensor([row])), dim=1)[0]
        cosine = (self._vectors_ND @ unit_D) / self._lengths_N
        if self._catalogue.num_live:
            live_MD = self._catalogue.live_MY[:, : self._dim]
            cosine = torch.cat([cosine, functional.normalize(live_MD, dim=1) @ unit_D])
        out = np.union1d(excluded, [UNKNOWN_ROW, row])
        cosine[torch.from_numpy(out)] = -torch.inf
        best = cosine.topk(min(k, len(cosine) - len(out)))
        return best.indices.numpy(), best.values.numpy()

    def _vectors(self, rows: torch.Tensor) -> torch.Tensor:
        return self._catalogue.vectors(rows)[..., : self._dim]


def kept_by_trend(
    scores_BK: FloatArray, trending_BK: FloatArray, least_B: FloatArray
) -> NDArray[np.bool_]:
    """(B, K) which videos would not be among the candidates but for what is trending.

    >>> scores, trending = np.array([[3.0, 2.0]]), np.array([[2.5, 0.0]])
    >>> kept_by_trend(scores, trending, np.array([1.5])).tolist()
    [[True, False]]

    Args:
        scores_BK: Of the lists' videos.
        trending_BK: What is trending adds so much to them.
        least_B: The last candidate's score if nothing were added to any video's; or less.
    """
    without_BK = scores_BK - trending_BK
    close_BK = CLOSE * (1 + np.abs(scores_BK) + np.abs(trending_BK))
    lifted: NDArray[np.bool_] = (trending_BK > 0) & (without_BK < least_B[:, None] - close_BK)
    return lifted


def reason(
    liked: Sequence[str],
    *,
    explored: bool,
    popular: bool,
    creator_id: str | None,
    is_newcomer: bool = False,
) -> Reason:
    """The reason of a video: the first that holds.

    Args:
        liked: The videos that speak most for it.
        explored: It was drawn to be tried out.
        popular: It would not be there without being popular now, or is popular and the user new.
        creator_id: The creator, where the video is new and the user liked another of theirs.
        is_newcomer: Nothing is known of the user.
    """
    if explored:
        return EXPLORE
    if creator_id is not None:
        return Reason("creator", creator_id=creator_id)
    if popular:
        return POPULAR
    if is_newcomer:
        return NEWCOMER
    return Reason("resembles", video_ids=tuple(liked)) if liked else PERSONAL
