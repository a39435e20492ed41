"""Users' histories in a server's memory: those of the bundle, and what happened since.

Live events are kept by this process alone and are gone when it ends.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from recsys.data.ragged import FloatArray
from recsys.data.users import UserRows
from recsys.features.timelines import Timelines
from recsys.schema import TEST


@dataclass(frozen=True)
class Event:
    """One event in rows, as timelines hold it."""

    video_row: int
    time_ms: int
    count_features: FloatArray
    """(F,) what was known of the video's counts then."""
    positive: bool = True
    labels: tuple[int, ...] = ()
    """(T,) 0 or 1 a ranking task."""
    watched: tuple[float, ...] = ()
    """(W,)."""
    context_rows: tuple[int, ...] = ()
    """(C,)."""


class HistoryStore:
    """Each user's last `longest` events; any thread may read or append.

    A user's timeline is never changed, only replaced, so that a reader needs no lock.
    """

    def __init__(
        self, histories: Timelines, *, longest: int, users: UserRows | None = None
    ) -> None:
        self._histories = histories
        self._users = users
        self._longest = longest
        self._place = {user_id: i for i, user_id in enumerate(histories.user_ids)}
        self._live: dict[str, Timelines] = {}
        self._lock = threading.Lock()

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._live or user_id in self._place

    def __len__(self) -> int:
        """Number of known users."""
        return len(self._place) + sum(user_id not in self._place for user_id in list(self._live))

    def user_ids(self, limit: int) -> list[str]:
        """Some known users, those of the bundle first."""
        live = (user_id for user_id in list(self._live) if user_id not in self._place)
        return [*islice(self._place, limit), *live][:limit]

    def timeline(self, user_id: str) -> Timelines:
        """One user's events in time order; none for an unknown user."""
        live = self._live.get(user_id)
        if live is not None:
            return live
        place = self._place.get(user_id)
        if place is None:
            return self._cut(user_id, 0, 0)
        start, stop = self._histories.offsets[place : place + 2].tolist()
        return self._cut(user_id, max(start, stop - self._longest), stop)

    def _cut(self, user_id: str, start: int, stop: int) -> Timelines:
        timeline = cut(self._histories, start, stop, user_id=user_id)
        if self._users is None:
            return timeline
        return replace(timeline, user_rows=self._users.one(user_id)[None])

    def append(self, user_id: str, event: Event) -> int:
        """Adds an event where its time belongs and returns how many the user has now."""
        with self._lock:
            grown = insert(self.timeline(user_id), event)
            length = int(grown.offsets[-1])
            kept = cut(grown, max(0, length - self._longest), length, user_id=user_id)
            self._live[user_id] = replace(kept, user_rows=grown.user_rows)
        return min(length, self._longest)


def cut(timelines: Timelines, start: int, stop: int, *, user_id: str) -> Timelines:
    """The events [start, stop) as the timeline of one user of whom nothing else is known.

    Arrays are views.
    """
    return Timelines(
        user_ids=[user_id],
        offsets=np.array([0, stop - start], np.int64),
        video_rows=timelines.video_rows[start:stop],
        time_ms=timelines.time_ms[start:stop],
        positive=timelines.positive[start:stop],
        labels=timelines.labels[start:stop],
        watched=timelines.watched[start:stop],
        context_rows=timelines.context_rows[start:stop],
        split=timelines.split[start:stop],
        count_features=timelines.count_features[start:stop],
        user_rows=np.zeros((1, 0), np.int64),
    )


def insert(timeline: Timelines, event: Event) -> Timelines:
    """One user's timeline with an event after all that are not later."""
    at = int(np.searchsorted(timeline.time_ms, event.time_ms, side="right"))
    labels = np.asarray(event.labels, np.int8).reshape(1, timeline.labels.shape[1])
    watched = np.asarray(event.watched, np.float32).reshape(1, timeline.watched.shape[1])
    context = np.asarray(event.context_rows, np.int64).reshape(1, timeline.context_rows.shape[1])
    return replace(
        timeline,
        offsets=timeline.offsets + np.array([0, 1]),
        video_rows=np.insert(timeline.video_rows, at, event.video_row),
        time_ms=np.insert(timeline.time_ms, at, event.time_ms),
        positive=np.insert(timeline.positive, at, event.positive),
        labels=np.insert(timeline.labels, at, labels, axis=0),
        watched=np.insert(timeline.watched, at, watched, axis=0),
        context_rows=np.insert(timeline.context_rows, at, context, axis=0),
        split=np.insert(timeline.split, at, TEST),
        count_features=np.insert(timeline.count_features, at, event.count_features, axis=0),
    )


def before(timeline: Timelines, time_ms: int) -> Timelines:
    """The events of one user's timeline that are strictly earlier."""
    stop = int(np.searchsorted(timeline.time_ms, time_ms, side="left"))
    earlier = cut(timeline, 0, stop, user_id=timeline.user_ids[0])
    return replace(earlier, user_rows=timeline.user_rows)
