"""Nearest neighbours of a query among the video vectors, by dot product as in the training loss.

Inside, videos are counted by index position, from 0; row 0 ("unknown") has none. No position leaves
this file: what goes in and comes out are video rows.

Shapes: N videos, row 0 among them, B queries, D retrieval vector, k results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from recsys.data.ragged import FloatArray, IntArray
from recsys.errors import InputError
from recsys.schema import UNKNOWN_ROW

Kind = Literal["flat", "hnsw"]

FLAT_UP_TO = 100_000
"""Videos up to which `auto` takes the exact index."""
HNSW_LINKS = 32
HNSW_BUILD_WIDTH = 100
HNSW_SEARCH_WIDTH = 128
ALL_COMPARED, SHARE_COMPARED = 10_000, 0.1
"""Allowed videos, or share of all, up to which they are compared one by one."""


class VideoIndex:
    """The videos' vectors, searched by dot product; row 0 is never a result.

    >>> index = VideoIndex.build(np.array([[9, 9], [1, 0], [0, 1]], np.float32), kind="flat")
    >>> rows, scores = index.search(np.array([[1, 0.5]], np.float32), 2)
    >>> rows.tolist(), scores.tolist()
    ([[1, 2]], [[1.0, 0.5]])
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index
        storage: Any = faiss.downcast_index(getattr(index, "storage", index))
        values = faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * index.d)
        self._stored: FloatArray = values.reshape(index.ntotal, index.d)
        self._bias = self._stored[:, -1]

    @classmethod
    def build(cls, vectors: FloatArray, *, kind: Literal["auto", "flat", "hnsw"]) -> VideoIndex:
        """Makes an index of vectors (N, D), whose row 0 it leaves out.

        Args:
            vectors: (N, D) float32.
            kind: `flat` is exact, `hnsw` approximate (Malkov & Yashunin 2016, "Efficient and robust
                approximate nearest neighbor search using HNSW graphs"), `auto` flat up to
                `FLAT_UP_TO` videos.
        """
        num_videos, dim = vectors.shape
        if kind == "hnsw" or (kind == "auto" and num_videos - 1 > FLAT_UP_TO):
            index: faiss.Index = _graph(dim + 1)
        else:
            index = faiss.IndexFlatIP(dim + 1)
        index.add(np.pad(vectors[UNKNOWN_ROW + 1 :], ((0, 0), (0, 1))).astype(np.float32))
        return cls(index)

    @classmethod
    def from_bytes(cls, data: bytes) -> VideoIndex:
        """Reads what `to_bytes` gave.

        Raises:
            InputError: The bytes are no index.
        """
        try:
            return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(f"not a nearest-neighbour index ({reason})") from None

    def to_bytes(self) -> bytes:
        """The index as a file's content."""
        return bytes(faiss.serialize_index(self._index))

    @property
    def kind(self) -> Kind:
        """Whether the search is exact (`flat`) or approximate (`hnsw`)."""
        return "flat" if isinstance(self._index, faiss.IndexFlat) else "hnsw"

    def __len__(self) -> int:
        """Number of videos that are searched."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return int(self._index.d) - 1

    def set_bias(self, bias_N: FloatArray) -> None:
        """What is added to every video's score from now on; no search may go on meanwhile.

        It is one more value of each vector, which every query weighs by 1. A graph keeps its links.
        """
        self._bias[:] = bias_N[UNKNOWN_ROW + 1 :]

    def search(
        self,
        queries: FloatArray,
        k: int,
        *,
        exclude: Sequence[IntArray | Sequence[int]] | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """The k videos with the largest dot product, best first.

        As many more are looked for as are excluded, so that k remain. Where few videos are allowed
        they are all compared: a graph whose videos are mostly forbidden loses its way.

        Args:
            queries: (B, D) float32.
            k: Results wanted.
            exclude: B lists of rows that must not be among the results.
            allowed: (N,) rows that may be among the results; all without it.

        Returns:
            Rows (B, k) and scores (B, k). Where there are fewer than k videos, the rest is row 0
            with score -inf.
        """
        excluded = [np.unique(np.asarray(rows, np.int64)) for rows in exclude or []]
        if excluded and len(excluded) != len(queries):
            raise ValueError(f"{len(excluded)} lists to exclude for {len(queries)} queries")
        wanted = min(k + max(map(len, excluded), default=0), len(self))
        rows = np.full((len(queries), k), UNKNOWN_ROW, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if wanted == 0:
            return rows, scores
        best_scores, best_rows = self._find(queries, wanted, allowed)
        for i, candidates in enumerate(best_rows):
            keep = candidates > UNKNOWN_ROW
            if excluded:
                keep &= ~np.isin(candidates, excluded[i])
            kept = np.flatnonzero(keep)[:k]
            rows[i, : len(kept)] = candidates[kept]
            scores[i, : len(kept)] = best_scores[i, kept]
        return rows, scores

    def _find(
        self, queries: FloatArray, wanted: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[FloatArray, IntArray]:
        """Scores and rows of the best; the index counts from 0 where rows count from 1."""
        queries = np.pad(queries.astype(np.float32), ((0, 0), (0, 1)), constant_values=1.0)
        selector, width = None, max(HNSW_SEARCH_WIDTH, 4 * wanted)
        if allowed is not None:
            positions = np.flatnonzero(allowed[UNKNOWN_ROW + 1 :])
            if len(positions) <= max(ALL_COMPARED, len(self) * SHARE_COMPARED):
                return self._compare(queries, positions, wanted)
            selector = faiss.IDSelectorBatch(positions)
            width = int(width * len(self) / len(positions))
        if self.kind == "flat":
            parameters: Any = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        else:
            parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
                efSearch=width, sel=selector
            )
        scores, positions = self._index.search(queries, wanted, params=parameters)
        return scores, positions + UNKNOWN_ROW + 1

    def _compare(
        self, queries: FloatArray, positions: IntArray, wanted: int
    ) -> tuple[FloatArray, IntArray]:
        """`_find` among some positions, one by one."""
        scores = queries @ self._stored[positions].T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
        return np.take_along_axis(scores, best, 1), positions[best] + UNKNOWN_ROW + 1


def _graph(dim: int) -> faiss.IndexHNSWFlat:
    graph = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = HNSW_BUILD_WIDTH
    return graph
