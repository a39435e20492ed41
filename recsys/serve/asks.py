"""What a recommender is asked, and what it answers; the messages of HTTP are made of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from recsys.serve.lists.propensities import Tried

Kind = Literal["resembles", "creator", "popular", "explore", "personal", "newcomer", "latest"]
"""Why a video is in a list. `resembles`: like videos that the user liked. `creator`: new, from a
creator of videos that they liked. `popular`: popular now; without that it would not be there, or
nothing is known of the user. `explore`: a new video that is tried out. `personal`: what the model
makes of all they did. `newcomer`: what it finds for whoever nothing is known of. `latest`: in
place of all that, one that was first shown lately."""

DegradedKind = Literal["stale", "popular", "latest"]
"""What an answer is where it is not all it might be. `stale`: made without the newest events.
`popular`, `latest`: the list for everybody in place of the user's own."""
Cause = Literal["log", "late", "failed"]
"""Why. `log`: the event log cannot be read. `late`: the model did not answer in `serve.budget_ms`.
`failed`: the model failed at it."""


@dataclass(frozen=True)
class Filters:
    """What a list may hold; every filter that is given must hold of a video.

    A filter that names nothing lets nothing through; None is no filter.
    """

    categories: tuple[str, ...] | None = None
    """Any of them, as the catalogue names them (`tag=music`)."""
    creators: tuple[str, ...] | None = None
    """Any of them."""
    min_duration: float | None = None
    """In the catalogue's unit; a video of unknown length passes no limit."""
    max_duration: float | None = None
    max_age_days: float | None = None
    """Since the video's first event; one that was never shown is new."""
    video_ids: tuple[str, ...] | None = None
    """Only these videos."""


NO_FILTERS = Filters()


@dataclass(frozen=True)
class Ask:
    """A request for recommendations, or for the scores of given videos."""

    user_id: str
    """Known or not."""
    k: int = 10
    """How many recommendations; at most `serve.max_k`."""
    video_ids: tuple[str, ...] | None = None
    """The videos to score, at most `serve.max_videos`; None asks for recommendations."""
    now_ms: int | None = None
    """When the request is made (Unix, UTC); later events are not used. Without it now, and all that
    was acknowledged is used."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Values of the context columns; a missing one counts as unknown."""
    user: Mapping[str, str] = field(default_factory=dict)
    """Values of the user features, in place of those that the bundle knows."""
    exclude_seen: bool = True
    """Leave out videos that the user has ever had a positive event with."""
    exclude: tuple[str, ...] = ()
    """Videos to leave out."""
    filters: Filters = NO_FILTERS
    cursor: str | None = None
    """Of the page before: its videos and those before them do not come again."""


FAILED = "the model failed at this request; the server's log has the reason"
"""What a caller is told where nothing stands in for an answer that failed."""


class NoAnswer(RuntimeError):
    """A request that is right cannot be answered now; the message is for its caller."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Degraded:
    """That an answer is not all it might be, and why."""

    kind: DegradedKind
    cause: Cause
    detail: str
    """In words, with what the answer may not obey."""

    @property
    def tree(self) -> dict[str, object]:
        """What a message says of it."""
        return {"kind": self.kind, "cause": self.cause, "detail": self.detail}


class Reason(NamedTuple):
    """Why a video is in a list."""

    kind: Kind
    video_ids: tuple[str, ...] = ()
    """The videos that it resembles, the nearest first."""
    creator_id: str | None = None

    @property
    def tree(self) -> dict[str, object]:
        """The reason as a message has it."""
        return {"kind": self.kind, "video_ids": self.video_ids, "creator_id": self.creator_id}


class ScoredVideo(NamedTuple):
    """A video and what the model thinks of it for one request.

    A tuple, as a reason is: thousands are made a second, and frozen objects take twice as
    long to make.
    """

    video_id: str
    score: float
    """Dot product of the user's query and the video's vector, more or less if seen before, and
    more or less by what is trending."""
    probabilities: Mapping[str, float]
    """Of each ranking task."""
    reason: Reason | None = None
    """None where the caller chose the video."""


@dataclass(frozen=True)
class Answer:
    """What a request for recommendations or scores gives."""

    version: str
    """Of the bundle that it was made from, all of it."""
    user_id: str
    known_user: bool
    """False for a user without any event here; the answer is then the one for everybody."""
    now_ms: int
    num_history: int
    """Events that the answer is made from."""
    videos: tuple[ScoredVideo, ...]
    unknown_video_ids: tuple[str, ...] = ()
    """Videos that were asked for and that the catalogue does not hold."""
    cursor: str | None = None
    """For the next page; None where there is none."""
    degraded: Degraded | None = None
    """None for an answer that is whole."""
    tried: Tried | None = field(default=None, compare=False, repr=False)
    """What the videos were drawn from whose reason is `explore`, in their order."""


@dataclass(frozen=True)
class RankedVideo:
    """A video in a list that is the same for everybody."""

    video_id: str
    score: float


@dataclass(frozen=True)
class RankedVideos:
    """A list that is the same for everybody."""

    version: str
    """Of the bundle that it was made from."""
    videos: tuple[RankedVideo, ...]
    degraded: Degraded | None = None
