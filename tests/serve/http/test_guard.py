"""What stands before the routes, in front of an application that is made here."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from recsys.config.run import ServeConfig
from recsys.serve.http import guard
from recsys.serve.http.guard import Guard, Limits
from recsys.serve.http.problems import add_problems
from recsys.serve.http.tokens import Tokens
from recsys.serve.metrics import Metrics

TOKEN = "t" * 16


def make(
    limits: Limits, tokens: Tokens | None = None, metrics: Metrics | None = None, **more: Any
) -> FastAPI:
    api = FastAPI()
    add_problems(api)
    metrics = metrics or Metrics("r1")
    api.add_middleware(Guard, limits=limits, tokens=tokens or Tokens(), metrics=metrics, **more)

    @api.post("/v1/events")
    async def size(request: Request) -> int:
        return len(await request.body())

    @api.put("/v1/videos/{video_id}")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @api.get("/v1/fail")
    def fail() -> None:
        raise ZeroDivisionError("a secret of the server")

    @api.get("/v1/half")
    async def half() -> StreamingResponse:
        async def pieces() -> Any:
            yield b"one"
            raise ZeroDivisionError("a secret of the server")

        return StreamingResponse(pieces())

    @api.get("/v1/page")
    def page() -> StreamingResponse:
        return StreamingResponse(iter(["x"]), headers={"Cache-Control": "no-cache"})

    return api


@pytest.fixture
def client() -> TestClient:
    limits = Limits(body_bytes=10, body_bytes_under={"/v1/videos/": 20}, waiting=2)
    return TestClient(make(limits), raise_server_exceptions=False)


def test_limits_of_a_config() -> None:
    limits = Limits.of(ServeConfig(max_body_mib=2, max_waiting=7), {"/v1/videos/": 99})
    assert (limits.body_bytes, limits.waiting) == (2 * 2**20, 7)
    assert limits.largest_body("/v1/events") == 2 * 2**20
    assert limits.largest_body("/v1/videos/v1") == 99


@pytest.mark.parametrize(
    ("method", "path", "size", "status"),
    [
        ("POST", "/v1/events", 0, 200),
        ("POST", "/v1/events", 10, 200),
        ("POST", "/v1/events", 11, 413),
        ("PUT", "/v1/videos/v1", 20, 200),
        ("PUT", "/v1/videos/v1", 21, 413),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_body_limit_by_prefix(
    client: TestClient, method: str, path: str, size: int, status: int, chunked: bool
) -> None:
    body = iter([b"x"] * size) if chunked else b"x" * size
    answer = client.request(method, path, content=body)
    assert answer.status_code == status
    if status == 200:
        assert answer.json() == size
    else:
        assert answer.headers["connection"] == "close"
        assert f"larger than {10 if 'events' in path else 20} bytes" in answer.json()["detail"]


PAGES = [
    ({}, True),  # no browser
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://a.example"}, True),  # behind a proxy
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site", "Origin": "http://b.a.example"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, False),
    ({"Origin": "http://testserver"}, True),
    ({"Origin": "http://testserver:8000"}, False),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "null"}, False),
]


@pytest.mark.parametrize(("headers", "own"), PAGES)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/events"), ("PUT", "/v1/videos/v1")])
def test_a_page_of_another_site_changes_nothing(
    client: TestClient, headers: dict[str, str], own: bool, method: str, path: str
) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == (200 if own else 403)
    assert client.get("/v1/page", headers=headers).status_code == 200
    if not own:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "a page of another site asks for this" in answer.json()["detail"]


async def ask(
    api: Callable[[Scope, Receive, Send], Awaitable[None]],
    receive: Receive,
    *,
    path: str = "/v1/events",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> list[Message]:
    """One POST by ASGI, with a `receive` of the test's own."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(headers),
    }
    await api(scope, receive, send)
    return sent


async def never_asked() -> Message:
    raise AssertionError("the body was read")


@pytest.mark.parametrize("length", [b"11", b"9" * 5000])
def test_an_announced_body_is_refused_before_it_is_read(length: bytes) -> None:
    api = make(Limits(body_bytes=10))
    sent = asyncio.run(ask(api, never_asked, headers=((b"content-length", length),)))
    assert sent[0]["status"] == 413


def test_no_more_of_a_chunked_body_is_read_than_the_limit() -> None:
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"xxxx", "more_body": True}

    sent = asyncio.run(ask(make(Limits(body_bytes=10)), receive))
    assert (sent[0]["status"], asked) == (413, 3)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent = asyncio.run(ask(make(Limits(body_s=0)), receive))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_body_that_drips_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 of them would keep all places; one that comes slowly but comes is read to its end."""
    now = [0.0]
    monkeypatch.setattr(guard.time, "perf_counter", lambda: now[0])

    def send_each_second(size: int, pieces: int) -> list[Message]:
        left = [pieces]

        async def receive() -> Message:
            await asyncio.sleep(0)
            now[0] += 1
            left[0] -= 1
            return {"type": "http.request", "body": b"x" * size, "more_body": left[0] > 0}

        return asyncio.run(ask(make(Limits(body_s=30)), receive))

    dripped = send_each_second(1, 10**9)
    assert dripped[0]["status"] == 408 and now[0] < 40
    assert "less than 4096 bytes a second" in json.loads(dripped[1]["body"])["detail"]
    assert send_each_second(5000, 200)[0]["status"] == 200


def test_after_the_body_the_application_may_wait_for_the_client_to_leave() -> None:
    messages = [{"type": "http.request", "body": b"x"}, {"type": "http.disconnect"}]
    got: list[Message] = []

    async def receive() -> Message:
        if got:
            await asyncio.sleep(0)
        return messages[len(got)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        got.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Guard(app, limits=Limits(body_s=0), tokens=Tokens(), metrics=Metrics("r1"))
    assert asyncio.run(ask(guard, receive))[0]["status"] == 200
    assert got == messages


def test_a_client_that_leaves_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    metrics = Metrics("r1")
    api = make(Limits(), metrics=metrics)
    assert asyncio.run(ask(api, receive)) == []
    assert not caplog.records
    assert 'recsys_request_seconds_count{replica="r1",route="/v1/events",status="499"} 1.0' in (
        metrics.text().decode()
    )


def test_overload_is_refused_at_once_and_probes_are_answered() -> None:
    metrics = Metrics("r1")
    statuses: list[int] = []
    inside = 0
    two_are_inside, finish = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside
        if scope["path"] == "/v1/events":
            inside += 1
            if inside == 2:
                two_are_inside.set()
            await finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    guard = Guard(slow, limits=Limits(waiting=2), tokens=Tokens(), metrics=metrics)

    async def empty() -> Message:
        return {"type": "http.request"}

    async def story() -> list[Message]:
        waiting = [asyncio.create_task(ask(guard, empty)) for _ in range(2)]
        await two_are_inside.wait()
        assert "recsys_requests_inside" + '{replica="r1"} 2.0' in metrics.text().decode()
        refused = await ask(guard, empty)
        for path in ("/healthz", "/readyz", "/metrics"):
            statuses.append((await ask(guard, empty, path=path))[0]["status"])
        finish.set()
        statuses.extend([(await task)[0]["status"] for task in waiting])
        statuses.append((await ask(guard, empty))[0]["status"])
        return refused

    refused = asyncio.run(story())
    assert refused[0]["status"] == 503
    assert (b"retry-after", b"1") in refused[0]["headers"]
    assert "serve.max_waiting" in json.loads(refused[1]["body"])["detail"]
    assert statuses == [200] * 6
    text = metrics.text().decode()
    assert 'recsys_refused_total{reason="overload",replica="r1"} 1.0' in text
    assert 'recsys_requests_inside{replica="r1"} 0.0' in text


@pytest.mark.parametrize("good", ["a", "A.b_c-9", "x" * 64])
def test_a_request_id_is_taken(client: TestClient, good: str) -> None:
    for path in ("/v1/page", "/v1/fail", "/nothing"):
        answer = client.get(path, headers={"X-Request-ID": good})
        assert answer.headers["x-request-id"] == good
        assert answer.status_code == 200 or answer.json()["instance"] == good


@pytest.mark.parametrize("bad", ["", "x" * 65, "a b", "a\tb", "<b>", "a/b"])
def test_another_request_id_is_made(client: TestClient, bad: str) -> None:
    answer = client.get("/nothing", headers={"X-Request-ID": bad})
    assert answer.headers["x-request-id"] == answer.json()["instance"]
    assert len(answer.json()["instance"]) == 32
    again = client.get("/nothing", headers={"X-Request-ID": bad})
    assert again.json()["instance"] != answer.json()["instance"]


def test_where_the_server_gives_the_id_it_is_not_given_twice() -> None:
    answer = TestClient(make(Limits(), gives_id=False)).get("/nothing")
    assert "x-request-id" not in answer.headers and answer.json()["instance"]


@pytest.mark.parametrize(("given", "is_taken"), [(None, True), ("A.b_c-9", True), ("a b", False)])
def test_the_id_that_ray_serve_gives_is_ours_where_it_has_the_form(
    given: str | None, is_taken: bool
) -> None:
    """What serve/README.md says of it holds for the Ray that is installed."""
    from ray.serve._private.http_util import RequestIdMiddleware

    client = TestClient(RequestIdMiddleware(make(Limits(), gives_id=False)))
    answer = client.get("/nothing", headers={} if given is None else {"X-Request-ID": given})
    assert given in (None, answer.headers["x-request-id"])
    assert (answer.headers["x-request-id"] == answer.json()["instance"]) == is_taken


def test_headers_of_every_answer(client: TestClient) -> None:
    big = client.post("/v1/events", content=b"x" * 11)
    for answer in (client.get("/nothing"), client.get("/v1/fail"), big):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    assert client.get("/v1/page").headers.get_list("cache-control") == ["no-cache"]


def test_a_failure_is_a_problem_without_internals(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/v1/fail", headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "request r-1: /v1/fail failed" in caplog.text and "a secret" in caplog.text


def test_an_answer_that_fails_midway_is_not_made_whole() -> None:
    with pytest.raises(ZeroDivisionError):
        TestClient(make(Limits())).get("/v1/half")


def test_tokens_before_the_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E", TOKEN)
    tokens = Tokens.of(ServeConfig(host="0.0.0.0", events_token="env:E"))
    client = TestClient(make(Limits(), tokens))
    refused = client.post("/v1/events", content=b"x")
    assert (refused.status_code, refused.json()["title"]) == (401, "Unauthorized")
    assert refused.headers["www-authenticate"] == 'Bearer realm="recsys"'
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.post("/v1/events", content=b"x", headers=right).json() == 1
    other = client.put("/v1/videos/v1", content=b"x", headers=right)
    assert other.status_code == 403 and "www-authenticate" not in other.headers
    assert client.get("/v1/page").status_code == 200


def test_under_a_prefix_the_same_paths_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E", TOKEN)
    tokens = Tokens.of(ServeConfig(host="0.0.0.0", events_token="env:E"))
    client = TestClient(make(Limits(), tokens), root_path="/shop")
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.post("/shop/v1/events", content=b"x", headers=right).json() == 1


def test_requests_are_counted_by_route_and_not_by_id() -> None:
    metrics = Metrics("r1")
    client = TestClient(make(Limits(), metrics=metrics))
    for name in ("one", "two"):
        client.put(f"/v1/videos/{name}", content=b"x")
        client.get(f"/{name}")
    text = metrics.text().decode()
    count = 'recsys_request_seconds_count{replica="r1",route="%s",status="%s"} 2.0'
    assert count % ("/v1/videos/{video_id}", 200) in text
    assert count % ("none", 404) in text


@contextmanager
def listening(api: FastAPI, http: str) -> Iterator[socket.socket]:
    """A connection to the application behind uvicorn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api, http=http, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=30) as connection:
                yield connection
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_chunked_body_is_cut_off_on_the_wire(http: str) -> None:
    """The client goes on sending for ever; it gets its answer and the connection's end."""
    with listening(make(Limits(body_bytes=100_000)), http) as connection:
        connection.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        connection.sendall(chunk * 25)  # 102,400 bytes
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head = answer.split(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 413") and b"connection: close" in head
