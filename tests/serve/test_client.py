"""The Python client, against servers that are made here."""

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from recsys.serve import client as module
from recsys.serve.client import ApiError, AsyncClient, Client
from recsys.serve.client_calls import with_ids
from recsys.serve.http.guard import Guard, Limits
from recsys.serve.http.problems import add_problems
from recsys.serve.http.tokens import Tokens
from recsys.serve.metrics import Metrics

OK = httpx.Response(200, json={"fine": True})
BUSY = httpx.Response(503)
LOST = httpx.ConnectError("connection refused")
Outcome = httpx.Response | Exception


class Server:
    """Answers with what it was given, in turn, and remembers what it was asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.requests: list[httpx.Request] = []
        self._outcomes: Iterator[Outcome] = iter(outcomes)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        # Fresh, since a client marks an answer as its own.
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, by a clock that only waiting moves; jitter is always the longest."""
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0 + sum(waited))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    return waited


def client(server: Server, **settings: Any) -> Client:
    return Client("http://server", transport=httpx.MockTransport(server), **settings)


EVERY_CALL: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any]] = [
    ("recommend", ("u1",), {"k": 3, "filters": {"creators": [7]}}, "POST /v1/recommend",
     {"user_id": "u1", "k": 3, "filters": {"creators": [7]}}),
    ("recommend_many", ([{"user_id": "u1"}, {"user_id": 2}],), {}, "POST /v1/recommend/batch",
     {"requests": [{"user_id": "u1"}, {"user_id": 2}]}),
    ("score", ("u1", ("v1", "v2")), {"now_ms": 5}, "POST /v1/score",
     {"user_id": "u1", "video_ids": ["v1", "v2"], "now_ms": 5}),
    ("add_video", ("n/1", b'"mp4"'), {"creator_id": 7, "categories": ["tag=a", "tag=b"]},
     "POST /v1/videos?video_id=n%2F1&wait_s=0&creator_id=7&categories=tag%3Da&categories=tag%3Db",
     "mp4"),
    ("add_video_at", ("n/1", "s3://b/a.mp4"), {"hidden": True}, "POST /v1/videos?wait_s=0",
     {"video_id": "n/1", "uri": "s3://b/a.mp4", "hidden": True}),
    ("add_video_at", ("n", None), {"wait_s": 7.5}, "POST /v1/videos?wait_s=7.5",
     {"video_id": "n", "uri": None}),
    ("versions", (), {}, "GET /v1/versions", None),
    ("activate", ("2026-1/2",), {}, "POST /v1/versions/2026-1%2F2/activate", None),
    ("roll_back", (), {}, "POST /v1/versions/rollback", None),
    ("roll_back", ("20260101",), {}, "POST /v1/versions/rollback?from=20260101", None),
    ("challenge", ("2026",), {"share": 0.1}, "POST /v1/versions/2026/challenge", {"share": 0.1}),
    ("challenger", (), {}, "GET /v1/challenger", None),
    ("end_challenge", (), {}, "DELETE /v1/challenger", None),
    ("video", ("n/1 ?",), {}, "GET /v1/videos/n/1%20%3F", None),
    ("videos", (), {"after": "n", "limit": 5}, "GET /v1/videos?after=n&limit=5", None),
    ("change_video", ("n",), {"title": None}, "PATCH /v1/videos/n", {"title": None}),
    ("delete_video", ("n",), {}, "DELETE /v1/videos/n", None),
    ("similar", ("v&1",), {"k": 2}, "GET /v1/similar?video_id=v%261&k=2", None),
    ("similar", ("v1",), {"user_id": "u 1"}, "GET /v1/similar?video_id=v1&k=10&user_id=u+1", None),
    ("popular", (), {}, "GET /v1/popular?k=10", None),
    ("latest", (), {"k": 1}, "GET /v1/latest?k=1", None),
    ("send_events", ({"user_id": "u1", "event_id": "e1"},), {}, "POST /v1/events",
     {"events": [{"user_id": "u1", "event_id": "e1"}]}),
    ("forget_user", ("u 1",), {}, "DELETE /v1/users?user_id=u+1", None),
    ("history", ("u1",), {"limit": 4}, "GET /v1/history?user_id=u1&limit=4", None),
    ("courses", ("u 1",), {"limit": 3}, "GET /v1/courses?user_id=u+1&limit=3", None),
    ("users", (), {}, "GET /v1/users?limit=50", None),
    ("model", (), {}, "GET /v1/model", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "options", "asked", "body"), EVERY_CALL)
def test_every_call_of_both_clients(
    name: str, given: tuple[Any, ...], options: dict[str, Any], asked: str, body: Any
) -> None:
    server = Server(OK, OK)

    async def ask() -> Any:
        transport = httpx.MockTransport(server)
        async with AsyncClient("http://server", token="secret", transport=transport) as later:
            return await getattr(later, name)(*given, **options)

    with client(server, token="secret") as now:
        assert getattr(now, name)(*given, **options) == {"fine": True}
    assert asyncio.run(ask()) == {"fine": True}
    for request in server.requests:
        assert f"{request.method} {request.url.raw_path.decode()}" == asked
        assert request.headers["authorization"] == "Bearer secret"
        assert (json.loads(request.content) if request.content else None) == body


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {n: list(inspect.signature(f).parameters) for n, f in methods if n[0] != "_"}

    now, later = calls(Client), calls(AsyncClient)
    assert now.keys() - {"close"} == later.keys() - {"aclose"}
    assert all(now[name] == later[name] for name in now.keys() - {"close"})
    assert now.keys() - {"close"} == {name for name, *_ in EVERY_CALL} | {"healthy", "ready"}


@pytest.mark.parametrize(
    "failure",
    [LOST, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut off"), BUSY,
     httpx.Response(502), httpx.Response(504), httpx.Response(500, text="Internal Server Error")],
)  # fmt: skip
def test_a_failure_of_the_moment_is_tried_again(waits: list[float], failure: Outcome) -> None:
    server = Server(failure, failure, failure, OK)
    assert client(server).model() == {"fine": True}
    assert waits == [0.1, 0.2, 0.4]


def test_waits_grow_to_a_limit_and_end_with_the_deadline(waits: list[float]) -> None:
    server = Server(*[LOST] * 20)
    with pytest.raises(ApiError, match="GET /v1/model: ConnectError: connection refused") as error:
        client(server, deadline_s=17.0).model()
    assert error.value.status is None and error.value.problem is None
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert len(server.requests) == 9


def test_a_try_does_not_outlast_the_deadline(waits: list[float]) -> None:
    server = Server(LOST, LOST, OK)
    client(server, timeout_s=2.0, deadline_s=2.15).model()
    timeouts = [request.extensions["timeout"]["read"] for request in server.requests]
    assert timeouts == pytest.approx([2.0, 2.0, 1.85])


def test_the_server_says_how_long_to_wait(waits: list[float]) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "3"})
    assert client(Server(busy, OK)).model() == {"fine": True}
    assert waits == [3.1]
    with pytest.raises(ApiError, match="503"):
        client(Server(busy, OK), deadline_s=2.0).model()
    by_date = httpx.Response(503, headers={"Retry-After": "Fri, 07 Nov 2014 23:59:59 GMT"})
    assert client(Server(by_date, OK)).model() == {"fine": True}
    assert waits == [3.1, 0.1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500])
def test_a_refusal_is_not_tried_again(waits: list[float], status: int) -> None:
    server = Server(httpx.Response(status, text="no"), OK)
    with pytest.raises(ApiError) as error:
        client(server).model()
    assert (error.value.status, error.value.problem) == (status, None)
    assert not waits


@pytest.mark.parametrize("status", [200, 422])
def test_an_answer_of_something_else(waits: list[float], status: int) -> None:
    headers = {"Content-Type": "text/html" if status == 200 else "application/problem+json"}
    page = httpx.Response(status, headers=headers, text="<p>Please log in</p>")
    with pytest.raises(ApiError, match="GET /v1/model: the answer is not JSON") as error:
        client(Server(page)).model()
    assert error.value.status == status
    assert not waits


def test_a_way_back_is_asked_for_once(waits: list[float]) -> None:
    """Where its answer is lost, it may have been taken: a second one would go back further."""
    server = Server(LOST, OK)
    with client(server) as one, pytest.raises(ApiError, match="connection refused"):
        one.roll_back()
    assert (len(server.requests), waits) == (1, [])


def test_who_waits_for_a_video_gives_the_server_as_long(waits: list[float]) -> None:
    server = Server(LOST, OK)
    with client(server, timeout_s=2.0) as one:
        one.add_video("n", b"mp4", wait_s=20.0)
    timeouts = [request.extensions["timeout"]["read"] for request in server.requests]
    assert timeouts == [22.0, 22.0]


def test_an_address_that_is_none_is_not_tried_again(waits: list[float]) -> None:
    with pytest.raises(ApiError, match="UnsupportedProtocol"):
        Client("server:8000").model()
    assert not waits


def test_events_keep_their_ids_over_tries(waits: list[float]) -> None:
    server = Server(LOST, BUSY, OK)
    events = [{"user_id": "u1"}, {"user_id": "u1", "event_id": "mine"}, {"user_id": "u1"}]
    client(server).send_events(events)
    first, second, third = server.bodies
    assert first == second == third
    ids = [event["event_id"] for event in first["events"]]
    assert ids[1] == "mine" and len(set(ids)) == 3 and len(ids[0]) == 32
    assert "event_id" not in events[0]


def test_ids_are_given_once() -> None:
    once = with_ids([{"user_id": "u1"}])
    assert with_ids(once) == once


def test_an_id_that_is_none_is_given_too() -> None:
    """Else two events with the same content within a minute would count once."""
    one, other = with_ids([{"user_id": "u1", "event_id": None}] * 2)
    assert one["event_id"] and other["event_id"] and one["event_id"] != other["event_id"]


def test_probes_ask_once() -> None:
    server = Server(OK, BUSY, LOST)
    asked = client(server)
    assert [asked.healthy(), asked.ready(), asked.ready()] == [True, False, False]
    assert [request.url.path for request in server.requests] == ["/healthz", "/readyz", "/readyz"]


def test_against_the_guard_of_a_server() -> None:
    """The problem document of a real refusal, through an application in this process."""
    api = FastAPI()
    add_problems(api)
    tokens = Tokens({"events": (b"x" * 32,)})
    api.add_middleware(Guard, limits=Limits(), tokens=tokens, metrics=Metrics("r1"))

    async def ask() -> None:
        transport = httpx.ASGITransport(api)
        async with AsyncClient("http://server", token="wrong", transport=transport) as later:
            await later.send_events({"user_id": "u1"})

    with pytest.raises(ApiError, match="POST /v1/events: 401: this token is not known") as error:
        asyncio.run(ask())
    assert error.value.problem is not None
    assert error.value.problem["title"] == "Unauthorized"
    assert error.value.problem["instance"]


def test_the_client_needs_httpx_alone() -> None:
    code = (
        "import sys; import recsys.serve.client; "
        "print({n.split('.')[0] for n in sys.modules} "
        "& {'torch', 'ray', 'fastapi', 'pydantic', 'numpy', 'pyarrow', 'prometheus_client'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
