"""What goes over HTTP about videos that come live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool
from pydantic.dataclasses import dataclass

from recsys.live.text import MOST_ENTRIES
from recsys.live.videos.encoding_queue import Fault
from recsys.live.videos.live_videos import LONGEST_TITLE, LiveVideo, State, VideoFacts
from recsys.serve.http.messages import AddressId, Described, Id, Message
from recsys.serve.http.times import Expiry, QueryExpiry

LONGEST_DURATION = 1e12
Title = Annotated[str, Field(min_length=1, max_length=LONGEST_TITLE, pattern=r"^[^\x00]*$")]
Categories = Annotated[list[Id], Field(max_length=MOST_ENTRIES)]
Requires = Annotated[list[Id], Field(max_length=MOST_ENTRIES)]
Place = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, lt=LONGEST_DURATION, allow_inf_nan=False)]
WAIT = Field(20.0, ge=0, le=60, allow_inf_nan=False)


class AddVideoQuery(BaseModel):
    """What the address says of a file that is the body."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    video_id: AddressId | None = None
    """Of a file: needed. It must be new, or stand for the very same video."""
    title: Title | None = None
    creator_id: AddressId | None = None
    categories: Categories = Field(default_factory=list)
    """Each as the catalogue names it, `column=value`; the parameter may be repeated."""
    duration: Duration | None = None
    """In the catalogue's unit; without it that of the file, where the bundle tells the unit."""
    hidden: bool = False
    """Keep it out of all lists until a PATCH says otherwise."""
    expires_ms: QueryExpiry | None = None
    """From when on it is in no list, in Unix milliseconds."""
    course: AddressId | None = None
    """Of which it is a lesson."""
    lesson: Place | None = None
    """Its place in the course."""
    requires: Requires = Field(default_factory=list)
    """Videos that must be finished before it is recommended; the parameter may be repeated."""
    wait_s: float = WAIT
    """Longest that the answer may wait for the video to be encoded."""

    @property
    def says_of_video(self) -> bool:
        """Whether it says anything of a video."""
        return bool(self.model_fields_set - {"wait_s"})


class VideoByUri(Message):
    """A video that is handed in by its address, or without a file."""

    video_id: Id
    uri: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")] | None = None
    """Below one of `serve.video_roots`; null for a video without a file."""
    title: Title | None = None
    creator_id: Id | None = None
    categories: Categories = Field(default_factory=list)
    """Each as the catalogue names it, `column=value`."""
    duration: Annotated[Duration, Field(strict=True)] | None = None
    """In the catalogue's unit; without it that of the file, where the bundle tells the unit."""
    hidden: StrictBool = False
    """Keep it out of all lists until a PATCH says otherwise."""
    expires_ms: Expiry | None = None
    """From when on it is in no list, in Unix milliseconds."""
    course: Id | None = None
    """Of which it is a lesson."""
    lesson: Annotated[Place, Field(strict=True)] | None = None
    """Its place in the course."""
    requires: Requires = Field(default_factory=list)
    """Videos that must be finished before it is recommended."""


class VideoChanges(Message):
    """What is to be changed of a video; what is left out stays, null takes away."""

    title: Title | None = None
    creator_id: Id | None = None
    categories: Categories | None = None
    duration: Annotated[Duration, Field(strict=True)] | None = None
    hidden: StrictBool | None = None
    expires_ms: Expiry | None = None
    course: Id | None = None
    lesson: Annotated[Place, Field(strict=True)] | None = None
    requires: Requires | None = None

    def changes(self) -> dict[str, Any]:
        """The fields of `VideoFacts` that were given."""
        given = self.model_dump(exclude_unset=True)
        for name in given.keys() & {"categories", "requires"}:
            given[name] = tuple(given[name] or ())
        if "hidden" in given:
            given["hidden"] = bool(given["hidden"])
        return given


def facts_of(said: AddVideoQuery | VideoByUri) -> VideoFacts:
    """What a caller says of a video.

    Raises:
        InputError: A text is none that can be kept.
    """
    return VideoFacts(
        said.title,
        said.creator_id,
        tuple(said.categories),
        said.duration,
        said.hidden,
        said.expires_ms,
        said.course,
        said.lesson,
        tuple(said.requires),
    )


@dataclass(config=Described)
class FaultMessage:
    """Tries to encode a video that have not come to an end."""

    version: str | None
    """That has no vector of it, and so does not list it; null where none has one yet."""
    tries: int
    """After 3 it is left alone, or refused where no version has a vector of it."""
    tried_ms: int
    reason: str | None
    """In a word; null while it is tried, or where the encoder died over it."""


@dataclass(config=Described)
class VideoResponse:
    """What is known of a video."""

    video_id: str
    state: State
    """`stored`: it waits for an encoder. `indexed`: it may be recommended. `refused`: it is none
    that can be used. `catalogue`: the bundle holds it."""
    title: str | None
    creator_id: str | None
    categories: list[str]
    duration: float | None
    hidden: bool
    expires_ms: int | None
    course: str | None
    lesson: float | None
    """Its place in the course."""
    requires: list[str]
    """Videos that must be finished before it is recommended."""
    size_bytes: int | None
    sha256: str | None
    """Of its file."""
    received_ms: int | None
    decoded_ms: int | None
    indexed_ms: int | None
    reason: str | None
    """Why it was refused, in a word."""
    message: str | None
    """What there is to say of how its vector was made."""
    duplicate_of: str | None
    """Another video with the same content, or nearly."""
    similarity: float | None
    """The cosine of the two contents; 1 where the files are the same."""
    faults: list[FaultMessage]
    """What was tried and failed; told of one video alone, not in a list of them."""


@dataclass(config=Described)
class DeletedResponse:
    """What was deleted."""

    video_id: str


@dataclass(config=Described)
class VideosResponse:
    """Some of the videos that came live or were changed."""

    videos: list[VideoResponse]
    after: str | None
    """Asks for the next ones; null at the end."""


def message(video: LiveVideo, faults: Sequence[Fault] = ()) -> VideoResponse:
    """A video's message."""
    facts, file = video.facts, video.file
    return VideoResponse(
        video_id=video.video_id,
        state=video.state,
        size_bytes=None if file is None else file.size_bytes,
        sha256=None if file is None else file.sha256,
        received_ms=video.received_ms,
        decoded_ms=video.decoded_ms,
        indexed_ms=video.indexed_ms,
        reason=video.reason,
        message=video.message if video.state == "indexed" else None,
        duplicate_of=video.duplicate_of,
        similarity=video.similarity,
        faults=[FaultMessage(one.version, one.tries, one.tried_ms, one.reason) for one in faults],
        **{
            **vars(facts),
            "categories": list(facts.categories),
            "requires": list(facts.requires),
        },
    )


def of_bundle(video_id: str, facts: VideoFacts) -> VideoResponse:
    """The message of a video that only the bundle knows."""
    return message(LiveVideo(video_id, 0, "catalogue", facts, None, received_ms=None))
