"""A log that is counted again and again: only what it got since is read, or all where it lost some.

What was deleted cannot be taken off the counts one by one: it is gone. So all is counted anew, but
for what was deleted before the counting began, which has not read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from recsys.live.log.entries import LoggedEvent
from recsys.live.log.events import EventLog

Counts = TypeVar("Counts")


class CountedLog(Generic[Counts]):
    """Keeps counts of a log up to date; one thread at a time.

    Args:
        log: That is counted.
        begin: Gives counts of nothing, and the place in the log after which they begin; it is told
            where the log ends.
        count: Takes the next event into `counts`.

    Raises:
        LogError: The log cannot be read.
    """

    def __init__(
        self,
        log: EventLog,
        begin: Callable[[int], tuple[Counts, int]],
        count: Callable[[LoggedEvent], None],
    ) -> None:
        self._log, self._begin, self._count = log, begin, count
        self._begin_anew()

    def catch_up(self) -> None:
        """Counts what the log holds now.

        Raises:
            LogError: The log cannot be read; the next call goes on from there.
        """
        last = self._log.latest_seq()
        while not self._counted_to(last):  # twice at most: what is deleted now comes after `last`
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._whole_to = self._log.latest_seq()
        self.counts, self._seq = self._begin(self._whole_to)

    def _counted_to(self, last: int) -> bool:
        """Counts up to a place; False where what was deleted may be in the counts."""
        for entry in self._log.entries(self._seq, last):
            if isinstance(entry, LoggedEvent):
                self._count(entry)
            elif entry.seq > self._whole_to:
                return False
            self._seq = entry.seq
        return True
