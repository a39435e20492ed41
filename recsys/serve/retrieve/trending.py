"""What is trending now: what the counts of the last hours add to every video's score."""

from __future__ import annotations

import threading

import numpy as np

from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import EventCounts, trending
from recsys.features.hourly import hour_of
from recsys.model.recommender import Recommender

HELD_HOURS = 4
POPULAR_MS = 60_000
"""How long a list of what is popular is held; events of the hour itself change it all the time."""


class Trending:
    """The gains of all videos, held for the hours that were asked for last.

    Counts are of finished hours: within one, all requests see the same gains, but for an event that
    comes late. Any thread may call it; an array that was given away never changes.
    """

    def __init__(self, model: Recommender, counts: EventCounts) -> None:
        self._weight, self._counts = float(model.trending), counts
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, FloatArray]] = {}
        self._popular: tuple[int, FloatArray] | None = None

    def at(self, time_ms: int) -> FloatArray:
        """What is added to the scores of all videos (N,) at a time."""
        hour = int(hour_of(time_ms))
        with self._lock:
            version, number = self._counts.version(hour), self._counts.num_videos
            held = self._held.pop(hour, None)
            if held is None or held[0] != version:
                held = version, self._weight * trending(self._counts.shown(time_ms))
            held = version, _as_long_as(held[1], number)
            self._held[hour] = held
            if len(self._held) > HELD_HOURS:
                del self._held[next(iter(self._held))]
            return held[1]

    def popular(self, time_ms: int) -> FloatArray:
        """How popular all videos (N,) are: `EventCounts.positives`, at most a minute old."""
        minute = time_ms // POPULAR_MS
        with self._lock:
            if self._popular is None or self._popular[0] != minute:
                self._popular = minute, self._counts.positives(time_ms)
            self._popular = minute, _as_long_as(self._popular[1], self._counts.num_videos)
            return self._popular[1]

    def count_many(
        self, rows: IntArray, context_rows: IntArray, time_ms: IntArray, counts: IntArray
    ) -> None:
        """Counts live events; see `EventCounts.count_many`."""
        self._counts.count_many(rows, context_rows, time_ms, counts)

    def forget_live(self) -> None:
        """Drops all live events; no other thread may read meanwhile."""
        self._counts.forget_live()
        with self._lock:
            self._held.clear()
            self._popular = None


def _as_long_as(values_N: FloatArray, number: int) -> FloatArray:
    """Values with room for videos that came since: what was never shown neither trends nor pleases.

    All of them are not made anew for one that is added: that would hold up requests.
    """
    return values_N if len(values_N) == number else np.pad(values_N, (0, number - len(values_N)))
