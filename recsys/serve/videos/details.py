"""What people are shown of videos: titles, creators, lengths, and where poster and file are."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.bundle.contents import Bundle
from recsys.data.lessons import Lesson
from recsys.live.videos.live_videos import LiveVideo
from recsys.schema import UNKNOWN_ROW
from recsys.serve.http.messages import Described, Id, Message
from recsys.serve.retrieve.catalogue import Catalogue
from recsys.serve.videos.files import kept_captions, local_captions, local_picture, local_video

MOST_DETAILS = 1000
"""Videos that one request may ask about."""


class DetailsRequest(Message):
    """Asks what people are shown of videos."""

    video_ids: list[Id] = Field(min_length=1, max_length=MOST_DETAILS)


@dataclass(config=Described)
class VideoDetails:
    """What people are shown of a video."""

    video_id: str
    title: str | None
    creator_id: str | None
    categories: list[str]
    """As `column=value`."""
    duration: float | None
    """As the catalogue has it, in its own unit, which is that of watch times too."""
    duration_s: float | None
    """Length of its file, in seconds; of a video that came live, its duration in seconds, where the
    bundle tells the unit."""
    poster: str | None
    """Address of a picture of it, from this server's root on; null where none is served."""
    file: str | None
    """Address of its file, likewise."""
    captions: str | None
    """Address of its captions (WebVTT), likewise."""
    course: str | None
    """Of which it is a lesson."""
    lesson: float | None
    """Its place in the course."""


@dataclass(config=Described)
class DetailsResponse:
    """The answer of /v1/details, in the order asked for, each video once."""

    version: str
    items: list[VideoDetails]
    unknown_video_ids: list[str]
    """Videos that were asked for and are not in the catalogue."""


def details_of(bundle: Bundle, catalogue: Catalogue, video_ids: Sequence[str]) -> DetailsResponse:
    """What is shown of videos, in the order asked for, each once.

    Args:
        bundle: What knows most of them.
        catalogue: The bundle's videos, and those that came live.
        video_ids: Of any videos, also unknown ones.
    """
    rows = {video_id: catalogue.row(video_id) for video_id in video_ids}
    said = {row: catalogue.said_of(row) for row in rows.values()}
    return DetailsResponse(
        version=bundle.version,
        items=[
            _of_live(bundle, live)
            if row >= catalogue.num_bundle and (live := said[row]) is not None
            else _of_video(bundle, name, row, said[row])
            for name, row in rows.items()
            if row != UNKNOWN_ROW
        ],
        unknown_video_ids=[name for name, row in rows.items() if row == UNKNOWN_ROW],
    )


def _of_live(bundle: Bundle, video: LiveVideo) -> VideoDetails:
    facts, uri = video.facts, None if video.file is None else video.file.uri
    served = bundle.config.serve.files and local_video(uri) is not None
    pictured = video.file is not None and local_picture(video.file.poster_uri) is not None
    captioned = video.file is not None and kept_captions(video.file.captions_uri) is not None
    address = f"v1/videos/{quote(video.video_id, safe='')}"
    return VideoDetails(
        video_id=video.video_id,
        title=facts.title,
        creator_id=facts.creator_id,
        categories=list(facts.categories),
        duration=facts.duration,
        duration_s=_seconds(facts.duration, bundle.duration_per_s),
        poster=f"{address}/poster" if served and pictured else None,
        file=f"{address}/file" if served else None,
        captions=f"{address}/captions" if served and captioned else None,
        course=facts.course,
        lesson=facts.lesson,
    )


def _seconds(duration: float | None, per_s: float | None) -> float | None:
    """A duration in the catalogue's unit, of which a second has `per_s`, in seconds."""
    return None if duration is None or per_s is None else round(duration / per_s, 3)


def _of_video(bundle: Bundle, video_id: str, row: int, said: LiveVideo | None) -> VideoDetails:
    catalog, details = bundle.catalog, bundle.details
    creator_row = int(catalog.creator_rows[row])
    categories = bundle.vocabs["category"]
    served = bundle.config.serve.files
    uri = catalog.table.column("uri")[row].as_py()
    there = details.has_picture(row) or local_picture(details.poster(row)) is not None
    captioned = local_captions(uri) is not None or details.has_captions(row)
    address = f"v1/videos/{quote(video_id, safe='')}"
    lesson = bundle.lessons.one(row) or Lesson(None, None, ())
    return VideoDetails(
        video_id=video_id,
        title=details.title(row) if said is None else said.facts.title or details.title(row),
        creator_id=None if creator_row == UNKNOWN_ROW else bundle.vocabs["creator"].id(creator_row),
        categories=[categories.id(int(category)) for category in catalog.categories[row]],
        duration=None if np.isnan(catalog.durations[row]) else float(catalog.durations[row]),
        duration_s=details.duration_s(row),
        poster=f"{address}/poster" if served and there else None,
        file=f"{address}/file" if served and local_video(uri) is not None else None,
        captions=f"{address}/captions" if served and captioned else None,
        course=lesson.course,
        lesson=lesson.number,
    )
