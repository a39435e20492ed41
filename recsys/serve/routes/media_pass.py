"""The exchange of a token for a cookie that opens pictures and clips."""

from __future__ import annotations

import time

from fastapi import APIRouter
from pydantic.dataclasses import dataclass
from starlette.requests import Request
from starlette.responses import Response

from recsys.serve.http.media_pass import COOKIE, FOLDER, LASTS_S
from recsys.serve.http.messages import Described
from recsys.serve.http.tokens import Tokens

PATH = "/v1/media_pass"


@dataclass(config=Described)
class MediaPassResponse:
    """The answer of /v1/media_pass; the pass itself is in the cookie."""

    expires_ms: int | None
    """Until when the pass is good; null where none is needed, since everybody may read."""


def routes(tokens: Tokens, router: APIRouter) -> None:
    """Adds the route to a router."""

    @router.post(PATH)
    async def media_pass(request: Request, response: Response) -> MediaPassResponse:
        """Gives a cookie for the token that is sent, which opens posters and files of videos."""
        expires_s = int(time.time()) + LASTS_S
        authorization = request.headers.get("authorization", "").encode("latin-1")
        value = tokens.media_pass(authorization, expires_s)
        if value is None:
            return MediaPassResponse(None)
        response.set_cookie(
            COOKIE,
            value,
            max_age=LASTS_S,
            path=request.scope.get("root_path", "") + FOLDER,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return MediaPassResponse(1000 * expires_s)
