"""The route that names videos for people: titles, creators, posters."""

from __future__ import annotations

from fastapi import APIRouter

from recsys.serve.details import DetailsRequest, DetailsResponse, details_of
from recsys.serve.service import Service


def routes(service: Service, router: APIRouter) -> None:
    """Adds the route to a router."""

    @router.post("/v1/details")
    async def details(request: DetailsRequest) -> DetailsResponse:
        """What a person is shown of videos; lists of recommendations hold their ids alone."""
        ids = request.video_ids
        return await service.read(lambda one: details_of(one.bundle, one.catalogue, ids))
