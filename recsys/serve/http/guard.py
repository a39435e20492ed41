"""What stands before the routes: sizes, overload, tokens, other sites, ids, headers, figures.

Plain ASGI, because every request passes here and a thousand a second share one core.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.config.run import ServeConfig
from recsys.serve.http.problems import REQUEST_ID, RETRY_AFTER_S, problem
from recsys.serve.http.tokens import Tokens, needed_scope
from recsys.serve.metrics import Metrics

logger = logging.getLogger(__name__)

MIB = 2**20
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})
"""What probes and Prometheus ask for is answered under overload too; else a busy server is killed
for being busy."""
FIXED_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not say otherwise itself."""
SLOWEST = 4096
"""Bytes of a body that must come in a second, but for the first `Limits.body_s` seconds."""
CLOSE = {"Connection": "close"}
"""With a body that was not read to its end the connection is of no more use."""
IDS = random.Random(os.urandom(16))
"""Of requests: they must differ, not be secret."""
A_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Limits:
    """What one replica takes in."""

    body_bytes: int = MIB
    """Largest body."""
    body_bytes_under: Mapping[str, int] = field(default_factory=dict)
    """Largest body of a path, or of all under one that ends in `/`, where it is another."""
    body_s: float = 30.0
    """Longest that each part of a body may be waited for, in seconds."""
    waiting: int = 256
    """Most requests that are inside at a time."""

    @classmethod
    def of(cls, config: ServeConfig, body_bytes_under: Mapping[str, int] | None = None) -> Limits:
        """The limits that a config sets."""
        return cls(
            body_bytes=config.max_body_mib * MIB,
            body_bytes_under=body_bytes_under or {},
            waiting=config.max_waiting,
        )

    def largest_body(self, path: str) -> int:
        """In bytes, of a request for this path."""
        for prefix, limit in self.body_bytes_under.items():
            if path == prefix or (prefix.endswith("/") and path.startswith(prefix)):
                return limit
        return self.body_bytes


class Guard:
    """ASGI middleware: `FastAPI().add_middleware(Guard, limits=…, tokens=…, metrics=…)`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        tokens: Tokens,
        metrics: Metrics,
        gives_id: bool = True,
    ) -> None:
        """Puts the guard before an application.

        Args:
            app: What answers.
            limits: Of sizes and numbers.
            tokens: Who may do what.
            metrics: Where each answer is counted.
            gives_id: Whether answers get the header X-Request-ID here. Ray Serve adds its own: the
                caller's id as it came, also one that is not taken here.
        """
        self._app, self._limits, self._tokens, self._metrics = app, limits, tokens, metrics
        self._gives_id = gives_id
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if A_REQUEST_ID.fullmatch(given) else b"%032x" % IDS.getrandbits(128)
        scope[REQUEST_ID] = request_id.decode()
        answer = _Answer(send, request_id if self._gives_id else b"")
        try:
            await self._admit(scope, headers, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(_route(scope), answer.status, seconds)

    async def _admit(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, answer: _Answer
    ) -> None:
        """Hands a request to the application, or refuses it before its body is read."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        try:
            _check_site(scope["method"], headers)
            self._check_token(scope["method"], path, headers)
            body = _Body(receive, self._limits.largest_body(path), self._limits.body_s)
            body.check_announced(headers.get(b"content-length", b""))
            if path in ALWAYS_ANSWERED:
                await self._answer(scope, body, answer)
                return
            self._check_room()
        except HTTPException as error:
            refusal = problem(
                error.status_code, error.detail, scope[REQUEST_ID], headers=error.headers
            )
            await refusal(scope, receive, answer)
            return
        self._inside += 1
        self._metrics.inside(self._inside)
        try:
            await self._answer(scope, body, answer)
        finally:
            self._inside -= 1
            self._metrics.inside(self._inside)

    async def _answer(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        """Lets the application answer; what it did not foresee is a 500 that tells nothing."""
        try:
            await self._app(scope, body, answer)
        except ClientDisconnect:  # nobody is there to answer
            pass
        except Exception:
            logger.exception("request %s: %s failed", scope[REQUEST_ID], scope["path"])
            if answer.status:
                raise  # it has begun: the server cuts it off, so that nobody takes it as whole
            text = "the server failed; its log has the reason under this request's id"
            await problem(500, text, scope[REQUEST_ID])(scope, body, answer)

    def _check_token(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        authorization, cookies = headers.get(b"authorization", b""), headers.get(b"cookie", b"")
        refusal = self._tokens.refusal(needed_scope(method, path), authorization)
        if refusal is not None and not self._tokens.passes(method, path, cookies):
            status, text = refusal
            challenge = {"WWW-Authenticate": 'Bearer realm="recsys"'} if status == 401 else {}
            raise HTTPException(status, text, {**challenge, **CLOSE})

    def _check_room(self) -> None:
        most = self._limits.waiting
        if self._inside >= most:
            self._metrics.refused("overload")
            raise HTTPException(
                503,
                f"{most} requests are waiting here already (serve.max_waiting); try again later",
                {"Retry-After": str(RETRY_AFTER_S)},
            )


def _check_site(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Refuses a change that a page of another site asks for, through the browser of its reader.

    A browser says itself where a page is from, also where a proxy has changed the Host. To servers
    without TLS at other addresses than its own machine's it says the page's origin alone.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is None:  # clients that are no browsers send neither
        other = origin is not None and origin.partition(b"://")[2] != headers.get(b"host")
    else:
        other = site in (b"cross-site", b"same-site")
    if other:
        text = "a page of another site asks for this in a browser, and only this server's own may"
        raise HTTPException(
            403, f"{text}; behind a proxy, see that it keeps the Host header", CLOSE
        )


class _Answer:
    """The way back: adds the headers that every answer has, and remembers the status."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            named = {name for name, _ in headers}
            headers += [header for header in FIXED_HEADERS if header[0] not in named]
            if self._request_id:
                headers.append((b"x-request-id", self._request_id))
        await self._send(message)


class _Body:
    """The way in: ends a request whose body is too large or does not come."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._read, self._waited_s = 0, 0.0
        self._complete = False

    def check_announced(self, length: bytes) -> None:
        """Refuses a body by its Content-Length, before any of it is read."""
        # Longer than 15 digits is more than any limit, and more than Python likes to read.
        if length.isdigit() and (len(length) > 15 or int(length) > self._limit):
            raise self._too_large()

    async def __call__(self) -> Message:
        if self._complete:  # from here on the application waits for the client to leave
            return await self._receive()
        # Else a byte now and then would keep one of the few places for ever.
        left_s = self._seconds + self._read / SLOWEST - self._waited_s
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(min(self._seconds, left_s)):
                message = await self._receive()
        except TimeoutError:
            slow = f"nothing of the body came for {self._seconds:g} s"
            if left_s < self._seconds:
                slow = f"the body came at less than {SLOWEST} bytes a second"
            raise HTTPException(408, f"{slow}; send it again", CLOSE) from None
        self._waited_s += time.perf_counter() - begun
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise self._too_large()
        self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        text = f"the body is larger than {self._limit} bytes, the most for this address"
        return HTTPException(413, f"{text}; send less at a time (serve.max_body_mib)", CLOSE)


def _route(scope: Scope) -> str:
    """The route's own text, `/v1/videos/{video_id}/file`, so that ids are no labels."""
    return getattr(scope.get("route"), "path", "none")
