"""Follows the event log: what happened anywhere reaches this process's counts and users' states.

Before every batch of requests the follower reads what was committed since it last did, so that a
request sees every event that was acknowledged before it, on any replica. What it keeps follows from
the log alone: a process that starts now ends up with the same counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.features.hourly import hour_of
from recsys.live.attribution.open_showings import Change, OpenShowings
from recsys.live.log.entries import Entry, Forgotten, LoggedEvent, Pruned, to_entry
from recsys.live.log.events import LARGEST_SEQ, PAGE, EventLog
from recsys.live.store.database import READ_LIMIT_S
from recsys.live.videos.live_videos import LiveVideos
from recsys.schema import UNKNOWN_ROW
from recsys.serve.lists.parts import Parts

VIDEOS_A_PAGE = 1000
BITS = 1 << 23
"""Of what is remembered of the ids that no video has yet."""


class NamedIds:
    """Ids of which it is known whether they may have been named; in a mebibyte, however many.

    A Bloom filter: none that was added is missed, and of those that were not, two in a hundred
    are taken for one after a million (Bloom 1970, "Space/time trade-offs in hash coding").
    """

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, name: str) -> None:
        """Remembers an id."""
        for place in _places(name):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, name: str) -> bool:
        """Whether an id may have been added."""
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(name))


def _places(name: str) -> Iterator[int]:
    """Four of the bits, each four bytes of a digest."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return (place % BITS for (place,) in struct.iter_unpack("<I", digest))


@dataclass
class Followed:
    """How far a follower is, for the metrics."""

    seq: int = 0
    """Place in the log up to which all is counted."""
    received_ms: int = 0
    """When the server had received the newest event that was read."""
    events: int = 0
    unknown_videos: int = 0
    """Events of videos that the bundle does not hold; they wait in the log for the next one."""


class Follower:
    """Keeps counts and states up to date; one thread at a time.

    Args:
        parts: Of the recommender; the log's events after `bundle.live_seq` join its counts.
        log: What is followed.
    """

    def __init__(self, parts: Parts, log: EventLog) -> None:
        self._parts, self._log, self._tail = parts, log, log.tail()
        self._bundle, self._pasts = parts.bundle, parts.pasts
        self._catalogue, self._videos = parts.catalogue, LiveVideos(log.database)
        self._video_tail = self._videos.tail(parts.bundle.version)
        self._video_seq = 0
        self._unknown_ids = NamedIds()
        self._open = OpenShowings(parts.bundle.config.data.columns)
        self.followed = Followed(seq=parts.bundle.live_seq)

    def catch_up(self, *, on_page: Callable[[int], None] | None = None) -> None:
        """Reads all that was committed until now.

        Args:
            on_page: Called with the place in the log after each page.

        Raises:
            LogError: The log cannot be read; what was read before stays.
        """
        self._follow_videos()
        while True:
            rows = self._tail.rows(self.followed.seq, LARGEST_SEQ, PAGE)
            entries = [to_entry(row) for row in rows]
            if entries:
                self._take(entries)
            if len(entries) < PAGE:
                return
            if on_page is not None:
                on_page(self.followed.seq)

    def _follow_videos(self) -> None:
        """Takes the videos that came or changed; events that waited for one are counted."""
        while videos := self._video_tail.changed(self._video_seq, VIDEOS_A_PAGE):
            self._catalogue.take(videos)
            self._video_seq = videos[-1].seq
            waited = [v.video_id for v in videos if v.video_id in self._unknown_ids]
            if any(self._catalogue.videos.row(video_id) for video_id in waited):
                self._recount()
                self._pasts.clear()

    def _take(self, entries: Sequence[Entry]) -> None:
        if any(isinstance(entry, (Forgotten, Pruned)) for entry in entries):
            # What was deleted cannot be taken off one by one: it is gone. All is counted anew.
            self._recount()
            return
        self._count([entry for entry in entries if isinstance(entry, LoggedEvent)])
        self.followed.seq = entries[-1].seq

    def _recount(self) -> None:
        """Counts the whole log from the beginning, with all deletions up to its end."""
        self._parts.trending.forget_live()
        self._open = OpenShowings(self._bundle.config.data.columns)
        self.followed.seq = self._bundle.live_seq
        self._unknown_ids = NamedIds()
        last = self._log.latest_seq()
        events: list[LoggedEvent] = []
        marks: dict[str, int] = {}
        for entry in self._log.entries(self._bundle.live_seq, last, limit_s=READ_LIMIT_S):
            if isinstance(entry, LoggedEvent):
                events.append(entry)
            elif isinstance(entry, Forgotten):
                marks[entry.mark] = entry.time_ms
            if len(events) == PAGE:
                self._count(events)
                events = []
        self._count(events)
        self._pasts.forget(marks)
        self.followed.seq = last

    def _count(self, events: Sequence[LoggedEvent]) -> None:
        changes, rows = [], []
        for logged in events:
            change = self._open.take(logged)
            if change is not None:
                changes.append(change)
                rows.append(self._catalogue.videos.row(str(change.showing.video_id)))
                if rows[-1] == UNKNOWN_ROW:
                    self._unknown_ids.add(str(change.showing.video_id))
        self._pasts.changed({logged.event.user_id for logged in events})
        if events:
            self.followed.events += len(events)
            self.followed.received_ms = events[-1].received_ms
        known = [place for place, row in enumerate(rows) if row != UNKNOWN_ROW]
        self.followed.unknown_videos += len(rows) - len(known)
        if known:
            self._add(
                np.array([rows[place] for place in known]), [changes[place] for place in known]
            )

    def _add(self, rows: np.ndarray, changes: Sequence[Change]) -> None:
        times = np.array([change.showing.time_ms for change in changes], np.int64)
        contexts = [self._parts.reader.context_rows(change.showing.context) for change in changes]
        counts = np.array([(change.events, *change.flags) for change in changes], np.int64)
        context_rows = np.array(contexts, np.int64).reshape(len(rows), -1)
        self._parts.trending.count_many(rows, context_rows, times, counts)
        self._parts.tasks.happened(hour_of(times))
        self._parts.ages.happened(rows, times)
