"""The log as training data: one row a showing of a video, with what came of it.

A log has the exposure, the view and the like as three events. A model learns from one row: this
video was shown to this user then, was watched so long, and was liked. Three rows would teach it
that a liked video was also shown and not liked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import DAY_MS, EXPOSURE, NOT_INTERESTED, VIEW, Event

WITHIN_MS = DAY_MS
"""How long after a showing an event that does not name its impression still counts as its."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Showing:
    """A video shown to a user once, and what came of it."""

    first: Event
    """The exposure, or what stands for it where none was logged."""
    last_seq: int = 0
    """Of the newest event that belongs to it."""
    positive: bool = False
    viewed: bool = False
    not_interested: bool = False
    watched: float | None = None
    """The longest that was told of."""
    labels: Mapping[str, bool] = field(default_factory=lambda: NOTHING)
    """Of each task what was said of it last."""
    context: Mapping[str, str] = field(default_factory=lambda: NOTHING)

    def add(self, logged: LoggedEvent) -> None:
        """Takes what an event says; events come in the order of their times."""
        event = logged.event
        self.last_seq = max(self.last_seq, logged.seq)
        self.viewed |= event.type == VIEW
        self.not_interested |= event.type == NOT_INTERESTED
        self.positive = (self.positive or bool(event.positive)) and not self.not_interested
        if event.watched is not None:
            self.watched = max(event.watched, self.watched or 0.0)
        # What says nothing new is not copied: the log's events share their labels and contexts.
        if event.labels:
            self.labels = {**self.labels, **event.labels} if self.labels else event.labels
        if event.context:
            self.context = {**event.context, **self.context} if self.context else event.context


def showings(events: Sequence[LoggedEvent]) -> list[Showing]:
    """One user's showings, in the order of their times.

    An event belongs to the exposure of its video whose impression it names; else to the last
    showing of its video, if that is at most `WITHIN_MS` older and, for a view, was not viewed yet;
    else it stands for a showing of its own. Events without a video are left out.

    Args:
        events: All of one user, in the order of their times.
    """
    of_videos = [logged for logged in events if logged.event.video_id is not None]
    exposures = [Showing(one.event) for one in of_videos if one.event.type == EXPOSURE]
    # An exposure may be later than the view that names it, where clocks differ.
    named = {(s.first.impression_id, s.first.video_id): s for s in reversed(exposures)}
    made: list[Showing] = []
    last: dict[str | None, Showing] = {}
    waiting = iter(exposures)
    for logged in of_videos:
        event = logged.event
        showing: Showing | None
        if event.type == EXPOSURE:
            showing = next(waiting)
        else:
            key = (event.impression_id, event.video_id)
            showing = named.get(key) if event.impression_id is not None else None
            latest = last.get(event.video_id)
            if showing is None and latest is not None and is_open(latest, event):
                showing = latest
        if showing is None or event.type == EXPOSURE:
            showing = showing or Showing(event)
            last[event.video_id] = showing
            made.append(showing)
        showing.add(logged)
    return made


def is_open(showing: Showing, event: Event) -> bool:
    """Whether an event of its video that does not name a showing can belong to this one."""
    if event.type == VIEW and showing.viewed:
        return False
    return _time(event) - _time(showing.first) <= WITHIN_MS


def _time(event: Event) -> int:
    return event.time_ms or 0
