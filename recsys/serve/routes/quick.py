"""The short way of the one route that is asked most: /v1/recommend without a framework between.

What a framework does for each request (finding the route, solving what its function depends on,
layers of error handling) costs more than the recommendation itself. The checks, the messages and
the refusals are those of the other routes, and the documented route in `routes/recommend.py` gives
the same answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.serve.http.body import check_address, check_query
from recsys.serve.http.problems import refusal
from recsys.serve.routes.recommend import PATH

ROUTE = SimpleNamespace(path=PATH)
"""What the guard counts the requests under."""


class Quick:
    """ASGI middleware that answers one route itself.

    Args:
        app: Answers all others.
        respond: Answers this one.
    """

    def __init__(self, app: ASGIApp, respond: Callable[[Request], Awaitable[ASGIApp]]) -> None:
        self._app, self._respond = app, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        quick = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        if not quick:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        scope["route"] = ROUTE
        try:
            check_address(scope)
            check_query(request, ())
            response = await self._respond(request)
        except Exception as error:
            refused = refusal(request, error)
            if refused is None:
                raise
            response = refused
        await response(scope, receive, send)
