"""The videos with the best retrieval scores for requests, under each request's own conditions.

A score is the dot product of query and vector, what is trending, and more or less for a video that
the user has seen before. A small catalogue is scored whole; in a large one the index names
candidates, and those that a bias of their own may lift are scored apart.

Shapes: B requests, N videos of the bundle, M live ones, D retrieval vector, k results, S videos
that a user has seen, R videos that are lifted by what is trending.
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
from recsys.serve.retrieve.catalogue import Catalogue

SCORES_AT_A_TIME = 1 << 23
"""Scores of requests and videos that are in memory at once: 32 MB."""
MOST_COMPARED, CODES_A_VECTOR = 4096, 64
"""Videos that are left up to which all are compared; a vector costs as much as so many codes."""
FIRST_WIDTH, WIDEST = 8, 4
"""Candidates for each video that is wanted, and the share (one in so many) of what is left from
which on all are compared."""
LEAST_LIFTED, HELD_HOURS = 1000, 4
PER_BLOCK = 16
"""Scores whose largest one is looked at first, where the largest of all are wanted."""


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


@dataclass(frozen=True)
class Lifted:
    """The videos that what is trending adds most to, with their vectors side by side."""

    trending: FloatArray
    """(N,) what they were chosen by."""
    rows: IntArray
    """(R,)."""
    vectors_RD: torch.Tensor
    most: float
    """The most that is added to any other video."""

    @classmethod
    def of(cls, trending: FloatArray, vectors_ND: torch.Tensor) -> Lifted:
        """Chooses them, all where there are few."""
        values = trending[: len(vectors_ND)]
        num = min(len(values), max(LEAST_LIFTED, len(values) // 100))
        order = np.argpartition(-values, num - 1)
        rows = order[:num].copy()  # a view would keep the places of all videos
        most = float(values[order[num:]].max(initial=-np.inf))
        return cls(trending, rows, vectors_ND[torch.from_numpy(rows)], most)


@dataclass(frozen=True)
class ScoredRows:
    """Videos with their scores, each once."""

    rows: IntArray
    scores: FloatArray

    def joined(self, rows: IntArray, scores: FloatArray) -> ScoredRows:
        """These, and others behind them."""
        return ScoredRows(np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores]))

    def best(self, k: int) -> ScoredRows:
        """The k with the largest scores, the best first."""
        order = np.arange(len(self.rows))
        if k < len(order):
            order = np.argpartition(-self.scores, k - 1)[:k]
        order = order[np.argsort(-self.scores[order], kind="stable")]
        return ScoredRows(self.rows[order], self.scores[order])

    def untrended(self, trending: FloatArray, k: int) -> FloatArray:
        """The k largest scores without what is trending (N,), the largest first."""
        scores = self.scores - trending[self.rows]
        if k < len(scores):
            scores = -np.partition(-scores, k - 1)[:k]
        return -np.sort(-scores)


class Retriever:
    """Finds the best videos; one thread at a time.

    Args:
        index: Of the catalogue's vectors; None compares them all.
        vectors: (N, Y) float32, of which the first D are for retrieval.
        dim: D; Y without it.
        catalogue: Has the live videos, which are not in the index and are always scored exactly.
    """

    def __init__(
        self,
        index: VideoIndex | None,
        vectors: FloatArray,
        *,
        dim: int | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._index, self._catalogue = index, catalogue
        self._vectors_ND = torch.from_numpy(vectors)[:, :dim]
        if index is None:  # packed they are compared faster; where they are many they stay mapped
            self._vectors_ND = self._vectors_ND.contiguous()
        self._held: list[Lifted] = []

    def best(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """Rows (B, k) and scores (B, k), the best first.

        Where there are fewer videos, the rest is row 0 with score -inf.
        """
        return self.best_and_untrended(searches, k)[:2]

    def best_and_untrended(
        self, searches: Sequence[Search], k: int
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """`best`, and what the k largest scores (B, k) would be without what is trending.

        None of these is above the true one, and hardly any below it.
        """
        k = min(k, self._num_videos)
        if self._index is None:
            return self._exact(searches, k)
        rows = np.full((len(searches), k), UNKNOWN_ROW, np.int64)
        scores, untrended = (np.full((len(searches), k), -np.inf, np.float32) for _ in range(2))
        for place, search in enumerate(searches):
            listed, without = self._by_index(self._index, search, k)
            rows[place, : len(listed.rows)] = listed.rows
            scores[place, : len(listed.rows)] = listed.scores
            untrended[place, : len(without)] = without
        return rows, scores, untrended

    @property
    def is_exact(self) -> bool:
        """Whether all videos are looked at anyhow."""
        return self._index is None

    @property
    def num_rows(self) -> int:
        """Videos that can be found, row 0 among them."""
        return len(self._vectors_ND) + len(self._live_rows)

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
        return self.num_rows - 1

    @property
    def _live_rows(self) -> IntArray:
        return np.zeros(0, np.int64) if self._catalogue is None else self._catalogue.live_rows

    def _vectors(self, rows: IntArray) -> torch.Tensor:
        """The retrieval vectors (R, D) of rows (R,)."""
        if self._catalogue is None or not self._catalogue.num_live:
            return self._vectors_ND[torch.from_numpy(rows)]
        return self._catalogue.vectors(rows)[:, : self._vectors_ND.shape[1]]

    def _products(self, queries_BD: torch.Tensor) -> torch.Tensor:
        """(B, N) of the queries with all vectors, those of live videos at the end."""
        products = queries_BD @ self._vectors_ND.T
        if self._catalogue is None or not self._catalogue.num_live:
            return products
        live_MD = self._catalogue.live_MY[:, : self._vectors_ND.shape[1]]
        return torch.cat([products, queries_BD @ live_MD.T], 1)

    def exact(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """`best` without the index: every video is looked at."""
        return self._exact(searches, min(k, self._num_videos))[:2]

    @torch.inference_mode()
    def _exact(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """`best_and_untrended` without the index."""
        at_once = max(1, SCORES_AT_A_TIME // len(self._vectors_ND))
        rows, scores, untrended = [], [], []
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
            for line, search in zip(table, group, strict=True):
                line -= search.trending
            untrended.append(_at_most_largest(scores_BN, k))
        return np.concatenate(rows), np.concatenate(scores), np.concatenate(untrended)

    @torch.inference_mode()
    def _by_index(self, index: VideoIndex, search: Search, k: int) -> tuple[ScoredRows, FloatArray]:
        """The k best: those with a score of their own and few that are left one by one.

        With them the k largest scores of all that were compared, without what is trending.
        """
        allowed = ~search.forbidden
        apart = np.union1d(search.seen, self._live_rows)
        apart = apart[allowed[apart]]
        known = ScoredRows(apart, self.scores(search, apart))
        rest = allowed[: len(index)]
        rest[apart[apart < len(index)]] = False
        left = int(np.count_nonzero(rest))
        if left > max(MOST_COMPARED, len(index) // CODES_A_VECTOR):
            return self._by_codes(index, search, k, known, rest)
        rows = np.flatnonzero(rest)
        compared = known.joined(rows, self.scores(search, rows))
        return compared.best(k), compared.untrended(search.trending, k)

    def _by_codes(
        self,
        index: VideoIndex,
        search: Search,
        k: int,
        known: ScoredRows,
        rest: npt.NDArray[np.bool_],
    ) -> tuple[ScoredRows, FloatArray]:
        """The k best of what is known and the rest (N,), as `_by_index` has them.

        A video that is neither a candidate nor lifted scores at most what the code of the last
        candidate says, and what codes are wrong by, and the most that is added to any video that is
        not lifted. Where the k-th best is no worse than that, none is missed: the stopping rule of
        Fagin, Lotem & Naor (2003), "Optimal aggregation algorithms for middleware". Else there are
        more candidates; and where these are too many, or fewer come back than asked for, all videos
        are compared.
        """
        known = known.joined(*self._of_lifted(search, rest))
        best = known.best(k)
        most = self._lifted(search.trending).most
        left, width = int(np.count_nonzero(rest)), FIRST_WIDTH * k
        while width < left // WIDEST:
            rows, coded = index.candidates(search.query, width, rest)
            if len(rows) < width:
                break
            scores = self.scores(search, rows)
            listed = best.joined(rows, scores).best(k)
            wrong = scores - search.trending[rows] - coded
            missed = coded[-1] + index.margin * float(wrong.std()) + most
            if len(listed.rows) == k and listed.scores[-1] >= missed:
                return listed, known.joined(rows, scores).untrended(search.trending, k)
            width *= 4
        rows, scores, untrended = (line[0] for line in self._exact([search], k))
        there = rows > UNKNOWN_ROW
        return ScoredRows(rows[there], scores[there]), untrended

    def _of_lifted(
        self, search: Search, rest: npt.NDArray[np.bool_]
    ) -> tuple[IntArray, FloatArray]:
        """Rows and scores of the lifted videos of the rest (N,), which they are taken out of."""
        lifted = self._lifted(search.trending)
        scores = (lifted.vectors_RD @ torch.from_numpy(search.query)).numpy()
        scores += search.trending[lifted.rows]
        there = rest[lifted.rows]
        rest[lifted.rows] = False
        return lifted.rows[there], scores[there]

    def _lifted(self, trending: FloatArray) -> Lifted:
        """What an hour's trending lifts, held for the hours that were asked for last."""
        for held in self._held:
            if _begin_alike(held.trending, trending):
                return held
        made = Lifted.of(trending, self._vectors_ND)
        self._held = [made, *self._held][:HELD_HOURS]
        return made


def _begin_alike(one: FloatArray, other: FloatArray) -> bool:
    """Whether two arrays are the same one, perhaps before and after more rows followed."""
    return one.ctypes.data == other.ctypes.data


def _at_most_largest(scores_BN: torch.Tensor, k: int) -> FloatArray:
    """The k largest of each row, or a little less where two of them lie in one block, but sooner.

    The k largest maxima of blocks are those of k different places.
    """
    blocks = _blocks(scores_BN)
    of: torch.Tensor = scores_BN if k * 4 > blocks.shape[2] else blocks.amax(1)
    largest: FloatArray = of.topk(k, dim=1).values.numpy()
    return largest


def _blocks(scores_BN: torch.Tensor) -> torch.Tensor:
    """All but a few last places of rows in blocks of `PER_BLOCK`: (B, `PER_BLOCK`, blocks).

    Block i holds the places i, i + blocks, i + 2 · blocks, …, so that maxima are of whole rows.
    """
    blocks = scores_BN.shape[1] // PER_BLOCK
    return scores_BN[:, : blocks * PER_BLOCK].view(len(scores_BN), PER_BLOCK, blocks)


def _largest(scores_BN: torch.Tensor, k: int) -> tuple[FloatArray, IntArray]:
    """The k largest of each row and their places: `topk`, several times as fast where k is small.

    The k largest values lie in the k blocks with the largest maxima.
    """
    num = scores_BN.shape[1]
    head = _blocks(scores_BN)
    blocks = head.shape[2]
    if k * 4 > blocks:
        best = scores_BN.topk(k, dim=1)
        return best.values.numpy(), best.indices.numpy()
    chosen_Bk = head.amax(1).topk(k, dim=1, sorted=False).indices
    starts = torch.arange(0, blocks * PER_BLOCK, blocks).view(1, -1, 1)
    places = (starts + chosen_Bk.unsqueeze(1)).flatten(1)
    rest = torch.arange(blocks * PER_BLOCK, num).expand(len(scores_BN), -1)
    places = torch.cat([places, rest], 1)
    best = scores_BN.gather(1, places).topk(k, dim=1)
    return best.values.numpy(), places.gather(1, best.indices).numpy()
