"""The thread that records what lists tried out: no answer waits for it."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from dataclasses import dataclass

from recsys.live.clock import now
from recsys.live.log.explored import Explored, ExploredVideos
from recsys.live.store.database import LogError
from recsys.serve.asks import Answer
from recsys.serve.lists.propensities import propensities
from recsys.serve.metrics import Metrics

logger = logging.getLogger(__name__)

WAITING = 256
"""Lists that wait to be recorded; what comes then is left out and counted."""
TOGETHER = 64
"""Lists that are recorded in one transaction."""
TRIES, WAIT_S = 3, 1.0
"""How often a transaction is tried, and the wait between."""


@dataclass(frozen=True)
class _Shown:
    impression_id: str
    answer: Answer
    time_ms: int


class ExploredRecord:
    """Records what was explored.

    Args:
        explored: The record.
        metrics: Told what is left out.
    """

    def __init__(self, explored: ExploredVideos, metrics: Metrics) -> None:
        self._explored, self._metrics = explored, metrics
        self._waiting: queue.Queue[_Shown | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def shown(self, impression_id: str, answer: Answer) -> None:
        """Takes a list that is shown; one that finds too many before it is left out and counted."""
        if answer.tried is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="propensities", daemon=True)
            self._thread.start()
        if self._waiting.qsize() >= WAITING:
            self._metrics.propensities_left_out(len(answer.tried.rows))
            return
        # By the server's clock: a request may be made as of a time ahead of it.
        self._waiting.put(_Shown(impression_id, answer, now()))

    def close(self) -> None:
        """Records what waits and ends the thread."""
        self._closing.set()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            lists = [first]
            while len(lists) < TOGETHER and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                lists.append(following)
            self._keep(lists)

    def _keep(self, lists: list[_Shown]) -> None:
        try:
            explored = [one for shown in lists for one in _explored(shown)]
            if self._is_kept(explored):
                return
        except Exception:
            # A fault of ours must not end the thread, and must not go unseen.
            logger.exception("propensities could not be recorded")
        number = sum(len(one.answer.tried.rows) for one in lists if one.answer.tried is not None)
        self._metrics.propensities_left_out(number)

    def _is_kept(self, explored: list[Explored]) -> bool:
        for _ in range(TRIES):
            try:
                self._explored.add(explored)
                return True
            except LogError as error:
                logger.warning("propensities wait: %s", error)
                self._closing.wait(WAIT_S)
        return False


def _explored(shown: _Shown) -> list[Explored]:
    """The videos of a list that were tried out, in the order in which they were drawn."""
    answer, name = shown.answer, shown.impression_id
    assert answer.tried is not None
    likely = propensities(answer.tried, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
    explored = [v.video_id for v in answer.videos if v.reason and v.reason.kind == "explore"]
    return [
        Explored(name, video_id, answer.user_id, shown.time_ms, one)
        for video_id, one in zip(explored, likely, strict=True)
    ]
