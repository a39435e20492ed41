"""Places for new videos: which ones are tried out, by Thompson sampling on their counts.

A video that hardly anybody has seen has a wide posterior and is drawn now and then; one that turned
out badly has a narrow one and is not drawn any more (W. R. Thompson, 1933; O. Chapelle and L. Li,
2011, "An Empirical Evaluation of Thompson Sampling").

Shapes: N videos.
"""

from __future__ import annotations

import numpy as np

from recsys.bundle.contents import Bundle
from recsys.data.ragged import IntArray
from recsys.features.counts import VIDEO
from recsys.features.hourly import hour_of
from recsys.serve.lists.propensities import Doubles, Tried
from recsys.serve.retrieve.conditions import Ages, Mask

PRIOR_EVENTS = 10.0
"""Events with the usual rate that every video is taken to have had."""


class Explorer:
    """Draws new videos for a share of the places of a list; one thread at a time.

    Args:
        bundle: With the counts of each video, and the settings.
        ages: Of the videos.
        seed: Decides the draws; None draws differently in every process.
    """

    def __init__(self, bundle: Bundle, ages: Ages, *, seed: int | None = None) -> None:
        self._counts, self._ages = bundle.counts, ages
        self.share, self._new_days = bundle.config.serve.explore, bundle.config.rerank.new_days
        self._rng = np.random.default_rng(seed)

    def draw(self, k: int, excluded: IntArray, allowed: Mask | None, now_ms: int) -> Tried | None:
        """New videos for some of k places, k times the share of them on average; None for none."""
        places = int(np.floor(k * self.share + self._rng.random()))
        if not places:
            return None
        pool_N = self._ages.younger_than(self._new_days, now_ms)
        pool_N[excluded] = False
        if allowed is not None:
            pool_N &= allowed
        rows = np.flatnonzero(pool_N)
        if not len(rows):
            return None
        good, bad = self._posteriors(rows, now_ms)
        drawn = np.argsort(-self._rng.beta(good, bad), kind="stable")[:places]
        return Tried(rows[drawn], drawn, good, bad, expected=k * self.share)

    def places(self, k: int, count: int) -> IntArray:
        """Which of k places they take, sorted; all are equally likely."""
        return np.sort(self._rng.choice(k, min(count, k), replace=False))

    def _posteriors(self, rows: IntArray, now_ms: int) -> tuple[Doubles, Doubles]:
        """The two parameters of the beta posterior of each video's rate of being liked."""
        hour = np.full(len(rows), int(hour_of(now_ms)) + 1)
        events, positives = self._counts.hourly[VIDEO].before(rows, hour)[:, :2].T
        everything = self._counts.hourly["everything"].before(np.ones(1, np.int64), hour[:1])
        usual = (everything[0, 1] + 1) / (everything[0, 0] + 2)
        good = PRIOR_EVENTS * usual + positives
        bad = PRIOR_EVENTS * (1 - usual) + np.maximum(events - positives, 0)
        return np.maximum(good, 1e-6), np.maximum(bad, 1e-6)
