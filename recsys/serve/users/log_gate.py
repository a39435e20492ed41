"""How often a log that is away is asked: seldom, where asking takes long.

The thread that runs the model asks the log. One that refuses at once may be asked with every batch;
one that hangs holds the thread up until the database's own limit, and then is left alone for nine
times as long, so that a tenth of the thread's time at most is lost to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from recsys.live.store.database import LogError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
SLOW_S = 0.1
"""A failure that took no longer costs too little for a rest."""
REST = 9


class LogGate:
    """Stands before the log; one thread at a time.

    Args:
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest_until = -float("inf")
        self.is_open = True
        """Whether the log answered when it was asked last."""

    def ask(self, question: Callable[[], Result]) -> Result:
        """What the log answers.

        Raises:
            LogError: It cannot be read, or it is left alone for now.
        """
        begun = self._clock()
        if begun < self._rest_until:
            raise LogError("the event log did not answer and is not asked for a while")
        try:
            answer = question()
        except LogError as error:
            if self.is_open:
                logger.warning("answers are stale from now on: %s", error)
            self.is_open = False
            took = self._clock() - begun
            if took > SLOW_S:
                self._rest_until = self._clock() + REST * took
            raise
        if not self.is_open:
            logger.warning("the event log answers again")
        self.is_open = True
        return answer
