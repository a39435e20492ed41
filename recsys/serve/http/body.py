"""What the text of a request may be, checked in one place before any route reads it.

JSON as RFC 8259 has it: UTF-8, numbers that are numbers, not nested without end, and only text that
every database can keep, in names as in values. The text of an address by the same rule, and of the
query only the parameters that there are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from recsys.errors import InputError
from recsys.live.text import check_text

MOST_NESTED = 32
"""Deepest nesting of lists and objects in a body."""
SUSPICIOUS = ("\\u", "NaN", "Infinity")
"""A body without any of these holds neither half characters, NULs nor numbers that are none."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Place = tuple[str | int, ...]


class StrictRoute(APIRoute):
    """A route whose requests are checked first: `FastAPI().router.route_class = StrictRoute`."""

    def get_route_handler(self) -> Handler:
        """The handler that FastAPI makes, with the checks before it."""
        handle = super().get_route_handler()
        reads_json = self.body_field is not None
        # A page may be opened with whatever its visitors or their mail programs add.
        parameters = list(self._parameters()) if self.include_in_schema else None

        async def checked(request: Request) -> Response:
            check_address(request.scope)
            if parameters is not None:
                check_query(request, parameters)
            if reads_json and (body := await request.body()):
                require_json(request)
                request._json = read_json(body)  # what `request.json()` gives from now on
            return await handle(request)

        return checked

    def _parameters(self) -> Iterator[str]:
        """The names of all that the query may say; a model is one for each of its fields."""
        for parameter in self.dependant.query_params:
            kind = parameter.field_info.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from (field.alias or name for name, field in kind.model_fields.items())
            else:
                yield parameter.alias


def check_query(request: Request, parameters: Sequence[str]) -> None:
    """Refuses a query that says something else than a route asks.

    A name that is mistaken would otherwise be a filter or a limit that is not obeyed.

    Raises:
        RequestValidationError: It does.
    """
    if not request.scope["query_string"]:
        return
    unknown = [name for name in request.query_params if name not in parameters]
    if unknown:
        allowed = f"allowed are {', '.join(parameters)}" if parameters else "there are none here"
        text = f"unknown parameter; {allowed}"
        raise RequestValidationError(
            [{"type": "not_allowed", "loc": ("query", name), "msg": text} for name in unknown]
        )


def require_json(request: Request) -> None:
    """Refuses a body that is not said to be JSON.

    Without this a page of another site could send one through its reader's browser, which asks for
    leave only where the type is not one of a form's.

    Raises:
        HTTPException: Its type is another one, or none.
    """
    given = request.headers.get("content-type", "none")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not re.fullmatch(r"application/\S+\+json", kind):
        raise HTTPException(
            415,
            f"Content-Type: {given}: the body must be JSON; send Content-Type: application/json",
        )


def read_json(body: bytes) -> Any:
    """The value of a JSON document.

    Raises:
        RequestValidationError: It is not JSON, or holds what the module does not allow; the error
            says where.
    """
    try:
        text = body.decode()
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise _refused((), f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _refused((), f"not valid JSON at character {error.pos}: {error.msg}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise _refused((), "a number with too many digits") from None
    except RecursionError:
        raise _too_deep() from None
    # No more brackets than that cannot be nested deeper; most bodies have a few.
    if text.count("[") + text.count("{") > MOST_NESTED and _is_deeper(value, MOST_NESTED):
        raise _too_deep()
    if any(sign in text for sign in SUSPICIOUS):
        for place, leaf in _leaves(value, ()):
            _check_leaf(place, leaf)
    return value


def check_address(scope: Scope) -> None:
    """Refuses a path or a query whose text is not UTF-8 or holds a NUL.

    Servers and frameworks put a replacement character in place of what they cannot read, so an id
    would be another one without a word.

    Raises:
        RequestValidationError: It is refused.
    """
    for part, raw in (("path", scope.get("raw_path") or b""), ("query", scope["query_string"])):
        if b"%" not in raw and raw.isascii():
            continue
        try:
            text = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise _refused((), "not UTF-8; send whole characters", source=part) from None
        if "\0" in text:
            raise _refused((), "a NUL character; leave it out", source=part)


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested in more levels than that."""
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    for child in value.values() if isinstance(value, dict) else value:
        # Asked here too, for a call for each text and number would cost twice the parsing.
        if isinstance(child, (dict, list)) and _is_deeper(child, levels - 1):
            return True
    return False


def _too_deep() -> RequestValidationError:
    return _refused((), f"nested deeper than {MOST_NESTED} levels")


def _leaves(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    """All names, texts and numbers of a document, with their places."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*place, name), name
            yield from _leaves(inner, (*place, name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*place, i))
    else:
        yield place, value


def _check_leaf(place: Place, leaf: object) -> None:
    if isinstance(leaf, float) and not math.isfinite(leaf):
        raise _refused(place, "not a number; send a finite one or leave it out")
    if isinstance(leaf, str) and leaf:
        try:
            check_text(leaf, "text", longest=len(leaf))
        except InputError as error:
            raise _refused(place, str(error)) from None


def _refused(place: Place, message: str, source: str = "body") -> RequestValidationError:
    loc = (source, *place) if source == "body" else (source, source)
    return RequestValidationError([{"type": "not_allowed", "loc": loc, "msg": message}])
