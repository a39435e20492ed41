"""What is served, whether it is well, and how well it has been."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

import recsys.serve.http.messages as m
from recsys.serve.metrics import MEDIA_TYPE
from recsys.serve.service import Service


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.get("/healthz")
    async def health() -> m.HealthResponse:
        """Whether the server runs, and from which bundle."""
        return m.HealthResponse("ok", service.bundle.version)

    @router.get(
        "/readyz",
        response_model=m.HealthResponse,
        responses={503: {"model": m.HealthResponse, "description": "It is catching up."}},
    )
    async def ready() -> Response:
        """Whether the server may be asked: not until it has read the event log to its end."""
        status, code = ("ok", 200) if service.ready else ("starting", 503)
        return JSONResponse({"status": status, "version": service.bundle.version}, code)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {MEDIA_TYPE: {}}}})
    async def metrics() -> Response:
        """The figures of this replica, for Prometheus."""
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    @router.get("/v1/model")
    async def model() -> m.ModelResponse:
        """What is served, and its limits."""
        return _model(service)


def _model(service: Service) -> m.ModelResponse:
    bundle = service.bundle
    config = bundle.config
    refused = () if service.versions is None else service.versions.refused
    return m.ModelResponse(
        version=bundle.version,
        created=bundle.manifest["created"],
        index=bundle.index_facts.kind,
        published_recall=bundle.index_facts.recall,
        time_of_flat=bundle.index_facts.time_of_flat,
        index_recall=dict(service.recommender.monitor.recalls()),
        num_videos=bundle.num_videos,
        num_users=len(service.recommender.pasts),
        tasks=list(config.data.columns.tasks),
        watched=config.data.columns.watched,
        watched_per_s=bundle.watched_per_s,
        context=list(config.data.columns.context),
        user_features=list(config.data.user_columns.features),
        rank=config.serve.rank,
        front=config.serve.front,
        max_k=config.serve.max_k,
        max_videos=config.serve.max_videos,
        max_history=config.model.max_history,
        metrics=dict(bundle.manifest["metrics"]),
        refused=[m.RefusedVersion(one.version, one.reason) for one in refused],
    )
