"""What goes over HTTP: the requests and answers of the endpoint, with their limits."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)

from recsys.data.values import LONGEST
from recsys.serve.recommender import Answer

LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""

LONGEST_ID = 256


def id_text(value: Any) -> str:
    """An id of a request, which may be text or an integer, as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("must be text or an integer")
    text = str(value)
    if not 1 <= len(text) <= LONGEST_ID:
        raise ValueError(f"must have 1 to {LONGEST_ID} characters")
    return text


Id = Annotated[
    str,
    BeforeValidator(id_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
                {"type": "integer"},
            ]
        }
    ),
]
Time = Annotated[StrictInt, Field(ge=0, le=LAST_MS)]


class Message(BaseModel):
    """A message that refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Request(Message):
    """Who asks, and when."""

    user_id: Id
    """Integer or text; a user that nothing is known of is answered too."""
    now_ms: Time | None = None
    """When the request is made, in Unix milliseconds (UTC); the server's clock without it. Events
    that are not earlier are not used."""
    context: dict[str, Id] = Field(default_factory=dict)
    """Values of the model's context columns; a missing one counts as unknown."""
    user: dict[str, Id] = Field(default_factory=dict)
    """Values of the model's user features, in place of those that the bundle knows."""


class RecommendRequest(Request):
    """Asks for the best videos."""

    k: Annotated[StrictInt, Field(ge=1)] = 10
    """How many; the most is set by `serve.max_k`."""
    exclude_seen: StrictBool = True
    """Leave out videos that the user has had a positive event with."""


class ScoreRequest(Request):
    """Asks what the model thinks of given videos."""

    video_ids: list[Id] = Field(min_length=1)
    """The most is set by `serve.max_videos`."""


class EventRequest(Message):
    """Tells of something that just happened."""

    user_id: Id
    video_id: Id
    time_ms: Time | None = None
    """In Unix milliseconds (UTC); now without it."""
    actions: dict[str, StrictBool] = Field(default_factory=dict)
    """`positive` (true without it) and the model's ranking tasks (false without them)."""
    watched: Annotated[float, Field(ge=0, le=LONGEST, strict=True)] | None = None
    """How long, in the unit of the model's training data; 0 without it."""
    context: dict[str, Id] = Field(default_factory=dict)


class Item(Message):
    """A video's scores for one request."""

    video_id: str
    score: float
    """Dot product of what the user looks for and the video's vector, more or less if they saw it
    before, and by how much it is trending."""
    probabilities: dict[str, float]
    """Of each ranking task."""


class ItemsResponse(Message):
    """The answer of /v1/recommend (best first) and /v1/score (in the order asked for)."""

    version: str
    """Of the bundle."""
    user_id: str
    known_user: bool
    now_ms: int
    num_history: int
    """Events of the user that the answer is made from."""
    items: list[Item]
    unknown_video_ids: list[str] = []
    """Videos that were asked for and are not in the catalogue."""

    @classmethod
    def of(cls, answer: Answer, version: str) -> ItemsResponse:
        """The message that carries an answer."""
        items = [
            Item(video_id=v.video_id, score=v.score, probabilities=dict(v.probabilities))
            for v in answer.videos
        ]
        return cls(
            version=version,
            user_id=answer.user_id,
            known_user=answer.known_user,
            now_ms=answer.now_ms,
            num_history=answer.num_history,
            items=items,
            unknown_video_ids=list(answer.unknown_video_ids),
        )


class EventResponse(Message):
    """The answer of /v1/events."""

    user_id: str
    num_history: int
    """Events of the user that are kept now."""


class PastEvent(Message):
    """An event of a user's history."""

    video_id: str | None
    """Null for a video that the catalogue does not hold."""
    time_ms: int
    positive: bool
    actions: dict[str, bool]
    """Of each ranking task."""
    watched: float | None
    """How long; null where the model has no use for it."""


class HistoryResponse(Message):
    """The answer of /v1/history, newest first."""

    user_id: str
    known_user: bool
    events: list[PastEvent]


class UsersResponse(Message):
    """The answer of /v1/users: some of the known users."""

    num_users: int
    user_ids: list[str]


class ModelResponse(Message):
    """The answer of /v1/model."""

    version: str
    created: str
    index: str
    num_videos: int
    num_users: int
    tasks: list[str]
    watched: str | None
    """Column that said how long a video was watched."""
    context: list[str]
    user_features: list[str]
    rank: str
    max_k: int
    max_videos: int
    max_history: int
    metrics: dict[str, object]


class ErrorResponse(Message):
    """What every refused request gets."""

    error: str
    """One line: what is wrong and what is allowed."""
