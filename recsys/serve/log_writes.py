"""What callers wait for until the event log has written it: events, and users to be forgotten.

A log that hangs holds them for a while and no longer, and never so many that nobody else has room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from recsys.live.log.event import Event
from recsys.live.log.events import Appended, EventLog
from recsys.live.store.database import LogError
from recsys.serve.metrics import Metrics

Result = TypeVar("Result")

WAIT_S = 10.0
"""How long a caller waits for what it sent to be on disk."""


class LogWrites:
    """Hands to the log what callers send; its methods are called from the server's event loop.

    Args:
        log: That is written.
        metrics: Told what happens.
        most: Callers that may wait at a time.
    """

    def __init__(self, log: EventLog, metrics: Metrics, *, most: int) -> None:
        self._log, self._metrics, self._most = log, metrics, most
        self._waiting = 0
        # Who writes takes turns anyway, so one thread will do. It is not one of the event loop's
        # few, which others need meanwhile.
        self._forgetting = ThreadPoolExecutor(1, thread_name_prefix="forget")

    async def append(self, events: Sequence[Event]) -> Appended:
        """Adds events to the log; they are on disk when this returns.

        Raises:
            InputError: An event is wrong; none of the call is kept.
            LogError: The database fails; the same call may be made again.
        """
        appended = await self._written(lambda: self._log.hand_in(events))
        self._metrics.events(Counter(map(str, appended.statuses)))
        return appended

    async def forget(self, user_id: str) -> int:
        """Deletes all of a user's events and gives their number.

        Raises:
            InputError: The id is no text that a log can hold.
            LogError: The database fails; the same call may be made again.
        """
        return await self._written(lambda: self._forgetting.submit(self._log.forget, user_id))

    def close(self) -> None:
        """Ends the thread once the user is forgotten that it is at; those who wait are not."""
        self._forgetting.shutdown(cancel_futures=True)

    async def _written(self, hand_in: Callable[[], Future[Result]]) -> Result:
        """What comes of something that is handed in; too late, it is not begun any more."""
        if self._waiting >= self._most:
            self._metrics.refused("events")
            raise LogError(f"{self._waiting} calls wait to be written already")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.wrap_future(hand_in())
        except TimeoutError:
            raise LogError(f"what was sent was not on disk after {WAIT_S:g} s") from None
        finally:
            self._waiting -= 1
