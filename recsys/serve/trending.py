"""What is trending now: what the counts of the last hours add to every video's score."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from recsys.data.timelines import MS_PER_HOUR, IntArray
from recsys.data.trends import Trends, hour_of
from recsys.index import FloatArray
from recsys.model.recommender import Recommender

HELD_HOURS = 4


class Trending:
    """The gains of all videos, held for the hours that were asked for last.

    Counts are of finished hours: within one, all requests see the same gains, but for an event that
    comes late. Any thread may call it; an array that was given away never changes.
    """

    def __init__(self, model: Recommender, trends: Trends) -> None:
        self._weights, self._trends = model.trending.numpy(), trends
        self._lock = threading.Lock()
        self._held: dict[int, FloatArray] = {}

    def at(self, time_ms: int) -> FloatArray:
        """(N,) at a time."""
        hour = int(hour_of(time_ms))
        with self._lock:
            gains = self._held.pop(hour, None)
            self._held[hour] = self._gains(time_ms) if gains is None else gains
            if len(self._held) > HELD_HOURS:
                del self._held[next(iter(self._held))]
            return self._held[hour]

    def count(
        self, row: int, context_rows: Sequence[int], time_ms: int, actions: Sequence[int]
    ) -> None:
        """Counts a live event; see `Trends.count`."""
        with self._lock:
            self._trends.count(row, context_rows, time_ms, actions)
            for hour in self._held:
                if hour > hour_of(time_ms):
                    changed = self._held[hour].copy()
                    changed[row] = self._gains(hour * MS_PER_HOUR, np.array([row]))[0]
                    self._held[hour] = changed

    def _gains(self, time_ms: int, rows: IntArray | None = None) -> FloatArray:
        if not self._weights.any():
            return np.zeros(len(self._trends.catalog) if rows is None else len(rows), np.float32)
        gains: FloatArray = self._trends.popularity(time_ms, rows) @ self._weights
        return gains
