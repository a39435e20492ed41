"""Follows the event log: what happened anywhere reaches this process's counts and users' states.

Before every batch of requests the follower reads what was committed since it last did, so that a
request sees every event that was acknowledged before it, on any replica. What it keeps follows from
the log alone: a process that starts now ends up with the same counts.

What was deleted cannot be taken off the counts: it is gone. So all is counted anew, aside and a
little with each look, for the log may hold what takes minutes; then those counts take the place of
the others. Where more was deleted meanwhile, which they may have read, the next ones are begun
then. So nothing that was deleted stays for longer than two such passes, however often something is.
The states of who was forgotten go at once.

An event of an hour that is over, which comes late or says what came of a showing of before, is in
what is known of its video at once. It changes a little of every other video too, which is much to
make anew: that follows once in a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

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
FOLLOWED_EVERY_S = 5.0
"""How long it takes at most until what is made of all counts follows events of hours that are over:
what trends, and what all videos have in common."""


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
        self._is_ahead, self._followed_s = False, -math.inf
        """Whether more was counted than what is made of all counts follows, and when that did."""
        self.followed = Followed(seq=parts.bundle.live_seq)

    @property
    def counts_anew(self) -> bool:
        """Whether counts are being made that will take the place of those of now."""
        return self._counting is not None and self._counting.is_off

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
        if self._is_ahead and time.monotonic() - self._followed_s >= FOLLOWED_EVERY_S:
            self._parts.trending.follow()
            self._parts.tasks.follow()
            self._is_ahead, self._followed_s = False, time.monotonic()
        if counting.is_off:
            if self._anew is None:
                self._begin_anew()
            self._count_anew()

    def _begun(self) -> Counting:
        """What counts; at first it is told of the showings that the bundle has counted."""
        if self._counting is None:
            counting = Counting(self._parts, self._add)
            counting.whole_to = self._log.latest_seq()
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
        """Counts what waited for videos; False where nobody did."""
        for one in self._countings:
            one.settle([video_id for video_id in came if one.was_named(video_id)])
        return any(map(counting.was_named, came))

    @property
    def _countings(self) -> list[Counting]:
        """Those of the counts of now, and of those that will take their place."""
        both = self._counting, None if self._anew is None else self._anew.counting
        return [one for one in both if one is not None]

    def _row(self, video_id: str) -> int:
        return self._catalogue.videos.row(video_id)

    def _take(self, entries: Sequence[Entry], counting: Counting) -> None:
        notices = [entry for entry in entries if isinstance(entry, (Forgotten, Pruned))]
        if notices:
            self._deleted(notices)
        events = [entry for entry in entries if isinstance(entry, LoggedEvent)]
        counting.count(events)
        self._pasts.changed({logged.event.user_id for logged in events})
        self.followed.seq = entries[-1].seq

    def _deleted(self, notices: Sequence[Forgotten | Pruned]) -> None:
        self._pasts.forget({n.mark: n.time_ms for n in notices if isinstance(n, Forgotten)})
        if any(isinstance(notice, Pruned) for notice in notices):  # of whom, nobody says
            self._pasts.clear()
        for counting in self._countings:
            counting.deleted(notices[-1].seq)

    def _begin_anew(self) -> None:
        counts = self._bundle.counts.without_live()
        counting = Counting(self._parts, counts.count_many)
        self._anew = _Anew(counts, counting, self._first_open)

    def _count_anew(self) -> None:
        """Goes on for a while, and ends where what counts now is."""
        anew = self._anew
        assert anew is not None, "it was begun"
        if anew.counting.whole_to is None:
            anew.counting.whole_to = self._log.latest_seq()
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
        self._parts.tasks.clear()
        self._pasts.clear()
        anew.counting.add = self._add
        self._counting, self._anew = anew.counting, None
        self.followed.unknown_videos = anew.counting.num_waiting

    def _add(
        self, rows: IntArray, context_rows: IntArray, times_ms: IntArray, counts: IntArray
    ) -> None:
        """Adds what happened to videos to all that is made of it."""
        self._bundle.counts.count_many(rows, context_rows, times_ms, counts)
        self._parts.tasks.happened(rows, hour_of(times_ms))
        self._parts.ages.happened(rows, times_ms)
        self._is_ahead = True
