"""What goes over HTTP: the requests and answers of the endpoint, with their limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    WithJsonSchema,
)
from pydantic.dataclasses import dataclass

from recsys.errors import InputError
from recsys.live.log.event import FIRST_MS, LARGEST_PLACE, LONGEST_WATCH, TYPES, Event
from recsys.live.text import LONGEST, MOST_ENTRIES, check_id
from recsys.serve.asks import (
    Answer,
    Ask,
    Cause,
    Degraded,
    DegradedKind,
    Filters,
    Kind,
    RankedVideos,
)
from recsys.serve.http.times import Time
from recsys.serve.retrieve.monitor import SearchShape

MOST_EVENTS = 1000
MOST_REQUESTS = 100
MOST_IDS = 5000
"""Ids that a filter or an exclusion may list."""


def id_text(value: Any) -> str:
    """An id of a request, which may be text or an integer, as text."""
    try:
        return check_id(value, "id")
    except InputError as error:
        raise ValueError(str(error).partition(": ")[2]) from None


TEXT_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST,
    "pattern": r"^[^\x00]*$",
}
ID_SCHEMA = {"anyOf": [TEXT_SCHEMA, {"type": "integer"}]}
Id = Annotated[str, BeforeValidator(id_text), WithJsonSchema(ID_SCHEMA)]
AddressId = Annotated[str, BeforeValidator(id_text), WithJsonSchema(TEXT_SCHEMA)]
"""An id in a path or a query, where everything is text."""
NAMES = {"propertyNames": TEXT_SCHEMA}
Entries = Annotated[dict[Id, Id], Field(max_length=MOST_ENTRIES, json_schema_extra=NAMES)]
Ids = Annotated[list[Id], Field(max_length=MOST_IDS)]
Number = Annotated[float, Field(strict=True, ge=0, le=LONGEST_WATCH)]

Described = ConfigDict(use_attribute_docstrings=True)


class Message(BaseModel):
    """A message that refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Request(Message):
    """Who asks, and when."""

    user_id: Id
    """Integer or text; a user that nothing is known of is answered too."""
    now_ms: Time | None = None
    """When the request is made, in Unix milliseconds (UTC), at most a day ahead: events that are
    not earlier are not used. Without it now, and all that was acknowledged is used."""
    context: Entries = Field(default_factory=dict)
    """Values of the model's context columns; a missing one counts as unknown."""
    user: Entries = Field(default_factory=dict)
    """Values of the model's user features, in place of those that the bundle knows."""


class FiltersMessage(Message):
    """What a list may hold; every filter that is given must hold of a video.

    One that names nothing, an empty list, lets nothing through.
    """

    categories: Ids | None = None
    """Any of them, as the catalogue names them."""
    creators: Ids | None = None
    """Any of them."""
    min_duration: Number | None = None
    """In the catalogue's unit; a video of unknown length passes no limit."""
    max_duration: Number | None = None
    max_age_days: Number | None = None
    """Since the video was first shown to anybody; one that never was is new."""
    video_ids: Ids | None = None
    """Only these; those that the catalogue does not hold are passed over."""

    def filters(self) -> Filters:
        """The filters themselves."""
        return Filters(
            None if self.categories is None else tuple(self.categories),
            None if self.creators is None else tuple(self.creators),
            self.min_duration,
            self.max_duration,
            self.max_age_days,
            None if self.video_ids is None else tuple(self.video_ids),
        )


class RecommendRequest(Request):
    """Asks for the best videos."""

    k: Annotated[StrictInt, Field(ge=1)] = 10
    """How many; the most is set by `serve.max_k`."""
    exclude_seen: StrictBool = True
    """Leave out videos that the user has ever had a positive event with."""
    exclude: Ids = Field(default_factory=list)
    """Videos to leave out."""
    filters: FiltersMessage | None = None
    cursor: Annotated[str, Field(max_length=16_384)] | None = None
    """Of the answer before: the next page, in which nothing comes again."""

    def ask(self) -> Ask:
        """What the recommender is asked."""
        return Ask(
            self.user_id,
            self.k,
            now_ms=self.now_ms,
            context=self.context,
            user=self.user,
            exclude_seen=self.exclude_seen,
            exclude=tuple(self.exclude),
            filters=Filters() if self.filters is None else self.filters.filters(),
            cursor=self.cursor,
        )


class BatchRequest(Message):
    """Asks for the best videos for many users."""

    requests: list[RecommendRequest] = Field(min_length=1, max_length=MOST_REQUESTS)


class ScoreRequest(Request):
    """Asks what the model thinks of given videos."""

    video_ids: list[Id] = Field(min_length=1, max_length=MOST_IDS)
    """The most is set by `serve.max_videos`."""

    def ask(self) -> Ask:
        """What the recommender is asked."""
        return Ask(
            self.user_id,
            video_ids=tuple(self.video_ids),
            now_ms=self.now_ms,
            context=self.context,
            user=self.user,
        )


class EventMessage(Message):
    """Tells of something that happened."""

    user_id: Id
    type: Annotated[str, Field(json_schema_extra={"enum": list(TYPES)})] = "view"
    """`exposure`: the video was shown. `view`: it was watched. `task`: a ranking task was done or
    undone. `not_interested`: no more of this video. `hide_creator`: no more of this creator."""
    video_id: Id | None = None
    """Needed but for `hide_creator`."""
    creator_id: Id | None = None
    """Needed for `hide_creator`."""
    time_ms: Annotated[StrictInt, Field(json_schema_extra={"minimum": FIRST_MS})] | None = None
    """When it happened by the sender's clock, in Unix milliseconds (UTC); now without it."""
    positive: StrictBool | None = None
    """Whether the user liked the video; without it a view says yes, a task whether it was done. A
    label of the task that is the model's own sign of it, if there is one, goes before this."""
    watched: Annotated[float, Field(ge=0, le=LONGEST_WATCH, strict=True)] | None = None
    """Of a view: how long, in the unit of the catalogue's durations (in seconds where it has none);
    kept in the log also where the model has no use for it yet."""
    labels: Annotated[
        dict[Id, StrictBool], Field(max_length=MOST_ENTRIES, json_schema_extra=NAMES)
    ] = Field(default_factory=dict)
    """Of a view or a task: ranking tasks that were done (true) or undone (false)."""
    context: Entries = Field(default_factory=dict)
    """What was known when the video was asked for."""
    event_id: Id | None = None
    """What a retry is known by; without it the content is."""
    impression_id: Id | None = None
    """Of the answer that recommended the video."""
    version: Id | None = None
    """Of the bundle that recommended it; without it that of the impression."""
    place: Annotated[StrictInt, Field(ge=0, le=LARGEST_PLACE)] | None = None
    """Of an exposure: where in the list the video stood, from 0."""

    def event(self) -> Event:
        """The event as the log keeps it."""
        fields = dict(self)
        if self.version is None and self.impression_id and "." in self.impression_id:
            fields["version"] = self.impression_id.rpartition(".")[0] or None
        return Event(**fields)


class EventsMessage(Message):
    """Tells of several events; all of them are kept or none."""

    events: list[EventMessage] = Field(min_length=1, max_length=MOST_EVENTS)


ONE, SEVERAL = "one event", "several events"
"""Names of the two kinds of body; they stand in no message."""


def _number(body: object) -> str:
    several = isinstance(body, EventsMessage) or (isinstance(body, dict) and "events" in body)
    return SEVERAL if several else ONE


EventsBody = Annotated[
    Annotated[EventMessage, Tag(ONE)] | Annotated[EventsMessage, Tag(SEVERAL)],
    Discriminator(_number),
]


@dataclass(config=Described)
class ReasonMessage:
    """Why a video is recommended."""

    kind: Kind
    """`resembles` videos that the user liked; new from a `creator` that they like; `popular` now,
    and otherwise not in the list; tried out to `explore` it; `personal`: from all they did. For a
    `newcomer`, of whom nothing is known: `popular` now, else what the model finds for them. In a
    list for everybody: `popular`, or one of the `latest`."""
    video_ids: tuple[str, ...]
    """The liked videos that it resembles, of `resembles`."""
    creator_id: str | None
    """Of `creator`."""


@dataclass(config=Described)
class DegradedMessage:
    """That an answer is not all it might be."""

    kind: DegradedKind
    """`stale`: made without the newest events. `popular`, `latest`: a list for everybody, of what
    is popular now, else of what was first shown last, in place of the user's own."""
    cause: Cause
    """`log`: the event log cannot be read. `late`: the model did not answer within
    `serve.budget_ms`. `failed`: it failed at this request."""
    detail: str
    """In words, with what the answer may not obey."""


@dataclass(config=Described)
class ScoredItem:
    """A video's scores for one request."""

    video_id: str
    score: float
    """Dot product of what the user looks for and the video's vector, more or less if they saw it
    before, and by how much it is trending. In a list for everybody: the popularity, or when it was
    first shown (Unix milliseconds; -1: never)."""
    probabilities: dict[str, float]
    """Of each ranking task; of none in a list for everybody."""


@dataclass(config=Described)
class Item(ScoredItem):
    """A recommended video."""

    reason: ReasonMessage


@dataclass(config=Described)
class RecommendResponse:
    """The answer of /v1/recommend, best first."""

    version: str
    """Of the bundle."""
    impression_id: str
    """Of this list; events that come of it name it."""
    user_id: str
    known_user: bool
    now_ms: int
    num_history: int
    """Events of the user that the answer is made from."""
    items: list[Item]
    cursor: str | None
    """Asks for the next page; null where there is none."""
    degraded: DegradedMessage | None
    """Null for an answer that is whole."""


@dataclass(config=Described)
class BatchResponse:
    """The answer of /v1/recommend/batch, in the order of the requests."""

    answers: list[RecommendResponse]


@dataclass(config=Described)
class ScoreResponse:
    """The answer of /v1/score, in the order asked for."""

    version: str
    user_id: str
    known_user: bool
    now_ms: int
    num_history: int
    items: list[ScoredItem]
    unknown_video_ids: list[str]
    """Videos that were asked for and are not in the catalogue."""
    degraded: DegradedMessage | None
    """Null for an answer that is whole."""


@dataclass(config=Described)
class RankedItem:
    """A video of a list that is the same for everybody."""

    video_id: str
    score: float


@dataclass(config=Described)
class ListResponse:
    """The answer of /v1/similar (cosine), /v1/popular and /v1/latest (first shown, in ms)."""

    version: str
    items: list[RankedItem]
    degraded: DegradedMessage | None
    """Null for an answer that is whole."""


@dataclass(config=Described)
class EventsResponse:
    """The answer of /v1/events; what it tells of is on disk."""

    event_ids: list[str]
    statuses: list[Literal["accepted", "duplicate", "conflict", "forgotten"]]
    """`duplicate`: it was known already. `conflict`: its id was, with other content, which stays.
    `forgotten`: the user's data up to its time were deleted, so it is not kept."""


@dataclass(config=Described)
class ForgetResponse:
    """The answer of DELETE /v1/users."""

    user_id: str
    deleted: int
    """Events."""


@dataclass(config=Described)
class PastEvent:
    """A video that was shown to a user, and what came of it."""

    video_id: str | None
    """Null for a video that the catalogue does not hold."""
    time_ms: int
    positive: bool
    labels: dict[str, bool]
    """Of each ranking task."""
    watched: float | None
    """How long; null where the model has no use for it."""


@dataclass(config=Described)
class HistoryResponse:
    """The answer of /v1/history, newest first."""

    user_id: str
    known_user: bool
    events: list[PastEvent]


@dataclass(config=Described)
class UsersResponse:
    """The answer of /v1/users: some of the known users."""

    num_users: int
    user_ids: list[str]


@dataclass(config=Described)
class HealthResponse:
    """The answer of /healthz and /readyz."""

    status: Literal["ok", "starting"]
    version: str


@dataclass(config=Described)
class RefusedVersion:
    """A version that this replica does not serve."""

    version: str
    reason: str


@dataclass(config=Described)
class ModelResponse:
    """The answer of /v1/model."""

    version: str
    created: str
    index: str
    """Whether all videos are compared (`flat`), because they are few or codes of them would have
    found too little, or codes are looked at first (`pq`)."""
    published_recall: float | None
    """Share of the 100 best videos that the index found when it was published, for users of the
    bundle; null where it is exact or was not measured."""
    time_of_flat: float | None
    """What a search took then, as a share of the time that comparing all takes."""
    index_recall: dict[SearchShape, float]
    """Share of the 100 best videos that the index finds, as looked at while this replica serves, by
    what a search may find: all (`none`), what a filter leaves (`narrow`: under a tenth, `wide`), or
    all but what is left out for the user (`user`). Empty where it is exact or was not looked at."""
    num_videos: int
    num_users: int
    tasks: list[str]
    watched: str | None
    """Column that said how long a video was watched."""
    watched_per_s: float | None
    """A second in the unit of watch times, which is that of the catalogue's durations; 1 where it
    has none, null where it has some of which nobody knows the unit."""
    context: list[str]
    user_features: list[str]
    rank: str
    front: Literal["feed", "rows", "course"]
    """What the page opens with."""
    max_k: int
    max_videos: int
    max_history: int
    metrics: dict[str, Any]
    refused: list[RefusedVersion]
    """Versions that were to be served and are not; this one goes on."""


def recommendation(answer: Answer, impression_id: str) -> dict[str, Any]:
    """A `RecommendResponse` as a plain tree: quick to make, and what is sent."""
    return {
        "version": answer.version,
        "impression_id": impression_id,
        "user_id": answer.user_id,
        "known_user": answer.known_user,
        "now_ms": answer.now_ms,
        "num_history": answer.num_history,
        "items": [
            {
                "video_id": video.video_id,
                "score": video.score,
                "probabilities": video.probabilities,
                "reason": None if video.reason is None else video.reason.tree,
            }
            for video in answer.videos
        ],
        "cursor": answer.cursor,
        "degraded": _degraded(answer.degraded),
    }


def scores(answer: Answer) -> dict[str, Any]:
    """A `ScoreResponse` as a plain tree."""
    return {
        "version": answer.version,
        "user_id": answer.user_id,
        "known_user": answer.known_user,
        "now_ms": answer.now_ms,
        "num_history": answer.num_history,
        "items": [
            {"video_id": v.video_id, "score": v.score, "probabilities": v.probabilities}
            for v in answer.videos
        ],
        "unknown_video_ids": answer.unknown_video_ids,
        "degraded": _degraded(answer.degraded),
    }


def ranked(listed: RankedVideos) -> ListResponse:
    """The message of a list that is the same for everybody."""
    said = listed.degraded
    return ListResponse(
        listed.version,
        [RankedItem(video.video_id, video.score) for video in listed.videos],
        None if said is None else DegradedMessage(said.kind, said.cause, said.detail),
    )


def _degraded(said: Degraded | None) -> dict[str, object] | None:
    return None if said is None else said.tree
