"""The web page, and the catalogue's own video files for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.datastructures import Headers
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

import recsys.serve.http.messages as m
from recsys.schema import UNKNOWN_ROW
from recsys.serve.service import Service
from recsys.serve.videos.elsewhere import address_elsewhere, origins
from recsys.serve.videos.files import kept_captions, local_captions, local_picture, local_video

WEB = Path(__file__).parents[1] / "web"
WEB_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src {media}; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere but videos that are there, runs no inline script and is not
framed."""
SMALL_FILE_HEADERS = {
    "Cache-Control": "private, max-age=3600",
    "Content-Security-Policy": "default-src 'none'",
}
"""A feed asks for the same posters again and again; a new version may bring others."""
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/*": {}}},
    206: {
        "content": {"video/*": {}, "multipart/byteranges": {}},
        "description": "A range of it, or several.",
    },
    307: {"description": "It is at another server, at the address in `Location`."},
    400: {"description": "`Range` cannot be read."},
    404: {"description": "No file of this video is served here."},
    416: {"description": "`Range` asks for what lies beyond its end."},
}
RANGE_REFUSED = "Range: no part of this file; send bytes=FIRST-LAST, counted from 0, or no Range"


class VideoFileResponse(FileResponse):
    """A file whose refusals of a `Range` are problem documents, as all others are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file, or the range of it that is asked for."""

        async def checked(message: Message) -> None:
            if message.get("status") in (400, 416):  # its own are plain text
                headers = Headers(raw=message["headers"])
                size = {name: headers[name] for name in ("Content-Range",) if name in headers}
                raise HTTPException(message["status"], RANGE_REFUSED, size)
            await send(message)

        await super().__call__(scope, receive, checked)


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""
    files = [path for path in WEB.rglob("*") if path.suffix in WEB_TYPES]
    # Read once: what is not in it is not there, whatever a request's path says.
    content = {path.relative_to(WEB).as_posix(): path.read_bytes() for path in files}
    media = f"'self' {origins(service.bundle.config.serve.files_at)}".strip()
    headers = {
        "Content-Security-Policy": PAGE_POLICY.format(media=media),
        "Cache-Control": "no-cache",
    }

    def answer(name: str) -> Response:
        media_type = WEB_TYPES[Path(name).suffix]
        return Response(content[name], media_type=media_type, headers=headers)

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return answer("index.html")

    @router.get("/web/{name:path}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in content:
            raise HTTPException(404, "there is no such file")
        return answer(name)

    if service.bundle.config.serve.files:
        _add_pictures_and_captions(service, router)
        _add_files(service, router)


def _add_pictures_and_captions(service: Service, router: APIRouter) -> None:
    @router.get(
        "/v1/videos/{video_id:path}/poster",
        response_class=Response,
        responses={
            200: {"content": {"image/*": {}}},
            404: {"description": "No picture of this video is served here."},
        },
    )
    async def video_poster(video_id: m.AddressId) -> Response:
        """A picture of a video: the catalogue's own, where it is a local one, or decode's.

        One that came live has decode's.
        """
        bundle = service.bundle
        row = bundle.vocabs["video"].row(video_id)
        uri = bundle.details.poster(row)
        if row == UNKNOWN_ROW:
            live = await service.read(lambda one: one.catalogue.live_file(video_id))
            uri = None if live is None else live.poster_uri
        file = local_picture(uri)
        if file is not None:
            return FileResponse(file[0], media_type=file[1], headers=SMALL_FILE_HEADERS)
        picture = bundle.details.picture(row)
        if picture is None:
            raise HTTPException(404, "no picture of this video is served here")
        return Response(picture, media_type="image/webp", headers=SMALL_FILE_HEADERS)

    @router.get(
        "/v1/videos/{video_id:path}/captions",
        response_class=Response,
        responses={
            200: {"content": {"text/vtt": {}}},
            404: {"description": "No captions of this video are served here."},
        },
    )
    async def video_captions(video_id: m.AddressId) -> Response:
        """The captions of a video: the `.vtt` file beside a local one, or its own text track."""
        bundle = service.bundle
        row = bundle.vocabs["video"].row(video_id)
        file = local_captions(bundle.catalog.table.column("uri")[row].as_py())
        if row == UNKNOWN_ROW:
            live = await service.read(lambda one: one.catalogue.live_file(video_id))
            file = None if live is None else kept_captions(live.captions_uri)
        if file is not None:
            return FileResponse(file[0], media_type=file[1], headers=SMALL_FILE_HEADERS)
        captions = bundle.details.captions(row)
        if captions is None:
            raise HTTPException(404, "no captions of this video are served here")
        return Response(captions, media_type="text/vtt", headers=SMALL_FILE_HEADERS)


def _add_files(service: Service, router: APIRouter) -> None:
    @router.get(
        "/v1/videos/{video_id:path}/file",
        response_class=VideoFileResponse,
        responses=FILE_ANSWERS,
    )
    async def video_file(video_id: m.AddressId) -> Response:
        """A video's own file, whole or a range of it, where it is a local one.

        One that another server has (`serve.files_at`) is to be fetched from there.
        """
        uri = await service.read(lambda recommender: recommender.uri(video_id))
        elsewhere = address_elsewhere(uri, service.bundle.config.serve.files_at)
        if elsewhere is not None:
            return RedirectResponse(elsewhere, 307)
        file = local_video(uri)
        if file is None:
            raise HTTPException(404, "no file of this video is served here")
        path, media_type = file
        return VideoFileResponse(path, media_type=media_type)
