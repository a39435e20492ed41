"""What is trending now: what the counts of the last hours add to every video's score."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import RECENT_HOURS, EventCounts, trending
from recsys.features.hourly import hour_of
from recsys.model.recommender import Recommender

HELD_HOURS = 4


@dataclass
class _Hour:
    shown_N2: IntArray
    gains_N: FloatArray | None = None
    """None where an event has come since."""


class Trending:
    """The gains of all videos, held for the hours that were asked for last.

    Counts are of finished hours: within one, all requests see the same gains, but for an event that
    comes late. Any thread may call it; an array that was given away never changes.
    """

    def __init__(self, model: Recommender, counts: EventCounts) -> None:
        self._weight, self._counts = float(model.trending), counts
        self._lock = threading.Lock()
        self._held: dict[int, _Hour] = {}

    def at(self, time_ms: int) -> FloatArray:
        """What is added to the scores of all videos (N,) at a time."""
        number = int(hour_of(time_ms))
        with self._lock:
            hour = self._held.pop(number, None) or _Hour(self._counts.shown(time_ms))
            self._held[number] = hour
            if len(self._held) > HELD_HOURS:
                del self._held[next(iter(self._held))]
            if hour.gains_N is None:
                hour.gains_N = self._weight * trending(hour.shown_N2)
            return hour.gains_N

    def count(
        self, row: int, context_rows: Sequence[int], time_ms: int, flags: Sequence[int]
    ) -> None:
        """Counts a live event; see `EventCounts.count`."""
        then = int(hour_of(time_ms))
        with self._lock:
            self._counts.count(row, context_rows, time_ms, flags)
            for number, hour in self._held.items():
                if number > then:
                    hour.shown_N2[row] += [1, number - RECENT_HOURS <= then]
                    hour.gains_N = None
