"""Every refusal of the server as a problem document (RFC 9457), with one line that says why.

    {"type": "about:blank", "title": "Unprocessable Content", "status": 422,
     "detail": "k='3': input should be a valid integer", "instance": "4f1c…",
     "errors": [{"pointer": "#/k", "value": "'3'", "detail": "input should be a valid integer"}]}

`instance` is the request's id, as in the answer's X-Request-ID (`Guard` says when it is not).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from recsys.errors import InputError
from recsys.live.store.database import LogError
from recsys.live.text import shown
from recsys.serve.asks import NoAnswer
from recsys.serve.http.messages import ONE, SEVERAL

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "recsys.request_id"
"""Where the guard leaves a request's id in the ASGI scope."""
RETRY_AFTER_S = 1
"""When a request that could not be answered for now may be sent again."""
MOST_ERRORS = 20
"""Most mistakes that one document lists."""
LONGEST_DETAIL = 1000
"""Most characters of a line: what it quotes may be as long as the request."""

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
"""The names that HTTP gives to what the server may answer; they may be shown in its documents."""


class Mistake(TypedDict, total=False):
    """One wrong value of a request: where it stands, and what is wrong."""

    pointer: str
    """In the body: a JSON pointer as a fragment, `#/items/0/video_id`."""
    parameter: str
    """In the address: the parameter's name."""
    value: str
    """What was given, cut short; absent where nothing was, or where the place is what is wrong."""
    detail: str


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    mistakes: Sequence[Mistake] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as an answer.

    Args:
        status: Of HTTP.
        detail: What is wrong and what is allowed; made one line that UTF-8 can carry.
        request_id: Of the request that it answers.
        mistakes: The wrong values, where there are any.
        headers: What else the answer's head says.
    """
    content: dict[str, object] = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": one_line(detail),
        "instance": request_id,
    }
    if mistakes:
        content["errors"] = [
            {name: one_line(str(text)) for name, text in mistake.items()}
            for mistake in mistakes[:MOST_ERRORS]
        ]
    body = json.dumps(content, ensure_ascii=False).encode()
    return Response(body, status, headers, media_type=MEDIA_TYPE)


def one_line(text: str) -> str:
    r"""A text on one line and not too long, with halves of characters written as escapes.

    >>> one_line("a\nb \ud83d")
    'a b \\ud83d'
    """
    kept = text.encode("utf-8", "backslashreplace").decode()
    line = " ".join("".join(c if c.isprintable() else " " for c in kept).split())
    return line if len(line) <= LONGEST_DETAIL else f"{line[: LONGEST_DETAIL - 1]}…"


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One line: what is wrong, what is allowed."},
        "instance": {"type": "string", "description": "Id of the request, as in X-Request-ID."},
        "errors": {
            "type": "array",
            "description": "The wrong values, where there are any.",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "In the body, as RFC 6901."},
                    "parameter": {"type": "string", "description": "In the address."},
                    "value": {"type": "string", "description": "What was given, cut short."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
OF_ALL = {
    401: "A token is needed: `Authorization: Bearer TOKEN`.",
    403: "The token is for something else, the server takes no such change, or a page of another "
    "site asks for it.",
    422: "A value is wrong; `errors` say which.",
    500: "The server failed; its log has the reason under the request's id.",
    503: "Too many requests are waiting, the event log cannot be reached, or what was asked for "
    "was not ready in time and nothing can stand in for it; try again after `Retry-After` seconds.",
}
"""What any request may be refused for, by status."""
OF_BODIES = {
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not JSON by its `Content-Type`.",
}
"""What a request with a body may be refused for besides."""


def add_problems(api: FastAPI) -> None:
    """Makes an application answer each refusal with a problem document, and its OpenAPI say so."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        known = api.openapi_schema is not None
        document = plain()
        return document if known else document_problems(document)

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI has it done

    for kind in (InputError, RequestValidationError, HTTPException, LogError, NoAnswer):

        @api.exception_handler(kind)
        async def refused(request: Request, error: Exception) -> Response:
            response = refusal(request, error)
            assert response is not None
            return response


def refusal(request: Request, error: Exception) -> Response | None:
    """The problem document of an error that a caller is told of; None of one that is ours."""
    request_id = str(request.scope.get(REQUEST_ID, ""))
    if isinstance(error, RequestValidationError):
        mistakes = [mistake_of(detail) for detail in error.errors()]
        return problem(422, summary(mistakes), request_id, mistakes=mistakes)
    if isinstance(error, InputError):
        return problem(422, str(error), request_id)
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            error.headers = {"Allow": _allowed(request)}
        detail = _detail_of(request, error)
        return problem(error.status_code, detail, request_id, headers=error.headers)
    if isinstance(error, (LogError, NoAnswer)):
        text = str(error)
        if isinstance(error, LogError):
            # The database's own words name its address, which is nothing for a caller.
            logger.warning("request %s: %s", request_id, error)
            text = "the event log cannot be reached now; send the same request again"
        return problem(503, text, request_id, headers={"Retry-After": str(RETRY_AFTER_S)})
    return None


def document_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Writes into an OpenAPI document, in place, how each operation may refuse."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for framework in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)  # the framework's
            refusals = OF_ALL | (OF_BODIES if "requestBody" in operation else {})
            for status, meaning in refusals.items():
                operation["responses"].setdefault(str(status), {"description": meaning})
            for status, answer in operation["responses"].items():
                if status >= "400":  # a route may have an answer of its own beside the problem
                    answer["content"] = answer.get("content", {}) | content
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return document


def mistake_of(detail: Mapping[str, Any]) -> Mistake:
    """What pydantic says of a wrong value, in our words."""
    # "[key]" is pydantic's mark of a wrong name in a mapping, whose place is the name before it.
    source, *place = (part for part in detail["loc"] if part not in (ONE, SEVERAL, "[key]"))
    text = str(detail["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if detail["type"] in ("string_too_long", "string_too_short"):  # as pydantic says it of lists
        text = f"{text}, not {len(detail['input'])}"
    mistake: Mistake = {"detail": text}
    if source == "body":
        mistake["pointer"] = _pointer(place)
    else:
        mistake["parameter"] = ".".join(map(str, place))
    if place and (value := _value(detail)) is not None:
        mistake["value"] = value
    return mistake


WITHOUT_VALUE = ("missing", "extra_forbidden", "too_long", "too_short")
"""Mistakes of which no value is shown: nothing was given, or what is wrong is its name or size."""


def _value(detail: Mapping[str, Any]) -> str | None:
    """What was given, for the message; None where it would say nothing."""
    is_name = "[key]" in detail["loc"]  # which its place shows already
    if "input" not in detail or is_name or detail["type"] in WITHOUT_VALUE:
        return None
    given = detail["input"]
    if detail["type"] == "value_error" and isinstance(given, dict):
        return None  # a check of ours across fields, which names them
    return json.dumps(given) if given is None or isinstance(given, bool) else shown(given)


def summary(mistakes: Sequence[Mistake]) -> str:
    """The first mistake in one line, and how many more there are.

    >>> first: Mistake = {"pointer": "#/items/0/k", "value": "99", "detail": "too large"}
    >>> summary([first, {"pointer": "#", "detail": ""}])
    'items.0.k=99: too large (and 1 more)'
    """
    first = mistakes[0]
    pointer = first.get("pointer", "#").removeprefix("#").removeprefix("/")
    dotted = ".".join(_unescaped(part) for part in pointer.split("/"))
    where = first.get("parameter") or dotted or "the body"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    given = f"={first['value']}" if "value" in first else ""
    return f"{where}{given}: {first['detail']}{more}"


def _pointer(place: Sequence[object]) -> str:
    """RFC 6901, as a fragment: `~` and `/` in a name are escaped."""
    parts = (str(part)[:100].replace("~", "~0").replace("/", "~1") for part in place)
    return "".join(["#", *(f"/{part}" for part in parts)])


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _detail_of(request: Request, error: HTTPException) -> str:
    """The line of a refusal; where the framework gives none of its own, what was asked for."""
    if error.detail not in TITLES.values():
        return str(error.detail)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another")
        return f"{request.method} {request.url.path}: this method is not allowed; use {allowed}"
    return f"{request.method} {request.url.path}: {str(error.detail).lower()}"


def _allowed(request: Request) -> str:
    """The methods of all routes at an address; the framework names those of the first alone."""
    here = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))
