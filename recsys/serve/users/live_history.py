"""What the log says of users: the showings that a bundle does not know, and what they refuse.

Shapes: n showings, L events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.bundle.contents import Bundle
from recsys.data.ragged import IntArray
from recsys.features.timelines import Timelines, share_watched
from recsys.live.attribution.outcomes import Outcome, outcome
from recsys.live.attribution.showings import Showing, showings
from recsys.live.log.entries import LoggedEvent, user_mark
from recsys.live.log.event import HIDE_CREATOR, NOT_INTERESTED
from recsys.live.log.events import EventLog
from recsys.schema import TEST, UNKNOWN_ROW
from recsys.serve.retrieve.catalogue import Catalogue
from recsys.serve.users.one_user import merge

NOBODY = np.zeros((1, 0), np.int64)


NONE_HIDDEN: frozenset[str] = frozenset()
"""One for all who hid no creator."""


@dataclass(frozen=True)
class LiveHistory:
    """What the log says of one user."""

    timeline: Timelines
    """Showings that the bundle does not know, or not all of."""
    refused: IntArray
    """Sorted rows of the videos that they are not interested in."""
    hidden_creators: frozenset[str]
    """The creators that they hid, whose videos they do not want either."""
    has_events: bool
    forgotten_ms: int = -1
    """Up to when their data were deleted, in the bundle's histories too; -1 if never."""

    def merged_into(self, known: Timelines) -> Timelines:
        """The bundle's timeline of the user with what has happened since."""
        return merge(known, self.timeline)


class LiveReader:
    """Reads users' events out of the log, in the rows of one bundle."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue, log: EventLog | None) -> None:
        self._bundle, self._catalogue, self._log = bundle, catalogue, log
        self._columns = bundle.config.data.columns
        self._after = bundle.live_seq
        self._contexts = [bundle.vocabs[f"context_{name}"] for name in self._columns.context]
        self._videos = catalogue.videos
        self._forgotten = {} if log is None else log.forgotten_marks()

    def forgotten_ms(self, user_id: str) -> int:
        """Up to when a user's data were deleted; -1 if never."""
        return self._forgotten.get(user_mark(user_id), -1) if self._forgotten else -1

    def forget(self, marks: Mapping[str, int]) -> None:
        """These users had all their data deleted, up to a time each."""
        for mark, time_ms in marks.items():
            self._forgotten[mark] = max(time_ms, self._forgotten.get(mark, -1))

    def read(self, user_ids: Sequence[str], *, ask_log: bool = True) -> list[LiveHistory]:
        """What the log says of users: a query or two, and one look at the counts, for all of them.

        Args:
            user_ids: Known or not.
            ask_log: Without it the log has said nothing but whose data were deleted.

        Raises:
            LogError: The log cannot be read.
        """
        asked = self._log if ask_log else None
        events = {} if asked is None else asked.since(set(user_ids), self._after)
        kept = [self._rows(events.get(user_id, ())) for user_id in user_ids]
        timelines = self._timelines(user_ids, kept)
        return [
            LiveHistory(
                timeline=timeline,
                refused=self._refused(events.get(user_id, ())),
                hidden_creators=self._hidden(events.get(user_id, ())),
                has_events=user_id in events,
                forgotten_ms=self.forgotten_ms(user_id),
            )
            for user_id, timeline in zip(user_ids, timelines, strict=True)
        ]

    def context_rows(self, context: Mapping[str, str]) -> tuple[int, ...]:
        """(C,) rows of the values of context columns; a missing one is unknown."""
        return tuple(
            vocab.row(context[name]) if name in context else UNKNOWN_ROW
            for name, vocab in zip(self._columns.context, self._contexts, strict=True)
        )

    def _rows(self, events: Sequence[LoggedEvent]) -> list[tuple[int, Showing, Outcome]]:
        """Video rows, showings and outcomes of what the bundle does not know."""
        rows = []
        for showing in showings(events):
            row = self._videos.row(str(showing.first.video_id))
            came_of_it = outcome(showing, self._columns)
            if showing.last_seq > self._after and row != UNKNOWN_ROW and came_of_it is not None:
                rows.append((row, showing, came_of_it))
        return rows

    def _timelines(
        self, user_ids: Sequence[str], kept: Sequence[Sequence[tuple[int, Showing, Outcome]]]
    ) -> Iterable[Timelines]:
        rows = np.array([row for one in kept for row, _, _ in one], np.int64)
        shown = [showing for one in kept for _, showing, _ in one]
        came = [came_of_it for one in kept for _, _, came_of_it in one]
        num, columns = len(rows), self._columns
        time_ms = np.array([showing.first.time_ms for showing in shown], np.int64)
        contexts = [self.context_rows(showing.context) for showing in shown]
        context_rows = np.array(contexts, np.int64).reshape(num, len(columns.context))
        watched = np.zeros((num, columns.watch_dim), np.float32)
        if columns.watch_dim:
            watched[:, 0] = [showing.watched or 0.0 for showing in shown]
            watched[:, 1] = share_watched(watched[:, 0], self._catalogue.durations(rows))
        labels = np.array([one.labels for one in came], np.int8).reshape(num, len(columns.tasks))
        positive = np.array([one.positive for one in came], np.int8)
        features = self._bundle.counts.features(rows, context_rows, time_ms)
        ends = np.cumsum([0, *map(len, kept)]).tolist()
        for user_id, start, stop in zip(user_ids, ends[:-1], ends[1:], strict=True):
            yield Timelines(
                user_ids=[user_id],
                offsets=np.array([0, stop - start], np.int64),
                video_rows=rows[start:stop],
                time_ms=time_ms[start:stop],
                positive=positive[start:stop],
                labels=labels[start:stop],
                watched=watched[start:stop],
                context_rows=context_rows[start:stop],
                split=np.full(stop - start, TEST, np.int8),
                count_features=features[start:stop],
                user_rows=NOBODY,
            )

    def _refused(self, events: Sequence[LoggedEvent]) -> IntArray:
        rows = [
            self._videos.row(str(logged.event.video_id))
            for logged in events
            if logged.event.type == NOT_INTERESTED
        ]
        return np.unique(np.array(rows, np.int64))

    def _hidden(self, events: Sequence[LoggedEvent]) -> frozenset[str]:
        hidden = [event for event in events if event.event.type == HIDE_CREATOR]
        return frozenset(str(event.event.creator_id) for event in hidden) if hidden else NONE_HIDDEN
