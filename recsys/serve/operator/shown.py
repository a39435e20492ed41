"""What was shown lately, by the event log: click rates, and what became of new videos."""

from __future__ import annotations

import threading

from pydantic.dataclasses import dataclass

from recsys.config.data import EventColumns
from recsys.live.log.events import EventLog
from recsys.live.versions.shown import SPAN_MS, Rates, ShownFollower
from recsys.live.videos.live_videos import LiveVideo, LiveVideos, State
from recsys.serve.http.messages import Described

NEWEST = 50
"""Videos that came live of which is told."""


@dataclass(config=Described)
class Span:
    """What was shown in a span of time."""

    begin_ms: int
    impressions: int
    clicks: int
    """Impressions of the span that were liked, now or later, as `data.columns.positive` says."""


@dataclass(config=Described)
class VersionShown:
    """The impressions of one version."""

    version: str
    first_ms: int
    """Of its first impression among those that were counted: about when it took over."""
    spans: list[Span]


@dataclass(config=Described)
class NewVideo:
    """How far a video is that came live."""

    video_id: str
    state: State
    reason: str | None
    """Why it was refused, in a word."""
    received_ms: int | None
    decoded_ms: int | None
    indexed_ms: int | None
    first_shown_ms: int | None
    """When a viewer first saw it; null until then, and if that was before `since_ms`."""


@dataclass(config=Described)
class ShownResponse:
    """The answer of /v1/operator/shown; the same at every replica, for the log is one."""

    since_ms: int | None
    """From when on events are counted: of a long log only the newest are read."""
    span_ms: int
    versions: list[VersionShown]
    """In the order of their first impressions."""
    left_out: int
    """Impressions and clicks without an impression id, or of more versions than are told apart."""
    new_videos: list[NewVideo]
    """The newest first."""


class ShownLately:
    """Follows the log for those who look, from the first of them on; any thread may ask."""

    def __init__(self, log: EventLog, columns: EventColumns) -> None:
        self._log, self._columns = log, columns
        self._videos = LiveVideos(log.database)
        self._lock = threading.Lock()
        self._follower: ShownFollower | None = None

    def response(self) -> ShownResponse:
        """What was shown until now.

        Raises:
            LogError: The log cannot be read.
        """
        with self._lock:
            if self._follower is None:
                self._follower = ShownFollower(self._log, self._columns)
            follower = self._follower
            follower.catch_up()
            rates = sorted(follower.rates.items(), key=lambda one: one[1].first_ms)
            return ShownResponse(
                since_ms=follower.since_ms,
                span_ms=SPAN_MS,
                versions=[_version(version, one) for version, one in rates],
                left_out=follower.left_out,
                new_videos=[_new_video(one, follower) for one in self._videos.newest(NEWEST)],
            )


def _version(version: str, rates: Rates) -> VersionShown:
    spans = [Span(begin_ms, *counts) for begin_ms, counts in sorted(rates.spans.items())]
    return VersionShown(version, rates.first_ms, spans)


def _new_video(video: LiveVideo, follower: ShownFollower) -> NewVideo:
    return NewVideo(
        video_id=video.video_id,
        state=video.state,
        reason=video.reason,
        received_ms=video.received_ms,
        decoded_ms=video.decoded_ms,
        indexed_ms=video.indexed_ms,
        first_shown_ms=follower.first_shown_ms(video.video_id),
    )
