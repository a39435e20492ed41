"""What people are shown of videos: titles, creators, lengths, and where poster and file are."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter

import recsys.serve.messages as m
from recsys.bundle.contents import Bundle
from recsys.schema import UNKNOWN_ROW
from recsys.serve.files import local_picture, local_video
from recsys.serve.service import Service


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.post("/v1/details")
    def details(request: m.DetailsRequest) -> m.DetailsResponse:
        """What a person is shown of videos; lists of recommendations hold their ids alone."""
        bundle = service.bundle
        rows = {video_id: bundle.vocabs["video"].row(video_id) for video_id in request.video_ids}
        return m.DetailsResponse(
            version=bundle.version,
            items=[_details(bundle, name, row) for name, row in rows.items() if row != UNKNOWN_ROW],
            unknown_video_ids=[name for name, row in rows.items() if row == UNKNOWN_ROW],
        )


def _details(bundle: Bundle, video_id: str, row: int) -> m.VideoDetails:
    catalog, details = bundle.catalog, bundle.details
    creator_row = int(catalog.creator_rows[row])
    categories = bundle.vocabs["category"]
    served = bundle.config.serve.files
    uri = catalog.table.column("uri")[row].as_py()
    there = details.has_picture(row) or local_picture(details.poster(row)) is not None
    address = f"v1/videos/{quote(video_id, safe='')}"
    return m.VideoDetails(
        video_id=video_id,
        title=details.title(row),
        creator_id=None if creator_row == UNKNOWN_ROW else bundle.vocabs["creator"].id(creator_row),
        categories=[categories.id(int(category)) for category in catalog.categories[row]],
        duration_s=details.duration_s(row),
        poster=f"{address}/poster" if served and there else None,
        file=f"{address}/file" if served and local_video(uri) is not None else None,
    )
