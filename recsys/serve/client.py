"""A Python client of a running server, for backends: it needs httpx and nothing else.

    with Client("http://recommender:8000", token=token) as client:
        shown = client.recommend("u1", k=12, context={"tab": "home"})
        client.send_events({"user_id": "u1", "video_id": shown["items"][0]["video_id"]})

Calls are tried again after a lost connection, a timeout or an overload. That is safe: reads change
nothing, and each event gets its id here before the first try, by which the server knows a retry.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Self, Unpack

import httpx

import recsys.serve.client_calls as calls
from recsys.serve.client_calls import Answer, Call
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
    Problem,
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

FIRST_WAIT_S = 0.1
"""Longest wait before the second try; it doubles with each further one."""
LONGEST_WAIT_S = 5.0
AGAIN = frozenset({502, 503, 504})
"""Statuses of a server that cannot answer now."""
NO_REPLICA = "Internal Server Error"
"""What Ray's HAProxy says, under status 500, where no replica has answered: the server's own 500 is
a problem document."""


class ApiError(Exception):
    """A call failed: the server refused it, or did not answer before the deadline.

    Attributes:
        status: Of HTTP; None without an answer.
        problem: The server's own words; None without them.
    """

    def __init__(
        self, message: str, status: int | None = None, problem: Problem | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.problem = status, problem


class Tries:
    """When a call is tried again and when it is given up; does no I/O itself."""

    def __init__(self, call: Call[Any], timeout_s: float, deadline_s: float) -> None:
        self._call = call
        self._timeout_s = timeout_s + call.wait_s
        self._ends = time.monotonic() + deadline_s + call.wait_s
        self._longest_wait_s = FIRST_WAIT_S

    def timeout_s(self) -> float:
        """How long the next try may wait for the server."""
        return max(0.001, min(self._timeout_s, self._ends - time.monotonic()))

    def wait_s(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """How long to wait after a failed try, in seconds.

        Any length up to the longest is as likely ("full jitter"), so that those who were refused
        together do not come back together.

        Raises:
            ApiError: Another try is of no use, or would come too late.
        """
        asked = _asked_wait_s(outcome)
        wait = (asked or 0.0) + random.uniform(0, self._longest_wait_s)
        self._longest_wait_s = min(LONGEST_WAIT_S, 2 * self._longest_wait_s)
        given_up = asked is None or time.monotonic() + wait >= self._ends
        if given_up or not self._call.is_repeatable:
            raise error_of(self._call, outcome)
        return wait


def _asked_wait_s(outcome: httpx.Response | httpx.TransportError) -> float | None:
    """The least wait before another try; None where another would end as this did."""
    if isinstance(outcome, httpx.TransportError):
        return None if isinstance(outcome, httpx.UnsupportedProtocol) else 0.0
    no_replica = outcome.status_code == 500 and outcome.text == NO_REPLICA
    if outcome.status_code not in AGAIN and not no_replica:
        return None
    after = outcome.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0


def answer_of(call: Call[Answer], response: httpx.Response) -> Answer:
    """What a server answered.

    Raises:
        ApiError: It is not JSON: something else stands at the address, or between.
    """
    try:
        answer: Answer = response.json()
    except ValueError:
        kind = response.headers.get("Content-Type", "none")
        text = f"{call.method} {call.path}: the answer is not JSON (Content-Type: {kind})"
        raise ApiError(text, response.status_code) from None
    return answer


def error_of(call: Call[Any], outcome: httpx.Response | httpx.TransportError) -> ApiError:
    """What a failed try is called."""
    what = f"{call.method} {call.path}"
    if isinstance(outcome, httpx.TransportError):
        return ApiError(f"{what}: {type(outcome).__name__}: {outcome}".rstrip(": "))
    status = outcome.status_code
    is_problem = outcome.headers.get("Content-Type", "").startswith("application/problem+json")
    problem = answer_of(Call[Problem](call.method, call.path), outcome) if is_problem else None
    detail = problem["detail"] if problem else outcome.reason_phrase
    return ApiError(f"{what}: {status}: {detail}", status, problem)


class Client:
    """A client that blocks; threads may share one, and it keeps its connections."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = 2.0,
        deadline_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connects with the first call.

        Args:
            address: Of the server, such as `http://host:8000`.
            token: Sent with each call; None where the server asks for none.
            timeout_s: Longest that one try waits for the server.
            deadline_s: Longest that a call takes with all its tries and the waits between.
            transport: What sends; httpx's own without it.
        """
        self._timeout_s, self._deadline_s = timeout_s, deadline_s
        self._http = httpx.Client(base_url=address, headers=_headers(token), transport=transport)

    def recommend(self, user_id: Id, **options: Unpack[RecommendOptions]) -> Recommendation:
        """The best videos for a user, best first."""
        return self._send(calls.recommend(user_id, options))

    def recommend_many(self, requests: Sequence[RecommendRequest]) -> Recommendations:
        """The best videos for several users, in the order of the requests."""
        return self._send(calls.recommend_many(requests))

    def score(self, user_id: Id, video_ids: Sequence[Id], **options: Unpack[Options]) -> Scores:
        """A score and a probability of each task for given videos."""
        return self._send(calls.score(user_id, video_ids, options))

    def similar(self, video_id: Id, *, k: int = 10, user_id: Id | None = None) -> Items:
        """The videos most like one, of those that a user may be shown if one is named."""
        return self._send(calls.similar(video_id, k, user_id))

    def popular(self, *, k: int = 10) -> Items:
        """What is popular now."""
        return self._send(calls.popular(k))

    def latest(self, *, k: int = 10) -> Items:
        """The newest videos."""
        return self._send(calls.latest(k))

    def send_events(self, events: Event | Sequence[Event]) -> EventAnswer:
        """Tells of one event, or of up to 1,000; what is acknowledged is kept."""
        return self._send(calls.send_events(events))

    def forget_user(self, user_id: Id) -> Deleted:
        """Deletes all events of a user."""
        return self._send(calls.forget_user(user_id))

    def history(self, user_id: Id, *, limit: int = 20) -> History:
        """What a user did last, newest first."""
        return self._send(calls.history(user_id, limit))

    def courses(self, user_id: Id, *, limit: int = 20) -> Courses:
        """How far a user is in the courses, those that they have begun first."""
        return self._send(calls.courses(user_id, limit))

    def users(self, *, limit: int = 50) -> Users:
        """Some of the known users."""
        return self._send(calls.users(limit))

    def add_video(
        self, video_id: Id, data: bytes, *, wait_s: float = 0.0, **facts: Unpack[VideoFacts]
    ) -> Video:
        """Hands a video's file in, and waits until it may be recommended, at most `wait_s` seconds.

        Where it takes longer, `video` tells how far it is.
        """
        return self._send(calls.add_video(video_id, data, wait_s, facts))

    def add_video_at(
        self, video_id: Id, uri: str | None, *, wait_s: float = 0.0, **facts: Unpack[VideoFacts]
    ) -> Video:
        """Hands a video in by its address, or without a file; waits as `add_video`."""
        return self._send(calls.add_video_at(video_id, uri, wait_s, facts))

    def video(self, video_id: Id) -> Video:
        """How far a video is, and what is said of it."""
        return self._send(calls.video(video_id))

    def videos(self, *, after: Id | None = None, limit: int = 100) -> Videos:
        """The videos that came live or were changed, by id."""
        return self._send(calls.videos(after, limit))

    def change_video(self, video_id: Id, **facts: Unpack[VideoFacts]) -> Video:
        """Changes what is said of a video; None takes away."""
        return self._send(calls.change_video(video_id, facts))

    def delete_video(self, video_id: Id) -> DeletedVideo:
        """Takes a video out of everything for good."""
        return self._send(calls.delete_video(video_id))

    def versions(self) -> Versions:
        """Which versions there are, and which serves."""
        return self._send(calls.versions())

    def activate(self, version: str) -> Wanted:
        """Has every replica serve a version, until another is published."""
        return self._send(calls.activate(version))

    def roll_back(self, from_version: str | None = None) -> Wanted:
        """Has every replica serve the version of before.

        Args:
            from_version: To go back from. Without it the call is sent once, for twice would go on.
        """
        return self._send(calls.roll_back(from_version))

    def challenge(self, version: str, *, share: float) -> Wanted:
        """Has a version tried on a share of the users, above 0 and below 1."""
        return self._send(calls.challenge(version, share))

    def challenger(self) -> Challenger:
        """How the version that is tried does beside the one that serves."""
        return self._send(calls.challenger())

    def end_challenge(self) -> Wanted:
        """Has the version that serves answer everybody."""
        return self._send(calls.end_challenge())

    def model(self) -> dict[str, Any]:
        """What is served, and its limits."""
        return self._send(calls.model())

    def healthy(self) -> bool:
        """Whether the server answers at all; asked once."""
        return self._probe("/healthz")

    def ready(self) -> bool:
        """Whether the server is up to date with the event log; asked once."""
        return self._probe("/readyz")

    def close(self) -> None:
        """Ends its connections; `with` does so too."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call[Answer]) -> Answer:
        tries = Tries(call, self._timeout_s, self._deadline_s)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(**_request(call), timeout=tries.timeout_s())
            except httpx.TransportError as error:
                outcome = error
            else:
                if outcome.is_success:
                    return answer_of(call, outcome)
            time.sleep(tries.wait_s(outcome))

    def _probe(self, path: str) -> bool:
        try:
            return self._http.get(path, timeout=self._timeout_s).is_success
        except httpx.TransportError:
            return False


class AsyncClient:
    """The same for asyncio: each call is awaited."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = 2.0,
        deadline_s: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connects with the first call; the arguments are those of `Client`."""
        self._timeout_s, self._deadline_s = timeout_s, deadline_s
        self._http = httpx.AsyncClient(
            base_url=address, headers=_headers(token), transport=transport
        )

    def recommend(
        self, user_id: Id, **options: Unpack[RecommendOptions]
    ) -> Awaitable[Recommendation]:
        """The best videos for a user, best first."""
        return self._send(calls.recommend(user_id, options))

    def recommend_many(self, requests: Sequence[RecommendRequest]) -> Awaitable[Recommendations]:
        """The best videos for several users, in the order of the requests."""
        return self._send(calls.recommend_many(requests))

    def score(
        self, user_id: Id, video_ids: Sequence[Id], **options: Unpack[Options]
    ) -> Awaitable[Scores]:
        """A score and a probability of each task for given videos."""
        return self._send(calls.score(user_id, video_ids, options))

    def similar(self, video_id: Id, *, k: int = 10, user_id: Id | None = None) -> Awaitable[Items]:
        """The videos most like one, of those that a user may be shown if one is named."""
        return self._send(calls.similar(video_id, k, user_id))

    def popular(self, *, k: int = 10) -> Awaitable[Items]:
        """What is popular now."""
        return self._send(calls.popular(k))

    def latest(self, *, k: int = 10) -> Awaitable[Items]:
        """The newest videos."""
        return self._send(calls.latest(k))

    def send_events(self, events: Event | Sequence[Event]) -> Awaitable[EventAnswer]:
        """Tells of one event, or of up to 1,000; what is acknowledged is kept."""
        return self._send(calls.send_events(events))

    def forget_user(self, user_id: Id) -> Awaitable[Deleted]:
        """Deletes all events of a user."""
        return self._send(calls.forget_user(user_id))

    def history(self, user_id: Id, *, limit: int = 20) -> Awaitable[History]:
        """What a user did last, newest first."""
        return self._send(calls.history(user_id, limit))

    def courses(self, user_id: Id, *, limit: int = 20) -> Awaitable[Courses]:
        """How far a user is in the courses, those that they have begun first."""
        return self._send(calls.courses(user_id, limit))

    def users(self, *, limit: int = 50) -> Awaitable[Users]:
        """Some of the known users."""
        return self._send(calls.users(limit))

    def add_video(
        self, video_id: Id, data: bytes, *, wait_s: float = 0.0, **facts: Unpack[VideoFacts]
    ) -> Awaitable[Video]:
        """Hands a video's file in, and waits until it may be recommended, at most `wait_s` seconds.

        Where it takes longer, `video` tells how far it is.
        """
        return self._send(calls.add_video(video_id, data, wait_s, facts))

    def add_video_at(
        self, video_id: Id, uri: str | None, *, wait_s: float = 0.0, **facts: Unpack[VideoFacts]
    ) -> Awaitable[Video]:
        """Hands a video in by its address, or without a file; waits as `add_video`."""
        return self._send(calls.add_video_at(video_id, uri, wait_s, facts))

    def video(self, video_id: Id) -> Awaitable[Video]:
        """How far a video is, and what is said of it."""
        return self._send(calls.video(video_id))

    def videos(self, *, after: Id | None = None, limit: int = 100) -> Awaitable[Videos]:
        """The videos that came live or were changed, by id."""
        return self._send(calls.videos(after, limit))

    def change_video(self, video_id: Id, **facts: Unpack[VideoFacts]) -> Awaitable[Video]:
        """Changes what is said of a video; None takes away."""
        return self._send(calls.change_video(video_id, facts))

    def delete_video(self, video_id: Id) -> Awaitable[DeletedVideo]:
        """Takes a video out of everything for good."""
        return self._send(calls.delete_video(video_id))

    def versions(self) -> Awaitable[Versions]:
        """Which versions there are, and which serves."""
        return self._send(calls.versions())

    def activate(self, version: str) -> Awaitable[Wanted]:
        """Has every replica serve a version, until another is published."""
        return self._send(calls.activate(version))

    def roll_back(self, from_version: str | None = None) -> Awaitable[Wanted]:
        """Has every replica serve the version of before.

        Args:
            from_version: To go back from. Without it the call is sent once, for twice would go on.
        """
        return self._send(calls.roll_back(from_version))

    def challenge(self, version: str, *, share: float) -> Awaitable[Wanted]:
        """Has a version tried on a share of the users, above 0 and below 1."""
        return self._send(calls.challenge(version, share))

    def challenger(self) -> Awaitable[Challenger]:
        """How the version that is tried does beside the one that serves."""
        return self._send(calls.challenger())

    def end_challenge(self) -> Awaitable[Wanted]:
        """Has the version that serves answer everybody."""
        return self._send(calls.end_challenge())

    def model(self) -> Awaitable[dict[str, Any]]:
        """What is served, and its limits."""
        return self._send(calls.model())

    def healthy(self) -> Awaitable[bool]:
        """Whether the server answers at all; asked once."""
        return self._probe("/healthz")

    def ready(self) -> Awaitable[bool]:
        """Whether the server is up to date with the event log; asked once."""
        return self._probe("/readyz")

    async def aclose(self) -> None:
        """Ends its connections; `async with` does so too."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _send(self, call: Call[Answer]) -> Answer:
        tries = Tries(call, self._timeout_s, self._deadline_s)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(**_request(call), timeout=tries.timeout_s())
            except httpx.TransportError as error:
                outcome = error
            else:
                if outcome.is_success:
                    return answer_of(call, outcome)
            await asyncio.sleep(tries.wait_s(outcome))

    async def _probe(self, path: str) -> bool:
        try:
            return (await self._http.get(path, timeout=self._timeout_s)).is_success
        except httpx.TransportError:
            return False


def _request(call: Call[Any]) -> dict[str, Any]:
    """The arguments of httpx; a GET has no body."""
    body: dict[str, Any] = {} if call.body is None else {"json": call.body}
    if call.file is not None:
        kind = {"Content-Type": "application/octet-stream"}
        body = {"content": call.file, "headers": kind}
    return {"method": call.method, "url": call.path, "params": call.query, **body}


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
