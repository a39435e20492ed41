"""The HTTP endpoint as a plain FastAPI application: Ray Serve runs it, a test may do without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

import recsys.serve.messages as m
from recsys.errors import InputError
from recsys.serve.files import local_video
from recsys.serve.recommender import ServingRecommender

WEB = Path(__file__).parent / "web"
WEB_TYPES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
NO_SNIFF = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, runs no inline script and is not framed."""

REFUSED: dict[int | str, dict[str, Any]] = {422: {"model": m.ErrorResponse}}


def make_api(recommender: ServingRecommender) -> FastAPI:
    """The application that answers from one recommender."""
    api = FastAPI(title="recsys", version=recommender.bundle.version, redoc_url=None)
    _add_errors(api)
    _add_answers(api, recommender)
    _add_facts(api, recommender)
    _add_page(api)
    if recommender.bundle.config.serve.files:
        _add_files(api, recommender)
    return api


def _add_errors(api: FastAPI) -> None:
    """Every refusal is `{"error": one line}`."""

    @api.exception_handler(InputError)
    async def wrong_input(_: HttpRequest, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @api.exception_handler(RequestValidationError)
    async def wrong_message(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": explain(error)}, 422)

    @api.exception_handler(StarletteHTTPException)
    async def refused(_: HttpRequest, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def explain(error: RequestValidationError) -> str:
    """The first mistake of a request in one line."""
    details = error.errors()
    first = details[0]
    if first["type"] == "json_invalid":
        return f"the body is not valid JSON: {first['ctx']['error']}"
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}{more}"


def _add_answers(api: FastAPI, recommender: ServingRecommender) -> None:
    """A request's fields are the arguments of the method that answers it."""
    version = recommender.bundle.version

    @api.post("/v1/recommend", responses=REFUSED)
    def recommend(request: m.RecommendRequest) -> m.ItemsResponse:
        """The best videos for a user, best first."""
        answer = recommender.recommend(**dict(request))
        return m.ItemsResponse.of(answer, version)

    @api.post("/v1/score", responses=REFUSED)
    def score(request: m.ScoreRequest) -> m.ItemsResponse:
        """A retrieval score and a probability of each ranking task for given videos."""
        answer = recommender.score(**dict(request))
        return m.ItemsResponse.of(answer, version)

    @api.post("/v1/events", responses=REFUSED)
    def events(request: m.EventRequest) -> m.EventResponse:
        """Adds an event to a user's history; it is kept in this replica's memory."""
        kept = recommender.append(**dict(request))
        return m.EventResponse(user_id=request.user_id, num_history=kept)


def _add_facts(api: FastAPI, recommender: ServingRecommender) -> None:
    bundle = recommender.bundle
    config = bundle.config

    @api.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server answers, and from which bundle."""
        return {"status": "ok", "version": bundle.version}

    @api.get("/v1/model")
    async def model() -> m.ModelResponse:
        """What is served, and its limits."""
        return m.ModelResponse(
            version=bundle.version,
            created=bundle.manifest["created"],
            index=bundle.index.kind,
            num_videos=len(bundle.index),
            num_users=len(recommender.store),
            tasks=list(recommender.tasks),
            watched=config.data.columns.watched,
            context=list(config.data.columns.context),
            user_features=list(config.data.user_columns.features),
            rank=config.serve.rank,
            max_k=config.serve.max_k,
            max_videos=config.serve.max_videos,
            max_history=config.model.max_history,
            metrics=dict(bundle.manifest["metrics"]),
        )

    @api.get("/v1/users")
    async def users(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> m.UsersResponse:
        """Some known users, to try the endpoint with."""
        store = recommender.store
        return m.UsersResponse(num_users=len(store), user_ids=store.user_ids(limit))

    @api.get("/v1/history")
    async def history(
        user_id: Annotated[str, Query(min_length=1, max_length=256)],
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> m.HistoryResponse:
        """What a user did last, newest first."""
        return m.HistoryResponse(
            user_id=user_id,
            known_user=user_id in recommender.store,
            events=_past_events(recommender, user_id, limit),
        )


def _past_events(recommender: ServingRecommender, user_id: str, limit: int) -> list[m.PastEvent]:
    timeline = recommender.store.timeline(user_id)
    newest = range(int(timeline.offsets[-1]) - 1, -1, -1)[:limit]
    return [
        m.PastEvent(
            video_id=recommender.video_id(int(timeline.video_rows[i])),
            time_ms=int(timeline.time_ms[i]),
            positive=bool(timeline.positive[i]),
            actions={t: bool(timeline.labels[i, j]) for j, t in enumerate(recommender.tasks)},
            watched=float(timeline.watched[i, 0]) if recommender.watch_dim else None,
        )
        for i in newest
    ]


def _add_page(api: FastAPI) -> None:
    content = {name: (WEB / name).read_bytes() for name in WEB_TYPES}
    headers = {**NO_SNIFF, "Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

    def answer(name: str) -> Response:
        return Response(content[name], media_type=WEB_TYPES[name], headers=headers)

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return answer("index.html")

    @api.get("/web/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in content:
            raise HTTPException(404, "there is no such file")
        return answer(name)


def _add_files(api: FastAPI, recommender: ServingRecommender) -> None:
    uris = recommender.bundle.catalog.table.column("uri")
    videos = recommender.bundle.vocabs["video"]

    @api.get("/v1/videos/{video_id:path}/file", responses={404: {"model": m.ErrorResponse}})
    def video_file(video_id: str) -> FileResponse:
        """A video's own file, whole or a range of it, where it is a local one."""
        file = local_video(uris[videos.row(video_id)].as_py())
        if file is None:
            raise HTTPException(404, f"video_id={video_id}: no file of it is served here")
        path, media_type = file
        return FileResponse(path, media_type=media_type, headers=NO_SNIFF)
