"""The OpenAPI document with the limits of this server, which no message knows by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from recsys.config.run import ServeConfig


def add_limits(api: FastAPI, config: ServeConfig) -> None:
    """Makes an application's OpenAPI document say what `serve.*` allows."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document["components"]["schemas"]
        schemas["RecommendRequest"]["properties"]["k"]["maximum"] = config.max_k
        schemas["ScoreRequest"]["properties"]["video_ids"]["maxItems"] = config.max_videos
        return document

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI has it done
