"""How many of the right videos the index finds, looked at while it serves.

A share of the searches is kept and, when nobody waits, made again: by the index, and exactly. What
share of the exact best it finds depends on what the request asked for, most of all on how much of
the catalogue its filters leave; so it is told by that.

Shapes: N videos, k results.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

import numpy as np

from recsys.data.ragged import FloatArray, IntArray
from recsys.schema import UNKNOWN_ROW
from recsys.serve.retrieve.retrieval import Search

SearchShape = Literal["none", "wide", "narrow", "user"]
"""What a search may find. `narrow`: a filter leaves less than a tenth of the catalogue; `wide`: it
leaves more. `user`: there is no filter, and videos are left out for the user. `none`: all."""
SHAPES: tuple[SearchShape, ...] = get_args(SearchShape)
NARROW = 0.1
K = 100
"""Recall is that of the 100 best."""
WAITING = 16
"""Searches that are kept until they are made again; what comes then is left out and counted."""
WINDOW = 1_000
"""Newest searches of a shape that its recall is the mean of."""


class Searcher(Protocol):
    """What finds videos, by an index and exactly."""

    @property
    def is_exact(self) -> bool:
        """Whether `best` is exact anyhow."""

    @property
    def num_rows(self) -> int:
        """Videos of now, row 0 among them."""

    def best(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """Rows (B, k) and scores (B, k), by the index."""

    def exact(self, searches: Sequence[Search], k: int) -> tuple[IntArray, FloatArray]:
        """The same without it."""


class IndexMonitor:
    """Samples searches and makes them again; all but `recalls` in the thread of the model.

    Args:
        searcher: Is looked at.
        share: Of the searches that are made again; 0 for none.
        seed: Decides which; None draws differently in every process.
    """

    def __init__(self, searcher: Searcher, *, share: float, seed: int | None = None) -> None:
        self._searcher, self._share = searcher, 0.0 if searcher.is_exact else share
        self._rng = np.random.default_rng(seed)
        self._waiting: deque[Search] = deque()
        self._lock = threading.Lock()
        self._recalls = {shape: deque[float](maxlen=WINDOW) for shape in SHAPES}
        self.left_out = 0
        """Searches that were sampled and not made again, because too many waited or the catalogue
        had grown meanwhile."""

    def saw(self, searches: Sequence[Search]) -> None:
        """Searches were made; some are kept to be made again."""
        if not self._share:
            return
        for place in np.flatnonzero(self._rng.random(len(searches)) < self._share).tolist():
            if len(self._waiting) < WAITING:
                self._waiting.append(searches[place])
            else:
                self.left_out += 1

    def check_one(self) -> None:
        """Makes one search again, if one waits.

        One that fails says that what was found before does not hold any more: it is forgotten, and
        nothing is told of the index until searches can be made again.
        """
        if not self._waiting:
            return
        search = self._waiting.popleft()
        if len(search.trending) != self._searcher.num_rows:
            self.left_out += 1
            return
        try:
            expected = _rows(self._searcher.exact([search], K))
            by_index = _rows(self._searcher.best([search], K))
        except Exception:
            with self._lock:
                for recalls in self._recalls.values():
                    recalls.clear()
            raise
        if len(expected):
            recall = float(np.isin(expected, by_index).mean())
            with self._lock:
                self._recalls[shape_of(search)].append(recall)

    def recalls(self) -> Mapping[SearchShape, float]:
        """The mean recall of each shape that was met."""
        with self._lock:
            return {shape: float(np.mean(r)) for shape, r in self._recalls.items() if r}


def shape_of(search: Search) -> SearchShape:
    """What a search may find, in a word."""
    if search.allowed is not None:
        return "narrow" if search.allowed.mean() < NARROW else "wide"
    return "user" if len(search.excluded) else "none"


def _rows(answer: tuple[IntArray, FloatArray]) -> IntArray:
    rows: IntArray = answer[0][0]
    return rows[rows != UNKNOWN_ROW]
