"""Events in, and what is known of users."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

import recsys.serve.http.messages as m
from recsys.features.timelines import Timelines
from recsys.serve.recommender import ServingRecommender
from recsys.serve.routes import links
from recsys.serve.service import Service


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.post("/v1/events", responses=links.AFTER_EVENT)
    async def events(request: m.EventsBody) -> m.EventsResponse:
        """Keeps one event or several for good; the next request sees them, on any replica.

        The same event again changes nothing, so that sending is safe to repeat.
        """
        messages = request.events if isinstance(request, m.EventsMessage) else [request]
        appended = await service.append([message.event() for message in messages])
        return m.EventsResponse(appended.event_ids, list(appended.statuses))

    @router.delete("/v1/users", responses=links.AFTER_FORGET)
    async def forget(user_id: m.AddressId) -> m.ForgetResponse:
        """Deletes all events of a user; what the bundle knows of them is not used any more."""
        return m.ForgetResponse(user_id, await service.forget(user_id))

    @router.get("/v1/users", responses=links.AFTER_USERS)
    async def users(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> m.UsersResponse:
        """Some known users, to try the endpoint with."""
        pasts = service.recommender.pasts
        return m.UsersResponse(len(pasts), pasts.user_ids(limit))

    @router.get("/v1/history", responses=links.AFTER_HISTORY)
    async def history(
        user_id: m.AddressId, limit: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> m.HistoryResponse:
        """What a user was shown last and what came of it, newest first."""

        def look(recommender: ServingRecommender) -> m.HistoryResponse:
            timeline = recommender.history(user_id)
            known = recommender.knows_user(user_id)
            return m.HistoryResponse(user_id, known, past_events(recommender, timeline, limit))

        return await service.read(look)


def past_events(
    recommender: ServingRecommender, timeline: Timelines, limit: int
) -> list[m.PastEvent]:
    """What a user was shown and what came of it, newest first."""
    newest = range(len(timeline.video_rows) - 1, -1, -1)[:limit]
    return [
        m.PastEvent(
            video_id=recommender.video_id(int(timeline.video_rows[i])),
            time_ms=int(timeline.time_ms[i]),
            positive=bool(timeline.positive[i]),
            labels={t: bool(timeline.labels[i, j]) for j, t in enumerate(recommender.tasks)},
            watched=float(timeline.watched[i, 0]) if timeline.watched.shape[1] else None,
        )
        for i in newest
    ]
