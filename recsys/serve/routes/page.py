"""The web page, and the catalogue's own video files for it."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse, Response

from recsys.serve.files import local_video
from recsys.serve.service import Service

WEB = Path(__file__).parents[1] / "web"
WEB_TYPES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "docs.css": "text/css",
    "app.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, runs no inline script and is not framed."""


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""
    content = {name: (WEB / name).read_bytes() for name in WEB_TYPES}
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

    def answer(name: str) -> Response:
        return Response(content[name], media_type=WEB_TYPES[name], headers=headers)

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return answer("index.html")

    @router.get("/web/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in content:
            raise HTTPException(404, "there is no such file")
        return answer(name)

    if service.bundle.config.serve.files:
        _add_files(service, router)


def _add_files(service: Service, router: APIRouter) -> None:
    @router.get(
        "/v1/videos/{video_id:path}/file",
        response_class=FileResponse,
        responses={
            200: {"content": {"video/*": {}}},
            206: {"content": {"video/*": {}}, "description": "A range of it."},
        },
    )
    def video_file(video_id: str) -> FileResponse:
        """A video's own file, whole or a range of it, where it is a local one."""
        bundle = service.bundle
        uri = bundle.catalog.table.column("uri")[bundle.vocabs["video"].row(video_id)].as_py()
        file = local_video(uri)
        if file is None:
            raise HTTPException(404, "no file of this video is served here")
        path, media_type = file
        return FileResponse(path, media_type=media_type)
