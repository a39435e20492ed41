"""Follows the event log: what happened anywhere reaches this process's counts and users' states.

Before every batch of requests the follower reads what was committed since it last did, so that a
request sees every event that was acknowledged before it, on any replica. What it keeps follows from
the log alone: a process that starts now ends up with the same counts.

What was deleted cannot be taken off the counts: it is gone. So all is counted anew, aside and a
little with each look, for the log may hold what takes minutes; then those counts take the place of
the others. The states of who was forgotten go at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.data.ragged import IntArray
from recsys.features.counts import EventCounts
from recsys.features.hourly import hour_of
from recsys.live.attribution.open_showings import CAPACITY
from recsys.live.log.entries import Entry, Forgotten, LoggedEvent, Pruned, to_entry
from recsys.live.log.events import LARGEST_SEQ, PAGE, EventLog
from recsys.live.videos.live_videos import LiveVideos
from recsys.serve.counting import Counting
from recsys.serve.lists.parts import Parts

VIDEOS_A_PAGE = 1000
ANEW_S, ANEW_PAGE = 0.01, 200
"""How long each look goes on counting anew, and the entries that are read for it at a time."""


@dataclass
class Followed:
    """How far a follower is, for the metrics."""

    seq: int = 0
    """Place in the log up to which all is counted."""
    unknown_videos: int = 0
    """Changes of videos that the bundle does not hold; they wait for these, or the next bundle."""


@dataclass
class _Anew:
    """Counts that will take the place of those of now."""

    counts: EventCounts
    counting: Counting
    seq: int
    """Up to which all is counted."""


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
        self._counting: Counting | None = None
        self._anew: _Anew | None = None
        self._whole_to: int | None = None
        """Up to where the log had lost what was deleted before the newest counting began to read
        it; None where that has not begun."""
        self.followed = Followed(seq=parts.bundle.live_seq)

    @property
    def counts_anew(self) -> bool:
        """Whether counts are being made that will take the place of those of now."""
        return self._anew is not None

    def catch_up(self) -> None:
        """Reads all that was committed until now.

        Raises:
            LogError: The log cannot be read; what was read before stays.
        """
        counting = self._begun()
        self._follow_videos(counting)
        while True:
            rows = self._tail.rows(self.followed.seq, LARGEST_SEQ, PAGE)
            if rows:
                self._take([to_entry(row) for row in rows], counting)
            if len(rows) < PAGE:
                break
        self.followed.unknown_videos = counting.num_waiting
        if self._anew is not None:
            self._count_anew(self._anew)

    def _begun(self) -> Counting:
        """What counts; at first it is told of the showings that the bundle has counted."""
        if self._counting is None:
            self._whole_to = self._log.latest_seq()
            counting = Counting(self._parts, self._add)
            last = self._bundle.live_seq
            for entry in self._log.entries(self._first_open, last):
                if isinstance(entry, LoggedEvent):
                    counting.remember([entry])
            self._counting = counting
        return self._counting

    @property
    def _first_open(self) -> int:
        """The place in the log after which showings may still be answered by what comes."""
        return max(0, self._bundle.live_seq - CAPACITY)

    def _follow_videos(self, counting: Counting) -> None:
        """Takes the videos that came or changed; events that waited for one are counted."""
        while videos := self._video_tail.changed(self._video_seq, VIDEOS_A_PAGE):
            new = [video.video_id for video in videos if not self._row(video.video_id)]
            self._catalogue.take(videos)
            self._video_seq = videos[-1].seq
            came = [video_id for video_id in new if self._row(video_id)]
            if came and self._settle(came, counting):
                self._pasts.clear()

    def _settle(self, came: Sequence[str], counting: Counting) -> bool:
        """Counts what waited for videos, anew where not all was kept; False where nobody did."""
        named = [one for one in came if counting.was_named(one)]
        if not counting.settle(named):
            self._begin_anew()
        if self._anew is not None:
            of_anew = [one for one in came if self._anew.counting.was_named(one)]
            if not self._anew.counting.settle(of_anew):
                self._begin_anew()
        return bool(named)

    def _row(self, video_id: str) -> int:
        return self._catalogue.videos.row(video_id)

    def _take(self, entries: Sequence[Entry], counting: Counting) -> None:
        notices = [entry for entry in entries if isinstance(entry, (Forgotten, Pruned))]
        if notices:
            self._pasts.forget({n.mark: n.time_ms for n in notices if isinstance(n, Forgotten)})
            if self._whole_to is not None and notices[-1].seq > self._whole_to:
                self._begin_anew()
        events = [entry for entry in entries if isinstance(entry, LoggedEvent)]
        counting.count(events)
        self._pasts.changed({logged.event.user_id for logged in events})
        self.followed.seq = entries[-1].seq

    def _begin_anew(self) -> None:
        counts = self._bundle.counts.without_live()
        counting = Counting(self._parts, counts.count_many)
        self._anew, self._whole_to = _Anew(counts, counting, self._first_open), None

    def _count_anew(self, anew: _Anew) -> None:
        """Goes on for a while, and ends where what counts now is."""
        if self._whole_to is None:
            self._whole_to = self._log.latest_seq()
        ends, last = time.monotonic() + ANEW_S, self.followed.seq
        while anew.seq < last:
            rows = self._log.rows_after(anew.seq, ANEW_PAGE, up_to_seq=last)
            entries = [to_entry(row) for row in rows]
            events = [entry for entry in entries if isinstance(entry, LoggedEvent)]
            known = sum(logged.seq <= self._bundle.live_seq for logged in events)
            anew.counting.remember(events[:known])
            anew.counting.count(events[known:])
            anew.seq = entries[-1].seq if entries else last
            if anew.seq < last and time.monotonic() >= ends:
                return
        self._put_in_place(anew)

    def _put_in_place(self, anew: _Anew) -> None:
        self._parts.trending.take_live(anew.counts)
        self._parts.tasks.happened(np.zeros(1, np.int64))  # hours of all events, gone ones too
        self._pasts.clear()
        anew.counting.add = self._add
        self._counting, self._anew = anew.counting, None
        self.followed.unknown_videos = anew.counting.num_waiting

    def _add(
        self, rows: IntArray, context_rows: IntArray, times_ms: IntArray, counts: IntArray
    ) -> None:
        """Adds what happened to videos to all that is made of it."""
        self._parts.trending.count_many(rows, context_rows, times_ms, counts)
        self._parts.tasks.happened(hour_of(times_ms))
        self._parts.ages.happened(rows, times_ms)
