"""What the log says was shown lately: click rates by version, and when each video first was.

Only the last part of a long log is read, so that looking costs the same however old the log is;
from then on only what came since.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.config.data import EventColumns
from recsys.live.attribution.open_showings import OpenShowings
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import EXPOSURE, Event
from recsys.live.log.events import EventLog
from recsys.live.versions.counted_log import CountedLog

ENTRIES = 200_000
"""Of the log, that are read at first; some seconds."""
SPAN_MS = 600_000
"""Length of a span whose impressions are counted together: ten minutes."""
SPANS = 288
"""That are kept: two days."""
MOST_VIDEOS = 100_000
"""Whose first showing is remembered; the oldest of them are forgotten."""
MOST_VERSIONS = 50
"""That are told apart: whoever sends events may name any."""


@dataclass
class Rates:
    """Impressions and clicks of one version, by the span in which the video was shown."""

    first_ms: int
    """Of its first impression that was counted."""
    spans: dict[int, list[int]] = field(default_factory=dict)
    """Begin of a span (Unix ms) → impressions, clicks."""

    def add(self, time_ms: int, *, impressions: int = 0, clicks: int = 0) -> None:
        """Takes an impression or a click of a video that was shown at a time."""
        self.first_ms = min(self.first_ms, time_ms)
        counts = self.spans.setdefault(time_ms - time_ms % SPAN_MS, [0, 0])
        counts[0] += impressions
        counts[1] += clicks
        if len(self.spans) > SPANS:
            del self.spans[min(self.spans)]


@dataclass
class _Counts:
    """What was counted up to a place in the log."""

    open: OpenShowings
    since_ms: int | None = None
    rates: dict[str, Rates] = field(default_factory=dict)
    first_shown: dict[str, int] = field(default_factory=dict)
    left_out: int = 0


class ShownFollower:
    """Counts what was shown, reading only what the log got since; one thread at a time.

    Args:
        log: With the events.
        columns: Of the run, which say what a click is: what makes a showing a positive one.
        entries: Of the log that are read at first.

    Raises:
        LogError: The log cannot be read.
    """

    def __init__(self, log: EventLog, columns: EventColumns, *, entries: int = ENTRIES) -> None:
        self._columns, self._entries = columns, entries
        self._log = CountedLog(log, self._begin, self._count)

    @property
    def since_ms(self) -> int | None:
        """When the oldest event that was counted was received; None without any."""
        return self._counts.since_ms

    @property
    def rates(self) -> dict[str, Rates]:
        """By version, as impression ids name it."""
        return self._counts.rates

    @property
    def left_out(self) -> int:
        """Impressions and clicks that name no version, or one more than are told apart."""
        return self._counts.left_out

    def first_shown_ms(self, video_id: str) -> int | None:
        """When a video was first shown, as far as was read; None if it was not."""
        return self._counts.first_shown.get(video_id)

    def catch_up(self) -> None:
        """Counts what the log holds now.

        Raises:
            LogError: The log cannot be read.
        """
        self._log.catch_up()

    @property
    def _counts(self) -> _Counts:
        return self._log.counts

    def _begin(self, latest_seq: int) -> tuple[_Counts, int]:
        return _Counts(OpenShowings(self._columns)), max(0, latest_seq - self._entries)

    def _count(self, logged: LoggedEvent) -> None:
        event, counts = logged.event, self._counts
        time_ms = _time(event)
        if counts.since_ms is None:
            counts.since_ms = logged.received_ms
        change = counts.open.take(logged)
        if event.type == EXPOSURE and event.video_id is not None:
            counts.first_shown.setdefault(event.video_id, time_ms)
            if len(counts.first_shown) > MOST_VIDEOS:
                del counts.first_shown[next(iter(counts.first_shown))]
            self._add(event.impression_id, time_ms, impressions=1)
        if change is not None and change.flags[0] and change.showing.type == EXPOSURE:
            showing = change.showing
            self._add(showing.impression_id, _time(showing), clicks=change.flags[0])

    def _add(self, impression_id: str | None, time_ms: int, **counted: int) -> None:
        version, _, _ = (impression_id or "").rpartition(".")
        rates = self._counts.rates
        if not version or (version not in rates and len(rates) >= MOST_VERSIONS):
            self._counts.left_out += 1
            return
        rates.setdefault(version, Rates(time_ms)).add(time_ms, **counted)


def _time(event: Event) -> int:
    """When an event of the log counts; those are complete."""
    assert event.time_ms is not None
    return event.time_ms
