"""The HTTP endpoint as a plain ASGI application: Ray Serve runs it, a test may do without."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.serve.http.body import StrictRoute
from recsys.serve.http.docs import add_docs
from recsys.serve.http.document import add_limits
from recsys.serve.http.guard import MIB, Guard, Limits
from recsys.serve.http.problems import add_problems
from recsys.serve.http.tokens import Tokens
from recsys.serve.routes import (
    details,
    events,
    facts,
    media_pass,
    operator,
    page,
    recommend,
    versions,
    videos,
)
from recsys.serve.routes.quick import Quick
from recsys.serve.service import Service

ROUTES = (recommend, details, events, facts, versions, operator, page, videos)
"""The modules of the routes; a new one is one more."""


class Api(FastAPI):
    """FastAPI with layers before everything that it does itself."""

    front: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if self.front is None:
            await super().__call__(scope, receive, send)
        else:
            await self.front(scope, receive, send)


def make_api(
    service: Service,
    *,
    tokens: Tokens | None = None,
    gives_id: bool = True,
    address: str | None = None,
) -> FastAPI:
    """The application that answers from a service.

    Args:
        service: Of one replica.
        tokens: Who may do what; without them as the bundle's settings say.
        gives_id: Whether answers carry the id of their request; Ray Serve adds its own.
        address: Where the server is found, for the documentation; without it as the settings say.
    """
    serve = service.bundle.config.serve
    tokens = Tokens.of(serve) if tokens is None else tokens
    api = Api(
        title="recsys",
        version="v1",  # of the API; which bundle answers changes, and is in each answer
        redoc_url=None,
        docs_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    api.router.route_class = StrictRoute
    for module in ROUTES:
        module.routes(service, api.router)
    media_pass.routes(tokens, api.router)
    add_problems(api)
    add_limits(api, serve)
    add_docs(api, address or f"http://{serve.host}:{serve.port}")
    api.front = Guard(
        Quick(super(Api, api).__call__, partial(recommend.respond, service)),
        limits=Limits.of(serve, {videos.PATH: serve.max_upload_mib * MIB}),
        tokens=tokens,
        metrics=service.metrics,
        gives_id=gives_id,
    )
    return api
