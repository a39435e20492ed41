"""What the text of a request may be."""

import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from recsys.serve.http.body import StrictRoute, read_json
from recsys.serve.http.problems import add_problems

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    api = FastAPI()
    api.router.route_class = StrictRoute
    add_problems(api)

    @api.post("/echo")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @api.get("/text/{name}")
    async def text(name: str, user_id: str = "") -> list[str]:
        return [name, user_id]

    @api.put("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    return TestClient(api)


def refused(client: TestClient, body: bytes) -> dict[str, Any]:
    answer = client.post("/echo", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize(
    ("body", "pointer", "reason"),
    [
        (rb'{"user_id": "a\ud83d"}', "#/user_id", "lone surrogate) at place 2"),
        (rb'{"a": [{"b": "x"}, {"b": "\udc00"}]}', "#/a/1/b", "lone surrogate) at place 1"),
        (rb'{"labels": {"\ud83d": true}}', r"#/labels/\ud83d", "lone surrogate"),
        (rb'{"labels": {"x": true, "a/b~\u0000": true}}', "#/labels/a~1b~0 ", "NUL character"),
        (b'{"watched": NaN}', "#/watched", "not a number"),
        (b'{"watched": [1, -Infinity]}', "#/watched/1", "not a number"),
        (b'{"a": "\xed\xa0\xbd"}', "#", "not UTF-8 at byte 7"),
        (b'{"a": "caf\xe9"}', "#", "not UTF-8 at byte 10"),
        ('{"a": 1}'.encode("utf-16"), "#", "not UTF-8 at byte 0"),
        (b"{", "#", "not valid JSON at character 1"),
        (b'{"a": "\x00"}', "#", "not valid JSON at character 7"),
        (b'{"a": ' + b"9" * 5000 + b"}", "#", "too many digits"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "#", "deeper than 32 levels"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "#", "deeper than 32 levels"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "#", "deeper than 32 levels"),
    ],
)
def test_what_a_body_must_not_hold(
    client: TestClient, body: bytes, pointer: str, reason: str
) -> None:
    document = refused(client, body)
    (error,) = document["errors"]
    assert error["pointer"] == pointer.strip()
    assert reason in error["detail"] and error["detail"] in document["detail"]


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a": "\ud83d\ude00", "b": "\u00e9", "c": ""}',
        b'{"a": "NaN", "Infinity": ["-Infinity", null, 1.5, 2, true]}',
        b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}",
        b'{"a": [' + b",".join([b'{"b": []}'] * 40) + b"]}",
        b'{"a": "' + b"[{" * 100 + b'"}',
        '{"größe": "x\u2028"}'.encode(),
    ],
)
def test_what_a_body_may_hold(client: TestClient, body: bytes) -> None:
    answer = client.post("/echo", content=body, headers=JSON)
    assert answer.status_code == 200
    assert answer.json() == json.loads(body)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/LD+JSON"])
def test_kinds_of_json(client: TestClient, kind: str) -> None:
    answer = client.post("/echo", content=b"{}", headers={"Content-Type": kind})
    assert answer.json() == {}


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "a/b"}]
)
def test_a_body_that_is_not_said_to_be_json(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/echo", content=b'{"user_id": "u1"}', headers=headers)
    given = headers.get("Content-Type", "none")
    assert answer.status_code == 415
    assert answer.json()["detail"] == (
        f"Content-Type: {given}: the body must be JSON; send Content-Type: application/json"
    )


def test_no_body_is_missing_and_a_route_without_json_takes_any(client: TestClient) -> None:
    answer = client.post("/echo")
    assert (answer.status_code, answer.json()["detail"]) == (422, "the body: field required")
    assert client.put("/raw", content=b"\xff\xfe").json() == 2


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("/text/x?user_id=%ED%A0%BD", "query"),
        ("/text/x?user_id=%FF", "query"),
        ("/text/x?user_id=a%00", "query"),
        ("/text/%ED%A0%BD", "path"),
        ("/text/%00", "path"),
    ],
)
def test_text_of_an_address(client: TestClient, address: str, parameter: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_text_of_an_address_that_is_fine(client: TestClient) -> None:
    assert client.get("/text/caf%C3%A9?user_id=%F0%9F%98%80+1").json() == ["café", "😀 1"]


def test_depth_is_found_in_whatever_stack_there_is() -> None:
    """A hostile body never ends in a RecursionError, however deep the caller stands already."""

    def deep(levels: int) -> None:
        if levels:
            return deep(levels - 1)
        with pytest.raises(RequestValidationError, match="deeper than 32"):
            read_json(b"[" * 900 + b"]" * 900)

    deep(600)
