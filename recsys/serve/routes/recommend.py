"""Recommendations, scores, and the lists that are the same for everybody."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

import recsys.serve.http.messages as m
from recsys.serve.asks import Answer
from recsys.serve.http.body import read_json, require_json
from recsys.serve.routes import links
from recsys.serve.service import Service

PATH = "/v1/recommend"
Count = Annotated[int, Query(ge=1, le=1000)]


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.post(PATH, response_model=m.RecommendResponse, responses=links.AFTER_RECOMMEND)
    async def recommend(request: m.RecommendRequest) -> Response:
        """The best videos for a user, best first.

        It sees every event that was acknowledged before, on any replica.
        """
        return await _recommend(service, request)

    @router.post("/v1/recommend/batch", response_model=m.BatchResponse)
    async def recommend_batch(request: m.BatchRequest) -> Response:
        """The best videos for many users; nothing is answered if one request is wrong."""
        answers = await service.answer_all([one.ask() for one in request.requests])
        return _json({"answers": [_recommendation(service, answer) for answer in answers]})

    @router.post("/v1/score", response_model=m.ScoreResponse)
    async def score(request: m.ScoreRequest) -> Response:
        """A retrieval score and a probability of each ranking task for given videos."""
        answer = await service.answer(request.ask())
        return _json(m.scores(answer))

    @router.get("/v1/similar", responses=links.AFTER_LIST)
    async def similar(
        video_id: m.AddressId, k: Count = 10, user_id: m.AddressId | None = None
    ) -> m.ListResponse:
        """The videos most like one, by the cosine of their vectors.

        For a user, without what they may not be shown: refused, of creators that they hid, locked.
        """
        return m.ranked(await service.similar(video_id, k, user_id))

    @router.get("/v1/popular", responses=links.AFTER_LIST)
    async def popular(k: Count = 10) -> m.ListResponse:
        """What is popular now, for everybody; the score is that of its popularity."""
        return m.ranked(await service.popular(k))

    @router.get("/v1/latest", responses=links.AFTER_LIST)
    async def latest(k: Count = 10) -> m.ListResponse:
        """The videos first shown last; the score is that time in Unix milliseconds."""
        return m.ranked(await service.latest(k))


async def respond(service: Service, request: Request) -> Response:
    """The answer to a request for recommendations, read without the framework.

    Raises:
        RequestValidationError: The body is wrong.
        HTTPException: It is not said to be JSON.
        InputError: As `Service.answer`.
    """
    require_json(request)
    tree = read_json(await request.body())
    try:
        wanted = m.RecommendRequest.model_validate(tree)
    except ValidationError as error:
        mistakes = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(mistakes) from None
    return await _recommend(service, wanted)


async def _recommend(service: Service, wanted: m.RecommendRequest) -> Response:
    return _json(_recommendation(service, await service.answer(wanted.ask())))


def _recommendation(service: Service, answer: Answer) -> dict[str, Any]:
    return m.recommendation(answer, service.shown(answer))


def _json(tree: Any) -> Response:
    """An answer that is what its model says: it was made of typed values, not checked again."""
    return Response(to_json(tree), media_type="application/json")
