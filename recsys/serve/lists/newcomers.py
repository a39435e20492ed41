"""Lists for users of whom nothing is known: popular now, and of different kinds.

Shapes: N videos, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.config.run import RerankConfig
from recsys.data.ragged import FloatArray, IntArray
from recsys.inference.rerank import Reranker, VideoTraits
from recsys.serve.retrieve.catalogue import Catalogue, Changed
from recsys.serve.retrieve.conditions import Mask

DIVERSITY = 0.3
"""What having the same categories as the videos above costs, in popularity of the best one."""
CANDIDATES = 100


class Newcomers:
    """What is shown to whoever comes for the first time; one thread at a time.

    Args:
        catalogue: Its categories say what kind a video is of.
        popular: Gives every video's popularity (N) at a time, 0 where it has none.
    """

    def __init__(self, catalogue: Catalogue, popular: Callable[[int], FloatArray]) -> None:
        config = RerankConfig(diversity=DIVERSITY, candidates=CANDIDATES, page=1)
        self._popular = popular
        kinds = VideoTraits(categories=catalogue.described()[0].categories)
        self._reranker, self._catalogue = Reranker(config, kinds), catalogue
        catalogue.on_change.append(self._change)

    def _change(self, changed: Changed) -> None:
        kinds = VideoTraits(categories=self._catalogue.of_rows(changed.rows).categories)
        self._reranker.put(changed.rows, kinds)

    def are_popular(self, rows: IntArray, now_ms: int) -> Mask:
        """Which of some videos are popular at a time, as the list of what is popular has it."""
        return self._popular(now_ms)[rows] > 0

    def order(self, rows: IntArray, forbidden: Mask, k: int, now_ms: int) -> IntArray:
        """Up to k video rows: the popular ones, then what else the model found.

        Args:
            rows: What the model finds for them, the best first.
            forbidden: (N,) what must not be shown.
            k: How many.
            now_ms: When.
        """
        popularity = np.where(forbidden, 0, self._popular(now_ms))
        best = np.argsort(-popularity, kind="stable")[: max(k, CANDIDATES)]
        best = best[popularity[best] > 0]
        if len(best):
            relevance = popularity[best] / popularity[best[0]]
            best = best[self._reranker.order(best[None], relevance[None], k)[0]]
        others = rows[~np.isin(rows, best)]
        return np.concatenate([best, others])[:k]
