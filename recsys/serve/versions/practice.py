"""What a version that does not serve is asked before it does: what was answered here of late.

A request counts against a version only where the versions that served had an answer for it. So no
request that makes every version fail, from whoever it comes, keeps another one from serving.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from recsys.serve.asks import Answer, Ask, NoAnswer
from recsys.serve.recommender import ServingRecommender

logger = logging.getLogger(__name__)

RECENT = 64
"""Requests that are kept."""


class Unfit(Exception):
    """A version fails at requests, so that it is not to serve; its cause is one of the faults."""


class Practice:
    """The requests that were answered last; the model's thread adds, another one practises."""

    def __init__(self) -> None:
        self._recent: deque[Ask] = deque(maxlen=RECENT)

    def answered(self, asks: Sequence[Ask], answers: Sequence[Answer | Exception]) -> None:
        """Keeps requests but those that the model failed at."""
        pairs = zip(asks, answers, strict=True)
        self._recent.extend(ask for ask, made in pairs if not isinstance(made, NoAnswer))

    def of(self, recommender: ServingRecommender, *, has_served: bool) -> None:
        """Has a recommender answer them.

        Args:
            recommender: Of the version.
            has_served: Whether it has served before. Somebody wants it back then, and a request at
                which it fails is logged and does not hinder that, unless it fails at all of them.

        Raises:
            Unfit: It fails at one of them; one that has served, at all.
        """
        asks, faults = self._recent.copy(), list[Exception]()
        for ask in asks:
            try:
                recommender.answer([ask])
            except Exception as error:
                faults.append(error)
        if not faults:
            return
        said = f"fails at {len(faults)} of the last {len(asks)} requests that were answered here"
        if not has_served or len(faults) == len(asks):
            raise Unfit(f"it {said}: {faults[0]!r}") from faults[0]
        version = recommender.bundle.version
        logger.error(
            "version %s %s, and is taken back all the same", version, said, exc_info=faults[0]
        )
