"""What is trending now: what the counts of the last hours add to every video's score.

Shapes: N videos.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np

from recsys.data.growing import Growing
from recsys.data.ragged import FloatArray
from recsys.features.counts import EventCounts, trending
from recsys.features.hourly import hour_of
from recsys.model.recommender import Recommender

HELD_HOURS = 4
POPULAR_MS = 60_000
"""How long a list of what is popular is held; events of the hour itself change it all the time."""


@dataclass
class _Held:
    """The gains of an hour."""

    changes: int
    """After so many changes of the counts they were right."""
    version: int
    """Of the counts of the hours before."""
    gains: Growing[np.float32]
    """(N,)."""


class Trending:
    """The gains of all videos, held for the hours that were asked for last.

    Counts are of finished hours: within one, all requests see the same gains, but for events that
    come late, which wait for `follow`. Any thread may call it; an array that was given away never
    changes.
    """

    def __init__(self, model: Recommender, counts: EventCounts) -> None:
        self._weight, self._counts = float(model.trending), counts
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._changes = 0
        """How often live events that were counted or dropped were followed."""
        self._popular: tuple[int, Growing[np.float32]] | None = None

    def at(self, time_ms: int) -> FloatArray:
        """What is added to the scores of all videos (N,) at a time."""
        hour = int(hour_of(time_ms))
        with self._lock:
            held = self._held.pop(hour, None)
            if held is None or held.changes != self._changes:
                held = self._look(time_ms, hour, held)
            self._held[hour] = held
            if len(self._held) > HELD_HOURS:
                del self._held[next(iter(self._held))]
            return self._with_new(held.gains)

    def _look(self, time_ms: int, hour: int, held: _Held | None) -> _Held:
        """The gains of an hour, made anew where what was counted says something else of it."""
        # Read first: what is counted meanwhile is looked at again by the next request.
        changes, version = self._changes, self._counts.version(hour)
        if held is None or held.version != version:
            gains = self._weight * trending(self._counts.shown(time_ms))
            return _Held(changes, version, Growing(gains))
        return replace(held, changes=changes)

    def popular(self, time_ms: int) -> FloatArray:
        """How popular all videos (N,) are: `EventCounts.positives`, at most a minute old."""
        minute = time_ms // POPULAR_MS
        with self._lock:
            if self._popular is None or self._popular[0] != minute:
                self._popular = minute, Growing(self._counts.positives(time_ms))
            return self._with_new(self._popular[1])

    def _with_new(self, values: Growing[np.float32]) -> FloatArray:
        """Values of all videos of now: what was never shown neither trends nor pleases."""
        values.reach(self._counts.num_videos)
        return values.now

    def follow(self) -> None:
        """Live events were counted: the next request looks whether they change the hours held."""
        self._changes += 1

    def take_live(self, counted: EventCounts) -> None:
        """Has live events that were counted anew in place of those of before."""
        self._counts.take_live(counted)
        with self._lock:
            self._changes += 1
            self._held.clear()
            self._popular = None
