"""Each call of a client as it goes over HTTP; nothing here sends anything."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from recsys.serve.client_types import (
    Challenger,
    Courses,
    Deleted,
    DeletedVideo,
    Event,
    EventAnswer,
    History,
    Id,
    Items,
    Options,
    Recommendation,
    Recommendations,
    RecommendOptions,
    RecommendRequest,
    Scores,
    Users,
    Versions,
    Video,
    VideoFacts,
    Videos,
    Wanted,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request before it is sent, with the type of its answer."""

    method: str
    path: str
    body: object = None
    query: Mapping[str, Any] = field(default_factory=dict)
    file: bytes | None = None
    """A body that is no JSON."""
    is_repeatable: bool = True
    """Whether to send it again changes nothing more."""
    wait_s: float = 0.0
    """How long the server may wait with its answer, beside the time that a try has anyway."""


def recommend(user_id: Id, options: RecommendOptions) -> Call[Recommendation]:
    """The best videos for a user."""
    return Call("POST", "/v1/recommend", {"user_id": user_id, **options})


def recommend_many(requests: Sequence[RecommendRequest]) -> Call[Recommendations]:
    """The best videos for several users."""
    return Call("POST", "/v1/recommend/batch", {"requests": list(requests)})


def score(user_id: Id, video_ids: Sequence[Id], options: Options) -> Call[Scores]:
    """What the model thinks of given videos."""
    body = {"user_id": user_id, "video_ids": list(video_ids), **options}
    return Call("POST", "/v1/score", body)


def send_events(events: Event | Sequence[Event]) -> Call[EventAnswer]:
    """Events, each with its id from here on."""
    several = [events] if isinstance(events, Mapping) else events
    return Call("POST", "/v1/events", {"events": with_ids(several)})


def forget_user(user_id: Id) -> Call[Deleted]:
    """Deletes all that is kept of a user."""
    return Call("DELETE", "/v1/users", query={"user_id": user_id})


def similar(video_id: Id, k: int, user_id: Id | None) -> Call[Items]:
    """Videos like one."""
    viewer = {} if user_id is None else {"user_id": user_id}
    return Call("GET", "/v1/similar", query={"video_id": video_id, "k": k, **viewer})


def courses(user_id: Id, limit: int) -> Call[Courses]:
    """How far a user is in the courses."""
    return Call("GET", "/v1/courses", query={"user_id": user_id, "limit": limit})


def popular(k: int) -> Call[Items]:
    """What is popular now."""
    return Call("GET", "/v1/popular", query={"k": k})


def latest(k: int) -> Call[Items]:
    """The newest videos."""
    return Call("GET", "/v1/latest", query={"k": k})


def history(user_id: Id, limit: int) -> Call[History]:
    """What a user did last."""
    return Call("GET", "/v1/history", query={"user_id": user_id, "limit": limit})


def users(limit: int) -> Call[Users]:
    """Some known users."""
    return Call("GET", "/v1/users", query={"limit": limit})


def add_video(video_id: Id, data: bytes, wait_s: float, facts: VideoFacts) -> Call[Video]:
    """A video that is handed in."""
    said = {name: value for name, value in facts.items() if value is not None}
    query = {"video_id": video_id, "wait_s": f"{wait_s:g}", **said}
    return Call("POST", "/v1/videos", query=query, file=data, wait_s=wait_s)


def add_video_at(video_id: Id, uri: str | None, wait_s: float, facts: VideoFacts) -> Call[Video]:
    """A video that is handed in by its address."""
    body = {"video_id": video_id, "uri": uri, **facts}
    return Call("POST", "/v1/videos", body, query={"wait_s": f"{wait_s:g}"}, wait_s=wait_s)


def video(video_id: Id) -> Call[Video]:
    """What is known of a video."""
    return Call("GET", _of_video(video_id))


def videos(after: Id | None, limit: int) -> Call[Videos]:
    """Videos that came live."""
    following = {} if after is None else {"after": after}
    return Call("GET", "/v1/videos", query={**following, "limit": limit})


def change_video(video_id: Id, facts: VideoFacts) -> Call[Video]:
    """What is said of a video from now on."""
    return Call("PATCH", _of_video(video_id), dict(facts))


def delete_video(video_id: Id) -> Call[DeletedVideo]:
    """Takes a video out of everything."""
    return Call("DELETE", _of_video(video_id))


def _of_video(video_id: Id) -> str:
    return f"/v1/videos/{quote(str(video_id), safe='/')}"


def versions() -> Call[Versions]:
    """Which versions there are."""
    return Call("GET", "/v1/versions")


def activate(version: str) -> Call[Wanted]:
    """Has a version served."""
    return Call("POST", f"/v1/versions/{quote(version, safe='')}/activate")


def roll_back(from_version: str | None) -> Call[Wanted]:
    """Has the version of before served; which one to go back from makes that repeatable."""
    named = {} if from_version is None else {"from": from_version}
    return Call("POST", "/v1/versions/rollback", query=named, is_repeatable=bool(named))


def challenge(version: str, share: float) -> Call[Wanted]:
    """Has a version tried on a share of the users."""
    path = f"/v1/versions/{quote(version, safe='')}/challenge"
    return Call("POST", path, {"share": share})


def challenger() -> Call[Challenger]:
    """How the version that is tried does."""
    return Call("GET", "/v1/challenger")


def end_challenge() -> Call[Wanted]:
    """Has the version that serves answer everybody."""
    return Call("DELETE", "/v1/challenger")


def model() -> Call[dict[str, Any]]:
    """What is served, and its limits."""
    return Call("GET", "/v1/model")


def with_ids(events: Sequence[Event]) -> list[Event]:
    """The events, each with an `event_id`: its own, or a new one.

    For a caller that keeps events until they are acknowledged, over its own restarts too.
    """
    return [event if event.get("event_id") is not None else _with_id(event) for event in events]


def _with_id(event: Event) -> Event:
    named = event.copy()
    named["event_id"] = uuid.uuid4().hex
    return named
