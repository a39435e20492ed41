"""What whoever runs the server looks at; all of it needs the token of `videos`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException, Query

import recsys.serve.operator.audience as audiences
from recsys.inference.rerank import weights
from recsys.live.log.event import LAST_MS
from recsys.live.text import shown
from recsys.serve.http.messages import AddressId
from recsys.serve.http.tokens import OPERATOR_FOLDER
from recsys.serve.operator.figures import RunResponse
from recsys.serve.operator.preview import (
    PreviewRequest,
    PreviewResponse,
    joined,
    preview,
    sampled_lists,
    traits_of,
)
from recsys.serve.operator.shown import ShownLately, ShownResponse
from recsys.serve.operator.trace import MOST_EVENTS, Tracer, TraceResponse
from recsys.serve.recommender import ServingRecommender
from recsys.serve.routes.events import past_events
from recsys.serve.routes.links import Responses
from recsys.serve.service import Service

Result = TypeVar("Result")
NOBODY: Responses = {409: {"description": "The bundle knows no user by events."}}
UNKNOWN_VIDEO: Responses = {404: {"description": "The catalogue does not hold the video."}}


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""
    lately = ShownLately(service.log, service.bundle.config.data.columns)

    @router.get(f"{OPERATOR_FOLDER}run")
    async def run(after_ms: Annotated[int, Query(ge=0, le=LAST_MS)] = 0) -> RunResponse:
        """How the replica that answers does: its figures of now, and samples after a time."""
        return service.figures.response(service.bundle.version, after_ms)

    @router.get(f"{OPERATOR_FOLDER}shown")
    async def shown() -> ShownResponse:
        """Click rates by version over time, and how soon new videos were shown, by the log."""
        return await asyncio.to_thread(lately.response)

    @router.get(f"{OPERATOR_FOLDER}trace")
    async def trace(
        user_id: AddressId, k: Annotated[int, Query(ge=1, le=1000)] = 10
    ) -> TraceResponse:
        """Why a user is shown what they are shown: each step from history to list, with ranks."""
        k = min(k, service.bundle.config.serve.max_k)
        return await service.read(
            lambda recommender: _traced(recommender, user_id, k), of_user=user_id
        )

    @router.post(f"{OPERATOR_FOLDER}preview", responses=NOBODY)
    async def preview_weights(request: PreviewRequest) -> PreviewResponse:
        """What other weights of the re-ranking would do, on a sample of users; changes nothing."""
        return await _preview(service, request)

    @router.get(f"{OPERATOR_FOLDER}audience", responses=UNKNOWN_VIDEO)
    async def audience(
        video_id: AddressId,
        users: Annotated[int, Query(ge=1, le=audiences.MOST_USERS)] = 100,
        k: Annotated[int, Query(ge=1, le=1000)] = 10,
    ) -> audiences.AudienceResponse:
        """Who of a sample of the known users would be shown a video now."""
        return await _audience(service, video_id, users, k)


async def _audience(
    service: Service, video_id: str, users: int, k: int
) -> audiences.AudienceResponse:
    bundle = service.bundle
    if not await service.read(lambda recommender: recommender.holds(video_id)):
        raise HTTPException(
            404, f"video_id={shown(video_id)}: the catalogue of this model does not hold it"
        )
    k = min(k, bundle.config.serve.max_k)

    def look(recommender: ServingRecommender, group: list[str]) -> list[audiences.Viewer]:
        return audiences.viewers_among(recommender, video_id, group, k)

    sampled, groups = await _of_sample(service, users, look)
    viewers = [viewer for group in groups for viewer in group]
    return audiences.AudienceResponse(
        version=bundle.version,
        video_id=video_id,
        num_users=len(service.recommender.pasts),
        num_sampled=len(sampled),
        k=k,
        viewers=sorted(viewers, key=lambda one: one.place),
    )


async def _preview(service: Service, asked: PreviewRequest) -> PreviewResponse:
    recommender = service.recommender
    _, groups = await _of_sample(service, asked.users, sampled_lists)
    traits = await service.read(traits_of)
    if not groups:
        raise HTTPException(409, "this bundle knows no user by events: there is nobody to look at")
    names, config = recommender.catalogue.videos.ids_of, recommender.bundle.config.rerank
    return await asyncio.to_thread(preview, joined(groups), traits, config, asked, names)


async def _of_sample(
    service: Service, users: int, look: Callable[[ServingRecommender, list[str]], Result]
) -> tuple[list[str], list[Result]]:
    """A sample of the known users, and what there is to say of each group of them.

    A group at a time, so that a recommendation waits for one of them at most.
    """
    sampled = audiences.sampled_users(service.bundle, users)
    groups = audiences.groups(sampled)
    return sampled, [await service.read(partial(_looked, look, group)) for group in groups]


def _looked(
    look: Callable[[ServingRecommender, list[str]], Result],
    group: list[str],
    recommender: ServingRecommender,
) -> Result:
    return look(recommender, group)


def _traced(recommender: ServingRecommender, user_id: str, k: int) -> TraceResponse:
    tracer = Tracer(recommender, user_id, k)
    reading, config = tracer.reading, recommender.bundle.config
    used = {name: weight for name, weight in weights(config.rerank).items() if weight}
    return TraceResponse(
        version=recommender.bundle.version,
        user_id=user_id,
        known_user=reading.past.known_user,
        num_history=reading.past.num_events,
        rank=config.serve.rank,
        rerank=used,
        is_newcomer=reading.is_newcomer,
        history=past_events(recommender, recommender.history(user_id), MOST_EVENTS),
        videos=tracer.videos(),
    )
