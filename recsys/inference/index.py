"""Candidates for a query among very many videos, by codes of four bits a number.

Each number of a vector is replaced by the nearest of 16 levels of its dimension, so that a query's
products are looked up instead of multiplied (André, Kermarrec & Le Scouarnec 2015, "Cache locality
is not enough: high-performance nearest neighbor search with product quantization fast scan"). Every
video is looked at: unlike with graphs and cells, what is found depends neither on where videos lie
nor on how few of them a filter leaves, only on how exact the codes are. Whoever searches compares
the candidates' vectors themselves.

Shapes: N videos, row 0 among them, D retrieval vector, W candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from recsys.data.ragged import FloatArray, IntArray
from recsys.errors import InputError

Kind = Literal["flat", "pq"]
"""Whether all vectors are compared (`flat`) or codes of them are looked at first (`pq`)."""

FLAT_UP_TO = 100_000
"""Videos up to which `auto` compares all."""
BITS = 4
TRAINED_ON = 1 << 16
"""Most vectors that the levels are fitted to."""
ADDED_AT_ONCE = 1 << 16
"""Vectors that are copied while their codes are made: they are the first columns of wider rows."""


@dataclass(frozen=True)
class IndexFacts:
    """What a bundle says of its index."""

    kind: Kind
    margin: float = 3.0
    """How many standard deviations of the codes' errors a search reckons with."""
    recall: float | None = None
    """Share of the 100 best videos of the bundle's users that is found; None: not measured."""
    time_of_flat: float | None = None
    """What a search takes, as a share of comparing all."""


def kind_for(wanted: Literal["auto", "flat", "pq"], num_videos: int) -> Kind:
    """The kind of index that a catalogue gets.

    >>> kind_for("auto", 100_000), kind_for("auto", 100_001), kind_for("pq", 7)
    ('flat', 'pq', 'pq')
    """
    if wanted == "auto":
        return "flat" if num_videos <= FLAT_UP_TO else "pq"
    return wanted


class VideoIndex:
    """Codes of the videos' vectors, searched by dot product as in the training loss.

    >>> index = VideoIndex.build(np.array([[9, 9], [1, 0], [0, 1]], np.float32))
    >>> rows, scores = index.candidates(np.ones(2, np.float32), 2, np.array([False, True, True]))
    >>> sorted(rows.tolist()), scores.round().tolist()
    ([1, 2], [1.0, 1.0])

    Args:
        codes: What Faiss holds.
        margin: As of `IndexFacts`.
    """

    def __init__(self, codes: faiss.Index, *, margin: float = IndexFacts.margin) -> None:
        self._codes, self.margin = codes, margin

    @classmethod
    def build(cls, vectors: FloatArray) -> VideoIndex:
        """Makes codes of vectors (N, D)."""
        num_videos, dim = vectors.shape
        # One cell that holds all: of the kinds with such codes only the one with cells can filter.
        cell = faiss.IndexFlatIP(dim)
        cell.add(np.zeros((1, dim), np.float32))
        codes = faiss.IndexIVFPQFastScan(cell, dim, 1, dim, BITS, faiss.METRIC_INNER_PRODUCT)
        codes.pq.cp.min_points_per_centroid = 1
        # At least as many as levels, and drawn alike each time.
        drawn = np.random.default_rng(0).permutation(num_videos)[:TRAINED_ON]
        codes.train(vectors[np.resize(drawn, max(len(drawn), 1 << BITS))])
        for start in range(0, num_videos, ADDED_AT_ONCE):
            codes.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE]))
        return cls(codes)

    @classmethod
    def from_bytes(cls, data: bytes, *, margin: float = IndexFacts.margin) -> VideoIndex:
        """Reads what `to_bytes` gave.

        Raises:
            InputError: The bytes are no such index.
        """
        try:
            codes = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(f"not a nearest-neighbour index ({reason})") from None
        if not isinstance(codes, faiss.IndexIVFPQFastScan):
            raise InputError(f"not an index of codes but {type(codes).__name__}; publish again")
        return cls(codes, margin=margin)

    def to_bytes(self) -> bytes:
        """The index as a file's content."""
        return bytes(faiss.serialize_index(self._codes))

    def with_margin(self, margin: float) -> VideoIndex:
        """The same codes, searched with another margin."""
        return VideoIndex(self._codes, margin=margin)

    def __len__(self) -> int:
        """N."""
        return int(self._codes.ntotal)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self), int(self._codes.d)

    def candidates(
        self, query: FloatArray, width: int, allowed: npt.NDArray[np.bool_]
    ) -> tuple[IntArray, FloatArray]:
        """The rows whose codes have the largest dot products with a query (D,), best first.

        Args:
            query: (D,) float32.
            width: W, rows wanted.
            allowed: (N,) rows that may be found.

        Returns:
            Rows (W,) and what the codes say of their dot products (W,). They are fewer where fewer
            may be found, and a video whose every level is the worst is never among them.
        """
        bitmap = np.packbits(allowed, bitorder="little")
        parameters: Any = faiss.SearchParametersIVF(  # type: ignore[call-arg]
            sel=faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg,arg-type]
        )
        (scores,), (rows,) = self._codes.search(query[None], width, params=parameters)
        is_there = rows >= 0
        return rows[is_there], scores[is_there]
