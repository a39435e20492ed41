"""What a client sends and gets, as typed dicts: plain JSON, and nothing to import or convert.

The server's own messages, with their limits and meanings, are in `serve/http/messages.py`.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Id = str | int
EventStatus = Literal["accepted", "duplicate", "conflict", "forgotten"]


class Filters(TypedDict, total=False):
    """Which videos may be recommended."""

    categories: list[Id]
    creators: list[Id]
    min_duration: float
    max_duration: float
    max_age_days: float
    video_ids: list[Id]


class Options(TypedDict, total=False):
    """What may be told of a request for recommendations or scores."""

    now_ms: int
    context: dict[str, Id]
    user: dict[str, Id]


class RecommendOptions(Options, total=False):
    """What may be asked of recommendations besides."""

    k: int
    exclude_seen: bool
    exclude: list[Id]
    filters: Filters
    cursor: str


class RecommendRequest(RecommendOptions):
    """One request of a batch."""

    user_id: Id


class Event(TypedDict):
    """Something that a user did, or was shown."""

    user_id: Id
    type: NotRequired[Literal["exposure", "view", "task", "not_interested", "hide_creator"]]
    video_id: NotRequired[Id]
    creator_id: NotRequired[Id]
    event_id: NotRequired[Id]
    time_ms: NotRequired[int]
    positive: NotRequired[bool]
    labels: NotRequired[dict[str, bool]]
    watched: NotRequired[float]
    context: NotRequired[dict[str, Id]]
    impression_id: NotRequired[Id]
    version: NotRequired[Id]
    place: NotRequired[int]


class Reason(TypedDict):
    """Why a video is recommended."""

    kind: Literal["resembles", "creator", "popular", "explore", "personal", "newcomer", "latest"]
    video_ids: NotRequired[list[str]]
    creator_id: NotRequired[str]


class VideoFacts(TypedDict, total=False):
    """What may be said of a video."""

    title: str | None
    creator_id: Id | None
    categories: list[str]
    duration: float | None
    hidden: bool
    expires_ms: int | None
    course: str | None
    lesson: float | None
    requires: list[str]


class Fault(TypedDict):
    """Tries to encode a video that have not come to an end."""

    version: str | None
    tries: int
    tried_ms: int
    reason: str | None


class Video(TypedDict):
    """What is known of a video."""

    video_id: str
    state: Literal["stored", "indexed", "refused", "catalogue"]
    title: str | None
    creator_id: str | None
    categories: list[str]
    duration: float | None
    hidden: bool
    expires_ms: int | None
    course: str | None
    lesson: float | None
    requires: list[str]
    size_bytes: int | None
    sha256: str | None
    received_ms: int | None
    decoded_ms: int | None
    indexed_ms: int | None
    reason: str | None
    message: str | None
    duplicate_of: str | None
    similarity: float | None
    faults: list[Fault]


class Videos(TypedDict):
    """Some videos that came live, and what asks for the next ones."""

    videos: list[Video]
    after: str | None


class DeletedVideo(TypedDict):
    """What was deleted."""

    video_id: str


class Degraded(TypedDict):
    """That an answer is not all it might be, and why."""

    kind: Literal["stale", "popular", "latest"]
    cause: Literal["log", "late", "failed"]
    detail: str


class Item(TypedDict):
    """A video of a list that is the same for everybody."""

    video_id: str
    score: float


class ScoredItem(Item):
    """A video and what the model thinks of it for one user."""

    probabilities: dict[str, float]


class RecommendedItem(ScoredItem):
    """A video of a recommendation."""

    reason: Reason


class Items(TypedDict):
    """The answer of similar, popular and latest, best first."""

    version: str
    items: list[Item]
    degraded: Degraded | None


class _Answer(TypedDict):
    version: str
    user_id: str
    known_user: bool
    now_ms: int
    num_history: int
    degraded: Degraded | None


class Recommendation(_Answer):
    """The answer of recommend, best first."""

    impression_id: str
    items: list[RecommendedItem]
    cursor: str | None


class Scores(_Answer):
    """The answer of score, in the order that was asked for."""

    items: list[ScoredItem]
    unknown_video_ids: list[str]


class Recommendations(TypedDict):
    """The answer of a batch, in the order of its requests."""

    answers: list[Recommendation]


class EventAnswer(TypedDict):
    """What became of each event, in the order in which they were sent."""

    event_ids: list[str]
    statuses: list[EventStatus]


class Deleted(TypedDict):
    """The answer of forget_user."""

    user_id: str
    deleted: int


class History(TypedDict):
    """What a user did last, newest first."""

    user_id: str
    known_user: bool
    events: list[dict[str, object]]


class CourseLesson(TypedDict):
    """A lesson of a course, as one user has it."""

    video_id: str
    lesson: float | None
    finished: bool
    locked: bool
    waits_for: list[str]


class Course(TypedDict):
    """A course, as one user has it; its lessons stand in their order."""

    course: str
    num_finished: int
    next_video_id: str | None
    lessons: list[CourseLesson]


class Courses(TypedDict):
    """How far a user is in the courses, those that they have begun first."""

    version: str
    user_id: str
    num_courses: int
    courses: list[Course]


class Users(TypedDict):
    """Some of the known users."""

    num_users: int
    user_ids: list[str]


class Version(TypedDict):
    """A version, as the replica that answered sees it."""

    version: str
    state: Literal["serving", "challenger", "warm", "loading", "waiting", "refused", "available"]
    created: str | None
    reason: str | None
    videos_not_encoded: int


class Versions(TypedDict):
    """Which versions there are, the newest first, and which all replicas are to serve."""

    serving: str
    wanted: str
    challenger: str | None
    versions: list[Version]
    comparison: Challenger | None


class Wanted(TypedDict):
    """What all replicas are to serve from now on."""

    wanted: str
    challenger: str | None
    share: float


class Rate(TypedDict):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class Arm(TypedDict):
    """What came of one of two versions."""

    version: str
    users: int
    impressions: int
    clicks: int
    rate: Rate | None
    index_recall: dict[str, float]


class Challenger(TypedDict):
    """Two versions side by side since the challenge began."""

    share: float
    since_ms: int
    challenger: Arm
    champion: Arm
    difference: Rate | None
    sample_ratio_p: float | None
    warning: str | None
    counted_share: float
    left_out: dict[str, int]


class Problem(TypedDict):
    """A refusal, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: NotRequired[list[dict[str, str]]]
