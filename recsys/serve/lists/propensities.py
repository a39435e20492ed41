"""How likely each video was that a list tries out.

Thompson sampling takes the n new videos with the largest draws of their posteriors, and no closed
form says how likely that was for one of them. It is estimated by drawing again: p = P(X > T), where
X is the video's own draw and T the n-th largest of the others'. Each of `OWN` draws of X is
compared with each of R draws of T, which takes out most of the chance of single draws. R is
`REPEATS`, or less where the pool is so large that that would take more than `MOST_DRAWS` draws.

For two videos with equal counts and one place, where p is 0.5, the standard error of one estimate
is 0.02; for one of a hundred like it, where p is 0.01, it is 0.0009; for one of 10,000, where p is
0.0001, 0.00005 (`tests/serve/lists/test_propensities.py` holds it). The draws follow from the
impression's id, so that the same one gives the same.

Shapes: P videos that could be drawn, R repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import IntArray

Doubles = npt.NDArray[np.float64]

OWN = 20_000
REPEATS, LEAST_REPEATS = 200, 20
MOST_DRAWS = 100_000
"""About 10 ms of a thread that gives way to all others."""


@dataclass(frozen=True)
class Tried:
    """Videos that were drawn for a list, and what they were drawn from."""

    rows: IntArray
    """Of the videos drawn."""
    pool: IntArray
    """(P,) where they stand among those that could be drawn, as indices below P."""
    good_P: Doubles
    """With `bad_P` the beta posterior of each video that could be drawn."""
    bad_P: Doubles
    expected: float
    """How many are drawn on average: that many rounded down, or with the rest's chance up."""


def propensities(tried: Tried, seed: int) -> list[float]:
    """How likely each video that was drawn was to be drawn, estimated; above 0 and at most 1.

    >>> one = np.ones(2)
    >>> both = Tried(np.array([5, 6]), np.array([0, 1]), one, one, expected=2.0)
    >>> propensities(both, seed=0)
    [1.0, 1.0]
    """
    rng = np.random.default_rng(seed)
    size = len(tried.good_P)
    repeats = max(LEAST_REPEATS, min(REPEATS, MOST_DRAWS // size))
    draws_RP = rng.beta(tried.good_P, tried.bad_P, (repeats, size))
    return [_propensity(tried, place, draws_RP, rng) for place in tried.pool.tolist()]


def _propensity(tried: Tried, place: int, draws_RP: Doubles, rng: np.random.Generator) -> float:
    own = np.sort(rng.beta(tried.good_P[place], tried.bad_P[place], OWN))
    others_RP = np.delete(draws_RP, place, axis=1)
    fewest = int(tried.expected)
    up = tried.expected - fewest
    likely = 0.0
    for number, weight in ((fewest, 1 - up), (fewest + 1, up)):
        if number > others_RP.shape[1]:
            likely += weight  # there is room for all
        elif number and weight:
            threshold_R = -np.partition(-others_RP, number - 1, axis=1)[:, number - 1]
            above_R = OWN - np.searchsorted(own, threshold_R, side="right")
            likely += weight * float(above_R.mean()) / OWN
    # It was drawn, so it was not impossible, however seldom it is among these draws.
    return min(1.0, max(likely, 1 / (OWN * len(draws_RP))))
