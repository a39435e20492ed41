"""The videos with the best retrieval scores for requests, under each request's own conditions.

A score is the dot product of query and vector, what is trending, and more or less for a video that
the user has seen before. A small catalogue is scored whole; in a large one the index looks for
videos, and those that a bias of their own may lift are scored apart.

Shapes: B requests, N videos, D retrieval vector, k results, S videos that a user has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recsys.data.ragged import FloatArray, IntArray
from recsys.inference.index import VideoIndex
from recsys.schema import UNKNOWN_ROW
from recsys.serve.catalogue import Catalogue

SCORES_AT_A_TIME = 1 << 23
"""Scores of requests and videos that are in memory at once: 32 MB."""


@dataclass(frozen=True)
class Search:
    """What one request asks of the catalogue."""

    query: FloatArray
    """(D,)."""
    trending: FloatArray
    """(N,) what is added to every video's score."""
    seen: IntArray
    """(S,) sorted rows whose scores gain or lose by having been seen."""
    seen_bias: FloatArray
    """(S,)."""
    excluded: IntArray
    """Sorted rows that must not be found."""
    allowed: npt.NDArray[np.bool_] | None = None
    """(N,) what may be found; all without it."""

    @property
    def forbidden(self) -> npt.NDArray[np.bool_]:
        """(N,) what must not be found."""
        forbidden = np.zeros(len(self.trending), np.bool_)
        if self.allowed is not None:
            forbidden = ~self.allowed
        forbidden[self.excluded] = True
        forbidden[UNKNOWN_ROW] = True
        return forbidden


class Retriever:
    """Finds the best videos; one thread at a time.

    Args:
        index: Of the catalogue's vectors.
        vectors: (N, Y) float32, of which the first D are for retrieval.
        catalogue: Has the live videos, which are not in the index and are always scored exactly.
    """

    def __init__(
        self, index: VideoIndex, vectors: FloatArray, catalogue: Catalogue | None = None
    ) -> None:
        self._index, self._catalogue = index, catalogue
        self._vectors_ND = torch.from_numpy(vectors)[:, : index.dim].contiguous()
        self._biased_by: FloatArray | None = None

    def best(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """Rows (B, k) and scores (B, k), the best first.

        Where there are fewer videos, the rest is row 0 with score -inf.
        """
        k = min(k, self._num_videos)
        if self.is_exact:
            return self.exact(searches, k)
        found = [self._by_index(search, k) for search in searches]
        return np.stack([rows for rows, _ in found]), np.stack([scores for _, scores in found])

    @property
    def is_exact(self) -> bool:
        """Whether all videos are looked at anyhow."""
        return self._index.kind == "flat"

    @property
    def num_rows(self) -> int:
        """Videos that can be scored, row 0 among them."""
        return len(self._vectors_ND)

    def scores(self, search: Search, rows: IntArray) -> FloatArray:
        """The retrieval scores (R,) of videos (R,), whatever the conditions."""
        query = torch.from_numpy(search.query)
        scores: FloatArray = (self._vectors(rows) @ query).numpy()
        scores += search.trending[rows]
        if len(search.seen):
            place = np.minimum(np.searchsorted(search.seen, rows), len(search.seen) - 1)
            scores += np.where(search.seen[place] == rows, search.seen_bias[place], 0)
        return scores

    @property
    def _num_videos(self) -> int:
        return len(self._index) + len(self._live_rows)

    @property
    def _live_rows(self) -> IntArray:
        return np.zeros(0, np.int64) if self._catalogue is None else self._catalogue.live_rows

    def _vectors(self, rows: IntArray) -> torch.Tensor:
        """The retrieval vectors (R, D) of rows (R,)."""
        if self._catalogue is None or not self._catalogue.num_live:
            return self._vectors_ND[torch.from_numpy(rows)]
        return self._catalogue.vectors(rows)[:, : self._index.dim]

    def _products(self, queries_BD: torch.Tensor) -> torch.Tensor:
        """(B, N) of the queries with all vectors, those of live videos at the end."""
        products = queries_BD @ self._vectors_ND.T
        if self._catalogue is None or not self._catalogue.num_live:
            return products
        live_MD = self._catalogue.live_MY[:, : self._index.dim]
        return torch.cat([products, queries_BD @ live_MD.T], 1)

    @torch.inference_mode()
    def exact(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """`best` without the index: every video is looked at."""
        k = min(k, self._num_videos)
        at_once = max(1, SCORES_AT_A_TIME // len(self._vectors_ND))
        rows, scores = [], []
        for start in range(0, len(searches), at_once):
            group = searches[start : start + at_once]
            queries = torch.from_numpy(np.stack([search.query for search in group]))
            scores_BN = self._products(queries)
            table = scores_BN.numpy()
            for line, search in zip(table, group, strict=True):
                line += search.trending
                line[search.seen] += search.seen_bias
                line[search.excluded] = -np.inf
                if search.allowed is not None:
                    line[~search.allowed] = -np.inf
            table[:, UNKNOWN_ROW] = -np.inf
            values, places = _largest(scores_BN, k)
            rows.append(np.where(np.isfinite(values), places, UNKNOWN_ROW))
            scores.append(values)
        return np.concatenate(rows), np.concatenate(scores)

    def _by_index(self, search: Search, k: int) -> tuple[IntArray, FloatArray]:
        indexed = len(self._index) + 1
        if self._biased_by is not search.trending:
            self._index.set_bias(search.trending[:indexed])
            self._biased_by = search.trending
        apart = np.union1d(search.excluded, search.seen)
        allowed = None if search.allowed is None else search.allowed[:indexed]
        others, scores = self._index.search(
            search.query[None], k, exclude=[apart[apart < indexed]], allowed=allowed
        )
        one_by_one = np.union1d(search.seen, self._live_rows)
        again = np.setdiff1d(one_by_one, [UNKNOWN_ROW, *search.excluded])
        if search.allowed is not None:
            again = again[search.allowed[again]]
        rows = np.concatenate([others[0], again])
        both = np.concatenate([scores[0], self.scores(search, again)])
        order = np.argsort(-both, kind="stable")[:k]
        return rows[order], both[order]


def _largest(scores_BN: torch.Tensor, k: int) -> tuple[FloatArray, IntArray]:
    """The k largest of each row and their places: `topk`, several times as fast where k is small.

    The k largest values lie in the k blocks with the largest maxima.
    """
    num = scores_BN.shape[1]
    per_block = 16
    blocks = num // per_block
    if k * 4 > blocks:
        best = scores_BN.topk(k, dim=1)
        return best.values.numpy(), best.indices.numpy()
    # Block i holds the places i, i + blocks, i + 2 · blocks, …, so that maxima are of whole rows.
    head = scores_BN[:, : blocks * per_block].view(len(scores_BN), per_block, blocks)
    chosen_Bk = head.amax(1).topk(k, dim=1, sorted=False).indices
    starts = torch.arange(0, blocks * per_block, blocks).view(1, -1, 1)
    places = (starts + chosen_Bk.unsqueeze(1)).flatten(1)
    rest = torch.arange(blocks * per_block, num).expand(len(scores_BN), -1)
    places = torch.cat([places, rest], 1)
    best = scores_BN.gather(1, places).topk(k, dim=1)
    return best.values.numpy(), places.gather(1, best.indices).numpy()
