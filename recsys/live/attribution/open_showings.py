"""Showings as they happen: what each event of the log changes in what is counted.

`showings` makes them of a user's whole past. Who follows the log sees one event at a time, and asks
what it adds: an exposure is one more event of its video, and the view that names it adds no event
but what came of it. Of each user and video the last few showings are remembered, of all together
the newest `capacity`, so that memory does not grow with time; what happens is the same for everyone
who reads the same log from the same place.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from recsys.config.data import EventColumns
from recsys.live.attribution.outcomes import Outcome, outcome
from recsys.live.attribution.showings import Showing, is_open
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import EXPOSURE, Event

CAPACITY = 50_000
"""Users and videos whose showings are remembered; about 240 bytes each."""
AT_ONCE = 8
"""Showings of one user and video that are remembered."""


class Change(NamedTuple):
    """What an event adds to the counts of its video, in the hour of the showing it belongs to."""

    showing: Event
    """The event that the showing began with: its video, time and context."""
    events: int
    """1 for a showing that was not counted before, else 0."""
    flags: tuple[int, ...]
    """(1 + T,) what the positive flag and the tasks' labels gain; -1 for what was undone."""


class _Remembered(NamedTuple):
    """What can still be asked of a showing: there are many, so without its ids and the rest."""

    type: str
    time_ms: int | None
    impression_id: str | None
    context: Mapping[str, str]
    """Of the event that the showing began with, as all above."""
    positive: bool
    viewed: bool
    not_interested: bool
    labels: Mapping[str, bool]

    @classmethod
    def of(cls, showing: Showing) -> _Remembered:
        first = showing.first
        return cls(
            first.type,
            first.time_ms,
            first.impression_id,
            dict(first.context),
            showing.positive,
            showing.viewed,
            showing.not_interested,
            dict(showing.labels),
        )

    def showing(self, event: Event) -> Showing:
        """The showing again, of the user and the video of an event."""
        first = Event(
            event.user_id,
            self.type,
            event.video_id,
            time_ms=self.time_ms,
            context=self.context,
            impression_id=self.impression_id,
        )
        return Showing(
            first,
            positive=self.positive,
            viewed=self.viewed,
            not_interested=self.not_interested,
            labels=self.labels,
        )


class OpenShowings:
    """The newest showings of a log, in the order of commits."""

    def __init__(self, columns: EventColumns, *, capacity: int = CAPACITY) -> None:
        self._columns, self._capacity = columns, capacity
        self._open: OrderedDict[str, bytes] = OrderedDict()

    def __len__(self) -> int:
        """Users and videos that are remembered."""
        return len(self._open)

    def take(self, logged: LoggedEvent) -> Change | None:
        """What an event changes; None where it changes nothing that is counted."""
        event = logged.event
        if event.video_id is None:
            return None
        # One text, since a pair holds three objects; no id has a NUL character (`check_text`).
        key = f"{event.user_id}\0{event.video_id}"
        known = _unpacked(self._open.pop(key, None))
        place = _place(event, known)
        showing = Showing(event) if place is None else known[place].showing(event)
        before = None if place is None else outcome(showing, self._columns)
        showing.add(logged)
        last = len(known) if place is None else place
        known[last : last + 1] = [_Remembered.of(showing)]
        self._open[key] = _packed(known[-AT_ONCE:])
        if len(self._open) > self._capacity:
            self._open.popitem(last=False)
        return _change(showing.first, before, outcome(showing, self._columns))


def _packed(known: Sequence[_Remembered]) -> bytes:
    """In half of the memory, as one object that no collection of garbage looks into."""
    return marshal.dumps([tuple(one) for one in known])


def _unpacked(packed: bytes | None) -> list[_Remembered]:
    return [_Remembered(*one) for one in marshal.loads(packed)] if packed else []


def _place(event: Event, known: Sequence[_Remembered]) -> int | None:
    """Which of the remembered showings an event belongs to."""
    is_exposure = event.type == EXPOSURE
    if event.impression_id is not None:
        for place, remembered in enumerate(known):
            # Exposures are often sent later than what came of them: one showing all the same.
            if remembered.impression_id == event.impression_id and not (
                is_exposure and remembered.type == EXPOSURE
            ):
                return place
    if is_exposure:
        return None
    if known and is_open(known[-1].showing(event), event):
        return len(known) - 1
    return None


def _change(first: Event, before: Outcome | None, after: Outcome | None) -> Change | None:
    if after is None:
        # Once counted, a showing stays an event, whatever is taken back afterwards.
        after = before and Outcome(False, (False,) * len(before.labels))
    if after is None or after == before:
        return None
    old = (0,) * (1 + len(after.labels)) if before is None else (before.positive, *before.labels)
    new = (after.positive, *after.labels)
    flags = tuple(int(now) - int(then) for now, then in zip(new, old, strict=True))
    return Change(first, int(before is None), flags)
