"""Showings as they happen: what each event of the log changes in what is counted.

`showings` makes them of a user's whole past. Who follows the log sees one event at a time, and asks
what it adds: an exposure is one more event of its video, and the view that names it adds no event
but what came of it. Of each user and video the last few showings are remembered, of all together
the newest `capacity`, so that memory does not grow with time; what happens is the same for everyone
who reads the same log from the same place.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

from recsys.config.data import EventColumns
from recsys.live.attribution.outcomes import Outcome, outcome
from recsys.live.attribution.showings import Showing, is_open
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import EXPOSURE, Event

CAPACITY = 50_000
"""Users and videos whose showings are remembered; about 600 bytes each."""
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


class OpenShowings:
    """The newest showings of a log, in the order of commits."""

    def __init__(self, columns: EventColumns, *, capacity: int = CAPACITY) -> None:
        self._columns, self._capacity = columns, capacity
        self._open: OrderedDict[tuple[str, str], list[Showing]] = OrderedDict()

    def __len__(self) -> int:
        """Users and videos that are remembered."""
        return len(self._open)

    def take(self, logged: LoggedEvent) -> Change | None:
        """What an event changes; None where it changes nothing that is counted."""
        event = logged.event
        if event.video_id is None:
            return None
        key = (event.user_id, event.video_id)
        known = self._open.pop(key, [])
        showing, before = self._of(event, known), None
        if showing is None:
            # Without what nobody asks for later: there are many of them.
            showing = Showing(replace(event, event_id=None, version=None, place=None))
            known.append(showing)
        else:
            before = outcome(showing, self._columns)
        showing.add(logged)
        self._open[key] = known[-AT_ONCE:]
        if len(self._open) > self._capacity:
            self._open.popitem(last=False)
        return _change(showing.first, before, outcome(showing, self._columns))

    def _of(self, event: Event, known: list[Showing]) -> Showing | None:
        """The remembered showing that an event belongs to."""
        if event.type == EXPOSURE:
            return None
        if event.impression_id is not None:
            for showing in known:
                if showing.first.impression_id == event.impression_id:
                    return showing
        return known[-1] if known and is_open(known[-1], event) else None


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
