"""What people are shown: titles, creators and posters of videos, and courses with their lessons."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from recsys.serve.http.messages import AddressId
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.users.courses import CoursesResponse
from recsys.serve.videos.details import DetailsRequest, DetailsResponse, details_of


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.post("/v1/details")
    async def details(request: DetailsRequest) -> DetailsResponse:
        """What a person is shown of videos; lists of recommendations hold their ids alone."""
        ids = request.video_ids
        return await service.read(lambda one: details_of(one.bundle, one.catalogue, ids))

    @router.get("/v1/courses")
    async def courses(
        user_id: AddressId, limit: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> CoursesResponse:
        """How far a user is in the courses, each with its lessons in order and the next one.

        It sees every event that was acknowledged before, on any replica.
        """

        def look(one: ServingRecommender) -> CoursesResponse:
            courses = one.courses(user_id)
            return CoursesResponse(one.bundle.version, user_id, len(courses), courses[:limit])

        return await service.read(look)
