"""Videos that come live: handed in, asked about, changed, taken back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

import recsys.serve.http.video_messages as m
from recsys.live.text import shown
from recsys.live.videos.encoding_queue import REFUSALS
from recsys.live.videos.live_videos import LiveVideo, VideoConflict, VideoFacts
from recsys.serve.http.body import read_json, require_json
from recsys.serve.http.messages import AddressId
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.videos.desk import MIB, TooLarge
from recsys.serve.videos.upload_store import StoreFailed

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

PATH = "/v1/videos"
OF_ONE = "/v1/videos/{video_id:video}"
FILE_TYPES = ("application/octet-stream", "video/")
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": m.VideoByUri.model_json_schema()},
        },
    }
}
ADDED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It was there already, the same."},
    201: {"model": m.VideoResponse, "description": "It may be recommended."},
    202: {"model": m.VideoResponse, "description": "It is stored and will be encoded."},
    409: {"description": "The id stands for another video."},
    413: {"description": "The video is larger than `serve.max_upload_mib`."},
    503: {
        "description": "As of any request; or there is no room for the video, or the store of "
        "videos is away; send it again after `Retry-After` seconds."
    },
    415: {"description": "The body is neither a video nor JSON by its `Content-Type`."},
}
FULL_RETRY_S = 60
"""When a video may be sent again that the store could not keep."""
LESSON_ROLES = ("course", "lesson", "requires")
OF_TABLE = ("creator_id", "categories", "duration", *LESSON_ROLES)
"""What of a video of the bundle only the user's own table can change."""
NONE: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such video."}}


class VideoPath(Convertor[str]):
    """An id in a path, slashes and all, but not an address of something that a video has."""

    regex = r".+(?<!/file)(?<!/poster)(?<!/captions)"

    def convert(self, value: str) -> str:
        """The id itself."""
        return value

    def to_string(self, value: str) -> str:
        """The id itself."""
        return value


register_url_convertor("video", VideoPath())


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""
    desk = service.desk

    @router.post(PATH, response_model=m.VideoResponse, responses=ADDED, openapi_extra=BODY)
    async def add_video(request: Request, said: Annotated[m.AddVideoQuery, Query()]) -> Response:
        """Takes a video in: its file as the body and what is known of it in the query, or JSON.

        It waits until the video may be recommended, at most `wait_s` seconds.
        """
        return await _add(service, request, said)

    @router.get(PATH)
    async def list_videos(
        after: Annotated[AddressId | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> m.VideosResponse:
        """The videos that came live or were changed, by id; `after` is the last one seen."""
        page = await asyncio.to_thread(desk.videos.page, after or "", limit)
        last = page[-1].video_id if len(page) == limit else None
        return m.VideosResponse([m.message(video) for video in page], last)

    @router.get(OF_ONE, responses=NONE)
    async def video(video_id: AddressId) -> m.VideoResponse:
        """How far a video is, what is said of it, and which other one it resembles."""
        return await _look(service, video_id)

    @router.patch(OF_ONE, responses=NONE)
    async def change_video(video_id: AddressId, changes: m.VideoChanges) -> m.VideoResponse:
        """Changes what is said of a video.

        Whether it is listed changes at once, its vector some seconds later.
        """
        given = changes.changes()
        await _check_said(service, video_id, given)
        facts = await _of_bundle(service, video_id)
        if facts is not None:
            await _check_of_bundle(service, video_id, given)
        changed = _there(video_id, await _told(desk.change(video_id, given, facts)))
        await service.read(lambda recommender: recommender.catch_up())
        return m.message(changed)

    @router.delete(OF_ONE, responses=NONE)
    async def delete_video(video_id: AddressId) -> m.DeletedResponse:
        """Takes a video out of everything for good; `hidden` takes it out for a while."""
        return await _delete(service, video_id)


async def _add(service: Service, request: Request, said: m.AddVideoQuery) -> Response:
    desk = service.desk
    kind = request.headers.get("content-type", "none").partition(";")[0].strip().lower()
    by_uri = None if kind.startswith(FILE_TYPES) else await _by_uri(service, request, said)
    facts = m.facts_of(said if by_uri is None else by_uri)
    video_id = said.video_id if by_uri is None else by_uri.video_id
    if video_id is None:
        raise _wrong("query", "video_id", "field required, beside a file")
    await _check_said(service, video_id, vars(facts))
    before = await asyncio.to_thread(desk.videos.get, video_id)
    if before is None and await _of_bundle(service, video_id) is not None:
        raise HTTPException(
            409, f"video_id={shown(video_id)}: is a video of the catalogue; take another id"
        )
    file = None
    if by_uri is None:
        file = await _told(desk.receive(request.stream()))
    elif by_uri.uri is not None:
        file = await _told(desk.fetch(by_uri.uri))
    video = await _told(desk.add(video_id, file, facts, wait_s=said.wait_s))
    return await _added(service, video, is_new=before is None or before.state == "refused")


async def _look(service: Service, video_id: str) -> m.VideoResponse:
    desk = service.desk
    video = await asyncio.to_thread(desk.videos.get, video_id)
    facts = None if video is not None else await _of_bundle(service, video_id)
    if facts is not None:
        return m.of_bundle(video_id, facts)
    return m.message(_there(video_id, video), await asyncio.to_thread(desk.queue.faults, video_id))


async def _delete(service: Service, video_id: str) -> m.DeletedResponse:
    facts = await _of_bundle(service, video_id)
    deleted = await service.desk.delete(video_id, in_bundle=facts is not None)
    if deleted is None:
        raise _unknown(video_id)
    await service.read(lambda recommender: recommender.catch_up())
    return m.DeletedResponse(video_id)


async def _by_uri(service: Service, request: Request, said: m.AddVideoQuery) -> m.VideoByUri:
    """The JSON body of a video that is handed in by its address."""
    require_json(request)
    if said.says_of_video:
        raise _wrong("query", "query", "beside a JSON body, the body says all of the video")
    body, most = bytearray(), service.bundle.config.serve.max_body_mib * MIB
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise HTTPException(413, f"JSON larger than {most} bytes (serve.max_body_mib)")
    try:
        return m.VideoByUri.model_validate(read_json(bytes(body)))
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from None


async def _check_said(service: Service, video_id: str, given: Mapping[str, Any]) -> None:
    """Refuses what the next training would have no column for, and lessons nobody can come to."""
    columns = service.bundle.config.data.video_columns
    for name in given.get("categories", ()):
        column, sign, value = name.partition("=")
        if column not in columns.categories or not sign or not value:
            known = ", ".join(f"{column}=…" for column in columns.categories) or "none"
            raise _wrong("body", "categories", f"{name!r}: must be one of {known}")
    for role in LESSON_ROLES:
        if given.get(role) not in (None, ()) and getattr(columns, role) is None:
            raise _wrong("body", role, f"data.video_columns.{role} names no column for it")
    if given.get("requires"):
        await _check_requires(service, video_id, given["requires"])


async def _check_requires(service: Service, video_id: str, requires: Sequence[str]) -> None:
    def look(recommender: ServingRecommender) -> tuple[list[str], bool]:
        unknown = [name for name in requires if not recommender.holds(name)]
        return unknown, recommender.catalogue.is_circle(video_id, requires)

    unknown, is_circle = await service.read(look)
    if unknown:
        raise _wrong("body", "requires", f"{shown(unknown[0])}: not in the catalogue of this model")
    if is_circle:
        raise _wrong("body", "requires", "what it requires requires it in turn")


async def _check_of_bundle(service: Service, video_id: str, given: Mapping[str, object]) -> None:
    """Refuses changes of what only the table of the next training can change."""
    there = await asyncio.to_thread(service.desk.videos.get, video_id)
    of_table = [name for name in OF_TABLE if name in given]
    if of_table and (there is None or there.state == "catalogue"):
        text = "what the bundle's own table says cannot be changed here; change it in data.videos"
        raise _wrong("body", of_table[0], text)


async def _of_bundle(service: Service, video_id: str) -> VideoFacts | None:
    return await service.read(lambda recommender: recommender.catalogue.facts_of_bundle(video_id))


async def _added(service: Service, video: LiveVideo, *, is_new: bool) -> Response:
    if video.state == "refused":
        meaning = REFUSALS.get(str(video.reason), "")
        raise HTTPException(422, f"no video that can be used: {video.reason} ({meaning})")
    if video.state == "indexed":
        await service.read(lambda recommender: recommender.catch_up())
    status = 200 if not is_new else 201 if video.state == "indexed" else 202
    return Response(to_json(m.message(video)), status, media_type="application/json")


async def _told(call: Awaitable[Result]) -> Result:
    """What a call gives; its own refusals as HTTP has them."""
    try:
        return await call
    except VideoConflict as error:
        raise HTTPException(409, str(error)) from None
    except TooLarge:
        raise HTTPException(413, "the video is larger than serve.max_upload_mib allows") from None
    except StoreFailed as error:
        logger.error("no video can be taken in: %s", error)  # whose words may name an address
        text = "serve.uploads: there is no room for the video, or the store is away; send it again"
        raise HTTPException(503, text, {"Retry-After": str(FULL_RETRY_S)}) from None


def _there(video_id: str, video: LiveVideo | None) -> LiveVideo:
    if video is None or video.state == "deleted":
        raise _unknown(video_id)
    return video


def _unknown(video_id: str) -> HTTPException:
    return HTTPException(404, f"video_id={shown(video_id)}: there is no such video")


def _wrong(source: str, name: str, text: str) -> RequestValidationError:
    return RequestValidationError([{"type": "not_allowed", "loc": (source, name), "msg": text}])
