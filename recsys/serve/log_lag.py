"""How far a replica is behind the event log, looked at beside the thread that follows it.

That thread is busy just when the replica is far behind; and where there is load it is never idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.serve.follower import Followed
from recsys.serve.metrics import Metrics

logger = logging.getLogger(__name__)

LOOKS_S = 1.0


class LogLag:
    """Tells the metrics once a second, in a thread of its own.

    Args:
        log: That is followed.
        followed: How far, now.
        metrics: Told of it.
    """

    def __init__(self, log: EventLog, followed: Callable[[], Followed], metrics: Metrics) -> None:
        self._log, self._followed, self._metrics = log, followed, metrics
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-lag", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Looks once.

        Raises:
            LogError: The log cannot be read.
        """
        followed = self._followed()
        seq = followed.seq
        self._metrics.waiting(followed.unknown_videos)
        oldest = self._log.rows_after(seq, 1)
        if not oldest:
            self._metrics.log_lag(0, 0.0)
            return
        age_ms = self._log.clock() - oldest[0].received_ms
        self._metrics.log_lag(self._log.latest_seq() - seq, max(0, age_ms) / 1000)

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(LOOKS_S):
            try:
                self.look()
            except LogError:  # whoever needs the log says why
                self._metrics.log_failed()
            except Exception:
                # A fault of ours must not end the thread, and must not go unseen.
                logger.exception("how far the event log is followed could not be looked at")
                self._metrics.log_failed()
