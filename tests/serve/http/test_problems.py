"""Refusals as problem documents."""

import json
from typing import Annotated

import pytest
from fastapi import FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recsys.errors import InputError
from recsys.serve.http.guard import Guard, Limits
from recsys.serve.http.problems import OF_ALL, OF_BODIES, TITLES, add_problems, one_line, problem
from recsys.serve.http.tokens import Tokens
from recsys.serve.metrics import Metrics


class Inner(BaseModel):
    score: float


class Pair(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self) -> "Pair":
        if self.low >= self.high:
            raise ValueError(f"low={self.low}: must be below high={self.high}")
        return self


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: int = Field(ge=1)
    inner: list[Inner] = []
    names: dict[str, int] = {}
    title: str = Field("", max_length=5)
    pair: Pair | None = None

    @field_validator("k")
    @classmethod
    def _odd(cls, k: int) -> int:
        if k % 2 == 0:
            raise ValueError("Must be odd")
        return k


@pytest.fixture(scope="module")
def api() -> FastAPI:
    api = FastAPI()
    add_problems(api)
    api.add_middleware(Guard, limits=Limits(), tokens=Tokens(), metrics=Metrics("r1"))

    @api.post("/v1/things")
    async def things(body: Body) -> int:
        if body.k == 9:
            raise InputError("k=9: must be\n  below 9 \ud83d")
        return body.k

    @api.get("/v1/list")
    async def listed(limit: Annotated[int, Query(ge=1)] = 1) -> int:
        if limit == 5:
            raise HTTPException(404, "video_id=v5: there is no such video")
        return limit

    return api


@pytest.fixture(scope="module")
def client(api: FastAPI) -> TestClient:
    return TestClient(api)


def test_a_document_has_all_members(client: TestClient) -> None:
    answer = client.post("/v1/things", json={"k": 9}, headers={"X-Request-ID": "r-7"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "k=9: must be below 9 \\ud83d",
        "instance": "r-7",
    }


@pytest.mark.parametrize(
    ("body", "detail", "errors"),
    [
        ({}, "k: field required", [("#/k", None, "field required")]),
        ({"k": 2}, "k=2: must be odd", [("#/k", "2", "must be odd")]),
        (
            {"k": 0, "n": 1},
            "k=0: input should be greater than or equal to 1 (and 1 more)",
            [
                ("#/k", "0", "input should be greater than or equal to 1"),
                ("#/n", None, "extra inputs are not permitted"),
            ],
        ),
        (
            {"k": 1, "inner": [{"score": 1}, {}]},
            "inner.1.score: field required",
            [("#/inner/1/score", None, "field required")],
        ),
        (
            {"k": 1, "names": {"a/b~c": None}},
            "names.a/b~c=null: input should be a valid integer",
            [("#/names/a~1b~0c", "null", "input should be a valid integer")],
        ),
        (
            {"k": 1, "names": [True]},
            "names=[True]: input should be a valid dictionary",
            [("#/names", "[True]", "input should be a valid dictionary")],
        ),
        (
            {"k": 1, "title": "too long"},
            "title='too long': string should have at most 5 characters, not 8",
            [("#/title", "'too long'", "string should have at most 5 characters, not 8")],
        ),
        (
            {"k": 1, "pair": {"low": 2, "high": 1}},
            "pair: low=2: must be below high=1",
            [("#/pair", None, "low=2: must be below high=1")],
        ),
        (
            [],
            "the body: input should be a valid dictionary or object to extract fields from",
            [("#", None, "input should be a valid dictionary or object to extract fields from")],
        ),
    ],
)
def test_wrong_values_of_a_body(
    client: TestClient, body: object, detail: str, errors: list[tuple[str, str | None, str]]
) -> None:
    answer = client.post("/v1/things", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)
    told = [(e["pointer"], e.get("value"), e["detail"]) for e in answer.json()["errors"]]
    assert told == errors


def test_a_wrong_parameter(client: TestClient) -> None:
    answer = client.get("/v1/list?limit=0")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error == {
        "parameter": "limit",
        "value": "'0'",
        "detail": "input should be greater than or equal to 1",
    }
    assert answer.json()["detail"] == f"limit='0': {error['detail']}"


def test_no_more_mistakes_are_listed_than_a_reader_needs(client: TestClient) -> None:
    answer = client.post("/v1/things", json={"k": 1, **{f"x{i}": 0 for i in range(1000)}})
    assert len(answer.json()["errors"]) == 20
    assert answer.json()["detail"].endswith("(and 999 more)")


def test_a_long_name_does_not_come_back_whole(client: TestClient) -> None:
    answer = client.post("/v1/things", json={"k": 1, "x" * 10_000: 0})
    assert answer.json()["errors"][0]["pointer"] == "#/" + "x" * 100
    assert len(answer.content) < 1000


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000)), {"x" * 10_000: "y"}])
def test_a_long_value_does_not_come_back_whole(client: TestClient, value: object) -> None:
    answer = client.post("/v1/things", json={"k": value})
    assert answer.status_code == 422
    assert 0 < len(answer.json()["errors"][0]["value"]) <= 80
    assert len(answer.content) < 1000


def test_what_is_not_there_and_what_is_not_allowed(client: TestClient) -> None:
    assert client.get("/nothing").json()["detail"] == "GET /nothing: not found"
    answer = client.get("/v1/things")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["detail"] == ("GET /v1/things: this method is not allowed; use POST")
    answer = client.get("/v1/list?limit=5")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")
    assert answer.json()["detail"] == "video_id=v5: there is no such video"


def test_a_line_is_one_and_not_too_long() -> None:
    assert one_line(" a\r\n\tb\x1b[31m\u2028c ") == "a b [31m c"
    assert len(one_line("x" * 5000)) == 1000
    body = bytes(problem(404, "größe", "r").body)
    assert json.loads(body)["detail"] == "größe"


def test_every_operation_tells_how_it_refuses(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    read = {str(status) for status in OF_ALL}
    assert set(paths["/v1/list"]["get"]["responses"]) == {"200", *read}
    body = {str(status) for status in OF_BODIES}
    assert set(paths["/v1/things"]["post"]["responses"]) == {"200", *read, *body}
    refusal = paths["/v1/things"]["post"]["responses"]["422"]
    schema = refusal["content"]["application/problem+json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert client.get("/openapi.json").json() == document
    assert TITLES.keys() >= OF_ALL.keys() | OF_BODIES.keys()
