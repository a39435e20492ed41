"""How many of the right videos a new bundle's index finds, and with which margin it is searched.

Publishing asks for users of the bundle, with what is trending and what they have seen, by the index
and exactly, and takes the smallest margin that finds enough.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from recsys.bundle.contents import Bundle
from recsys.data.ragged import IntArray
from recsys.inference.index import IndexFacts
from recsys.schema import UNKNOWN_ROW
from recsys.serve.lists.parts import Parts
from recsys.serve.retrieve.retrieval import Retriever, Search
from recsys.serve.users.pasts import PastRequest

NUM_USERS, K = 100, 100
MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Standard deviations of what the codes are wrong by."""
AIM, BAR = 0.99, 0.98
"""Recall@100 that a margin is taken for, and below which publishing warns."""


def index_facts(bundle: Bundle) -> IndexFacts:
    """The margin that the index of a bundle needs, and what was measured with it.

    Where no margin finds enough, it is the largest. Without an index, or without users, there is
    nothing to measure.

    Args:
        bundle: Whole; no event log is read.
    """
    facts, searches = bundle.index_facts, _searches(bundle)
    if bundle.index is None or not searches:
        return facts
    dim = bundle.recommender.dim
    expected, flat_s = _searched(Retriever(None, bundle.vectors, dim=dim), searches)
    for margin in MARGINS:
        index = bundle.index.with_margin(margin)
        rows, index_s = _searched(Retriever(index, bundle.vectors, dim=dim), searches)
        recall = _recall(expected, rows)
        facts = IndexFacts("pq", margin, recall, index_s / flat_s)
        if recall >= AIM:
            break
    return facts


def measured_line(facts: IndexFacts) -> str | None:
    """A line on what was measured; None where nothing was.

    >>> measured_line(IndexFacts("pq", margin=4.0, recall=0.972, time_of_flat=0.125))
    'finds 97.2% of the 100 best videos (less than 98%) in 12% of the time that comparing all takes'
    """
    if facts.recall is None or facts.time_of_flat is None:
        return None
    less = "" if facts.recall >= BAR else f" (less than {BAR:.0%})"
    return (
        f"finds {facts.recall:.1%} of the 100 best videos{less} in {facts.time_of_flat:.0%} of "
        "the time that comparing all takes"
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


def _searched(retriever: Retriever, searches: Sequence[Search]) -> tuple[list[IntArray], float]:
    """The rows that each search finds, and the median seconds of one."""
    retriever.best(searches[:1], K)  # what trending lifts is made once an hour
    rows, seconds = [], []
    for search in searches:
        begun = time.perf_counter()
        best = retriever.best([search], K)[0][0]
        seconds.append(time.perf_counter() - begun)
        rows.append(best[best != UNKNOWN_ROW])
    return rows, float(np.median(seconds))


def _recall(expected: Sequence[IntArray], by_index: Sequence[IntArray]) -> float:
    """The mean share of what was expected that the index finds; of nothing it finds all."""
    pairs = zip(expected, by_index, strict=True)
    return float(np.mean([np.isin(*pair).mean() if len(pair[0]) else 1.0 for pair in pairs]))
