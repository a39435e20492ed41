"""Candidates for a query among very many videos, by codes of four bits a number.

Each number of a vector is replaced by the nearest of 16 levels of its dimension, so that a query's
products are looked up instead of multiplied (André, Kermarrec & Le Scouarnec 2015, "Cache locality
is not enough: high-performance nearest neighbor search with product quantization fast scan"). Every
video is looked at: unlike with graphs and cells, what is found depends neither on where videos lie
nor on how few of them a filter leaves, only on how exact the codes are. Whoever searches compares
the candidates' vectors themselves. The codes may lie in a mapped file, which processes share.

Shapes: N videos, row 0 among them, D retrieval vector, K levels, W candidates.
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
        levels: All but the codes, as Faiss serialises it: an index of N videos with empty lists.
        codes: The codes of all videos and behind them their rows (int64), as Faiss has them in
            memory. They are searched where they lie, in a mapped file too.
        margin: As of `IndexFacts`.

    Raises:
        InputError: They are no such index.
    """

    def __init__(
        self, levels: bytes, codes: npt.NDArray[np.uint8], *, margin: float = IndexFacts.margin
    ) -> None:
        try:
            index = faiss.deserialize_index(np.frombuffer(levels, np.uint8))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(f"not a nearest-neighbour index ({reason})") from None
        if not isinstance(index, faiss.IndexIVFPQFastScan):
            raise InputError(f"not an index of codes but {type(index).__name__}; publish again")
        num_bytes = _num_bytes(index)
        if len(codes) != num_bytes + 8 * index.ntotal:
            raise InputError(f"codes of {len(codes)} bytes, not of {index.ntotal}; publish again")
        self.levels, self.codes, self.margin = levels, codes, margin
        lists: Any = faiss.OnDiskInvertedLists()
        lists.nlist, lists.code_size, lists.prefetch_nthread = 1, index.code_size, 0
        lists.ptr = faiss.swig_ptr(codes)
        lists.lists.resize(1)
        only = lists.lists.data()
        only.size, only.capacity, only.offset = index.ntotal, num_bytes // index.code_size, 0
        lists.this.disown()  # to free it would be to unmap the codes, which are the array's
        index.replace_invlists(lists, False)
        self._index = index

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
        packed = _packed(codes, vectors)
        blocks: Any = packed.invlists
        lists = faiss.downcast_InvertedLists(blocks)
        own = faiss.rev_swig_ptr(lists.get_codes(0), _num_bytes(packed))
        rows = faiss.rev_swig_ptr(lists.get_ids(0), num_videos)
        joined = np.concatenate([own, rows.view(np.uint8)])
        codes.ntotal = num_videos
        return cls(bytes(faiss.serialize_index(codes)), joined)

    def with_margin(self, margin: float) -> VideoIndex:
        """The same codes, searched with another margin."""
        return VideoIndex(self.levels, self.codes, margin=margin)

    def __len__(self) -> int:
        """N."""
        return int(self._index.ntotal)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self), int(self._index.d)

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
        (scores,), (rows,) = self._index.search(query[None], width, params=parameters)
        is_there = rows >= 0
        return rows[is_there], scores[is_there]


def _packed(index: faiss.IndexIVFPQFastScan, vectors: FloatArray) -> faiss.IndexIVFPQFastScan:
    """An index of vectors (N, D) by the levels of a trained one.

    Faiss looks for the nearest level of each number by distances, which takes several times as long
    as to compare it with the 15 bounds between them.
    """
    plain = faiss.IndexIVFPQ(index.quantizer, index.d, 1, index.d, BITS, index.metric_type)
    plain.pq, plain.by_residual, plain.is_trained = index.pq, index.by_residual, True
    levels_DK = faiss.vector_to_array(index.pq.centroids).reshape(index.d, 1 << BITS)
    for start in range(0, len(vectors), ADDED_AT_ONCE):
        codes = four_bits(vectors[start : start + ADDED_AT_ONCE], levels_DK)
        rows = np.arange(start, start + len(codes))
        lists: Any = plain.invlists
        lists.add_entries(0, len(codes), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
    plain.ntotal = len(vectors)
    return faiss.IndexIVFPQFastScan(plain)


def four_bits(vectors: FloatArray, levels_DK: FloatArray) -> npt.NDArray[np.uint8]:
    """The number of the nearest of 16 levels of each number, two of them a byte, lower bits first.

    >>> levels = np.tile(np.arange(16, dtype=np.float32)[::-1], (3, 1))
    >>> four_bits(np.array([[15, 13.4, 0]], np.float32), levels).tolist()
    [[32, 15]]
    """
    order_DK = np.argsort(levels_DK, axis=1).astype(np.uint8)
    rising_DK = np.take_along_axis(levels_DK, order_DK.astype(np.int64), axis=1)
    bounds_DK = (rising_DK[:, 1:] + rising_DK[:, :-1]) / 2
    codes = np.zeros((len(vectors), -(-len(levels_DK) // 2)), np.uint8)
    for place, numbers in enumerate(np.ascontiguousarray(vectors[:, : len(levels_DK)].T)):
        rank = np.zeros(len(numbers), np.uint8)
        for bound in bounds_DK[place]:  # sooner than a search: 16 numbers are compared at a time
            rank += numbers > bound
        codes[:, place // 2] |= order_DK[place][rank] << (4 * (place % 2))
    return codes


def _num_bytes(index: faiss.IndexIVFPQFastScan) -> int:
    """Bytes of the codes of an index, whose last block is a whole one."""
    blocks = -(-index.ntotal // index.bbs)
    return int(blocks * index.bbs * index.M2 * BITS // 8)
