"""What the events of a log, one after the other, change in the counts of a bundle's videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np

from recsys.data.ragged import IntArray
from recsys.live.attribution.open_showings import Change, OpenShowings
from recsys.live.log.entries import LoggedEvent
from recsys.schema import UNKNOWN_ROW
from recsys.serve.lists.parts import Parts
from recsys.serve.waiting import Counted, Waiting

Add = Callable[[IntArray, IntArray, IntArray, IntArray], None]
"""Takes video rows (n,), context rows (n, C), times (n,) and what is added (n, 2 + T)."""


class Counting:
    """Turns events into changes of counts; one thread at a time.

    Args:
        parts: Of the recommender.
        add: Is given what changes.
    """

    def __init__(self, parts: Parts, add: Add) -> None:
        self.add = add
        self._reader, self._catalogue = parts.reader, parts.catalogue
        self._open = OpenShowings(parts.bundle.config.data.columns)
        self._waiting = Waiting()
        self.num_waiting = 0
        """Changes of videos that are not known; they wait here or in the log."""
        self.whole_to: int | None = None
        """Place in the log up to which it had lost what was deleted when this began to read it;
        None before that."""
        self.is_off = False
        """Whether only the log can tell what is right: of what was counted some was deleted, or of
        what waited for a video not all was kept."""

    def remember(self, events: Iterable[LoggedEvent]) -> None:
        """Takes events that are counted already, of whose showings more may come."""
        for logged in events:
            self._open.take(logged)

    def count(self, events: Sequence[LoggedEvent]) -> None:
        """Counts events, in the order of the log."""
        known = []
        for logged in events:
            video_id = logged.event.video_id
            if video_id is None:
                continue
            change, row = self._open.take(logged), self._catalogue.videos.row(video_id)
            if row == UNKNOWN_ROW:
                self._waiting.name(video_id)
            if change is None:
                continue
            counted = self._counted(change)
            if row == UNKNOWN_ROW:
                self._waiting.put(video_id, counted)
                self.num_waiting += 1
            else:
                known.append((row, counted))
        self._add(known)

    def was_named(self, video_id: str) -> bool:
        """Whether an event may have named a video before it was known."""
        return self._waiting.was_named(video_id)

    def deleted(self, seq: int) -> None:
        """Takes note of a deletion that the log tells of at this place."""
        self.is_off |= self.whole_to is not None and seq > self.whole_to

    def settle(self, video_ids: Sequence[str]) -> None:
        """Counts what waited for videos."""
        rows = map(self._catalogue.videos.row, video_ids)
        changes = [(row, self._waiting.take(one)) for row, one in zip(rows, video_ids, strict=True)]
        kept = [[(row, one) for one in waited] for row, waited in changes if waited is not None]
        known = list(chain(*kept))
        self.num_waiting -= len(known)
        self._add(known)
        self.is_off |= len(kept) < len(changes)

    def _counted(self, change: Change) -> Counted:
        assert change.showing.time_ms is not None, "the log gives every event a time"
        context_rows = self._reader.context_rows(change.showing.context)
        return Counted(change.showing.time_ms, context_rows, (change.events, *change.flags))

    def _add(self, changes: Sequence[tuple[int, Counted]]) -> None:
        """Adds what happened to videos, by their rows, to all counts."""
        if not changes:
            return
        rows = np.array([row for row, _ in changes])
        times, contexts, counts = (
            np.array(values, np.int64).reshape(len(rows), -1)
            for values in zip(*(counted for _, counted in changes), strict=True)
        )
        self.add(rows, contexts, times[:, 0], counts)
