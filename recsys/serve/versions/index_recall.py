"""How many of the right videos a new bundle's index finds, and with which margin it is searched.

Publishing asks for users of the bundle, with what is trending and what they have seen, by the index
and exactly, without a filter and under some, and takes the smallest margin that finds enough. Where
none does, the bundle has no index: all videos are compared.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from recsys.bundle.contents import Bundle
from recsys.data.ragged import FloatArray, IntArray
from recsys.inference.index import IndexFacts, VideoIndex
from recsys.schema import UNKNOWN_ROW
from recsys.serve.lists.parts import Parts
from recsys.serve.retrieve.retrieval import Retriever, Search
from recsys.serve.users.pasts import PastRequest

logger = logging.getLogger(__name__)

NUM_USERS, K = 100, 100
SHARES, NUM_FILTERED = (0.5, 0.1, 0.01), 20
"""Of the videos that a filter leaves, drawn at random, and users who are asked for under each."""
NUM_TIMED = 20
"""Users whose searches are made one at a time, to tell what one takes."""
MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Standard deviations of what the codes are wrong by."""
AIM, BAR, FILTERED_BAR = 0.99, 0.98, 0.95
"""Recall@100 that a margin is taken for, and below which there is no index; and that under every
filter, below which there is none either."""


def index_facts(bundle: Bundle) -> IndexFacts:
    """What the index of a bundle needs, and what was measured with it.

    Without an index, or without users, there is nothing to measure.

    Args:
        bundle: Whole; no event log is read.
    """
    searches = _searches(bundle)
    if bundle.index is None or not searches:
        return bundle.index_facts
    return tuned(bundle.index, bundle.vectors, searches)


def tuned(index: VideoIndex, vectors: FloatArray, searches: Sequence[Search]) -> IndexFacts:
    """The smallest margin with which an index of vectors (N, Y) finds enough; else `flat`.

    What was measured is said in a line.
    """
    few = searches[:: max(1, len(searches) // NUM_FILTERED)]
    kinds = [searches, *(_filtered(few, share) for share in SHARES)]
    dim = index.shape[1]
    flat = Retriever(None, vectors, dim=dim)
    exact = [_found(flat, kind) for kind in kinds]
    flat_s = _median_s(flat, searches)

    @cache
    def measured(margin: float) -> Measured:
        retriever = Retriever(index.with_margin(margin), vectors, dim=dim)
        found = [_found(retriever, kind) for kind in kinds]
        recall, *filtered = (_recall(*pair) for pair in zip(exact, found, strict=True))
        return Measured(recall, min(filtered), _median_s(retriever, searches), flat_s)

    # A larger margin looks at what a smaller one looks at, and more.
    place = bisect_left(MARGINS, True, key=lambda margin: measured(margin).is_aim)
    margin = MARGINS[min(place, len(MARGINS) - 1)]
    found = measured(margin)
    logger.info("publish: %s", found.line)
    if not found.is_enough:
        return IndexFacts("flat")
    return IndexFacts("pq", margin, found.recall, found.index_s / found.flat_s)


@dataclass(frozen=True)
class Measured:
    """How searches by an index did, with the margin that was taken.

    >>> Measured(recall=0.972, filtered=0.953, index_s=0.0037, flat_s=0.0276).is_enough
    False
    """

    recall: float
    filtered: float
    """Recall under the filter that it is lowest under."""
    index_s: float
    flat_s: float
    """Median seconds of a search without a filter, by the index and exactly."""

    @property
    def is_aim(self) -> bool:
        """Whether no larger margin is asked for."""
        return self.recall >= AIM and self.filtered >= FILTERED_BAR

    @property
    def is_enough(self) -> bool:
        """Whether both bars are met."""
        return self.recall >= BAR and self.filtered >= FILTERED_BAR

    @property
    def line(self) -> str:
        """What people are told of it."""
        if self.is_enough:
            return (
                f"the index finds {self.recall:.1%} of the 100 best videos, and "
                f"{self.filtered:.1%} under filters, in {self.index_s / self.flat_s:.0%} of the "
                "time that comparing all takes"
            )
        return (
            f"an index would find {self.recall:.1%} of the 100 best videos (at least {BAR:.0%} is "
            f"wanted), and {self.filtered:.1%} under filters (at least {FILTERED_BAR:.0%}); all "
            f"are compared instead, {1000 * self.flat_s:.1f} ms a search"
        )


def some_users(bundle: Bundle, num: int) -> list[str]:
    """Users of a bundle, spread evenly over all that have events."""
    there = bundle.histories.user_ids
    places = np.unique(np.linspace(0, len(there) - 1, min(num, len(there))).astype(np.int64))
    return [there[place] for place in places.tolist()]


def just_after(bundle: Bundle) -> int:
    """The time (Unix ms) just after all that a bundle knows."""
    return int(bundle.histories.time_ms.max(initial=0)) + 1


def _searches(bundle: Bundle) -> list[Search]:
    """What users ask for first: all but what they liked."""
    parts, now_ms = Parts.of(bundle, None), just_after(bundle)
    trending = parts.trending.at(now_ms)
    pasts = parts.pasts.of([PastRequest(user, now_ms) for user in some_users(bundle, NUM_USERS)])
    return [
        Search(past.query, trending, past.seen, past.seen_bias, past.never_again) for past in pasts
    ]


def _filtered(searches: Sequence[Search], share: float) -> list[Search]:
    """The same searches under one filter that leaves a share of the videos."""
    allowed = np.random.default_rng(0).random(len(searches[0].trending)) < share
    return [replace(search, allowed=allowed) for search in searches]


def _found(retriever: Retriever, searches: Sequence[Search]) -> list[IntArray]:
    """The rows that each search finds; those without an index are made together, and sooner."""
    return [rows[rows != UNKNOWN_ROW] for rows in retriever.best(searches, K)[0]]


def _median_s(retriever: Retriever, searches: Sequence[Search]) -> float:
    """What a search takes by itself, as a server makes it, once others were made."""
    seconds = []
    for search in searches[:NUM_TIMED]:
        begun = time.perf_counter()
        retriever.best([search], K)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


def _recall(exact: Sequence[IntArray], by_index: Sequence[IntArray]) -> float:
    """The mean share of the exact best that the index finds; of nothing it finds all."""
    pairs = zip(exact, by_index, strict=True)
    return float(np.mean([np.isin(*pair).mean() if len(pair[0]) else 1.0 for pair in pairs]))
