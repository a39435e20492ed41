"""The videos that came live: what callers said of them, how far they are, and their vectors.

In outside ids, beside the event log, so that they outlive every bundle. A video that was handed in
is `stored`; an encoder takes it from the `EncodingQueue` and makes it `indexed`, or `refused` with
the reason.
What a caller says of a video that the bundle holds stands here too (`catalogue`). Each change of a
row gives it the next `seq`, so a replica reads what has changed since it last did.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, select, update

from recsys.data.ragged import FloatArray
from recsys.data.storage import join
from recsys.errors import InputError
from recsys.live.clock import Clock, now
from recsys.live.store.database import Database
from recsys.live.store.tables import VIDEO_FAULTS, VIDEO_VECTORS, VIDEOS
from recsys.live.store.tail import Tail
from recsys.live.text import MOST_ENTRIES, check_id, check_text, shown

State = Literal["stored", "indexed", "refused", "deleted", "catalogue"]
LONGEST_TITLE = 1000

_C = VIDEOS.c
_LISTS = ("categories", "requires")
_OF_CALLERS = (
    "title",
    "creator_id",
    "duration",
    "hidden",
    "expires_ms",
    "course",
    "lesson",
    *_LISTS,
)


class VideoConflict(InputError):
    """The id already stands for another video, or for one that was deleted."""


@dataclass(frozen=True)
class VideoFacts:
    """What a caller says of a video, in the catalogue's own terms."""

    title: str | None = None
    creator_id: str | None = None
    categories: tuple[str, ...] = ()
    """Named as the catalogue names them: `column=value`."""
    duration: float | None = None
    """In the catalogue's unit."""
    hidden: bool = False
    """Whether it is kept out of all lists."""
    expires_ms: int | None = None
    """From when on it is kept out of all lists."""
    course: str | None = None
    """Of which it is a lesson."""
    lesson: float | None = None
    """Its place in the course."""
    requires: tuple[str, ...] = ()
    """Videos that must be finished before it is recommended."""

    def __post_init__(self) -> None:
        if self.title is not None:
            check_text(self.title, "title", longest=LONGEST_TITLE)
        if self.creator_id is not None:
            check_id(self.creator_id, "creator_id")
        if self.course is not None:
            check_text(self.course, "course")
        for field_name in _LISTS:
            values: tuple[str, ...] = getattr(self, field_name)
            for value in values:
                check_text(value, field_name)
            if len(values) > MOST_ENTRIES:
                raise InputError(f"{field_name}: {len(values)}; at most {MOST_ENTRIES}")
        if self.duration is not None and not 0 < self.duration < 1e12:
            raise InputError(f"duration={shown(self.duration)}: must be above 0; leave it out")

    @property
    def is_lesson(self) -> bool:
        """Whether it belongs to a course or requires other videos."""
        return self.course is not None or bool(self.requires)

    @property
    def digest(self) -> str:
        """Names what of it the video's vector is made of."""
        content = [self.creator_id, sorted(set(self.categories)), self.duration]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def to_row(self) -> dict[str, Any]:
        """The columns that hold it."""
        row = {name: getattr(self, name) for name in _OF_CALLERS}
        lists = {name: json.dumps(row[name]) for name in _LISTS}
        return {**row, **lists, "facts": self.digest}


@dataclass(frozen=True)
class StoredFile:
    """A file that was handed in, as it lies in the store."""

    uri: str
    sha256: str
    size_bytes: int
    source: str | None = None
    """The address that it was fetched from; None of an upload."""

    @property
    def aside(self) -> str:
        """The folder beside it with what was decoded of it, under its own name."""
        folder, name = os.path.split(self.uri)
        return join(folder, "clips", os.path.splitext(name)[0])

    @property
    def poster_uri(self) -> str:
        """Where its poster lies, if one could be made."""
        return join(self.aside, "poster.webp")

    @property
    def captions_uri(self) -> str:
        """Where its own text track lies as WebVTT, if it has one."""
        return join(self.aside, "captions.vtt")


@dataclass(frozen=True)
class LiveVideo:
    """A row of the table."""

    video_id: str
    seq: int
    state: State
    facts: VideoFacts
    file: StoredFile | None
    """None of a video without one, and of one of the bundle, whose file the bundle knows."""
    received_ms: int | None
    decoded_ms: int | None = None
    indexed_ms: int | None = None
    reason: str | None = None
    """Of `encoding_queue.REFUSALS`: why it was refused."""
    message: str | None = None
    duplicate_of: str | None = None
    """A video that it is a near-duplicate of."""
    similarity: float | None = None
    """The cosine of the two contents, 1 where the files are the same."""
    vector: FloatArray | None = field(default=None, compare=False)
    """(Y,) under the version that was asked for, where it is made."""

    def is_listed(self, now_ms: int) -> bool:
        """Whether it may be in lists."""
        expires_ms = self.facts.expires_ms
        over = expires_ms is not None and expires_ms <= now_ms
        return not self.facts.hidden and not over and self.state != "deleted"


@dataclass(frozen=True)
class VideoVector:
    """What one version's model makes of a video."""

    vector: FloatArray
    """(Y,)."""
    content: FloatArray | None
    """What the clip alone says; None where there is none or the model does not look at it."""


class LiveVideos:
    """The tables of live videos; all threads may share one.

    Args:
        database: Of the event log.
        clock: The server's.
    """

    def __init__(self, database: Database, *, clock: Clock = now) -> None:
        self._database, self._clock = database, clock

    def get(self, video_id: str) -> LiveVideo | None:
        """A video's row; None where nothing was said of it."""
        rows = self._database.rows(select(VIDEOS).where(_C.video_id == video_id))
        return to_video(rows[0]._mapping) if rows else None

    def page(self, after: str = "", limit: int = 100, *, deleted: bool = False) -> list[LiveVideo]:
        """The next videos in the order of their ids, perhaps with deleted ones."""
        there = select(VIDEOS).where(_C.video_id > after)
        if not deleted:
            there = there.where(_C.state != "deleted")
        rows = self._database.rows(there.order_by(_C.video_id).limit(limit))
        return [to_video(row._mapping) for row in rows]

    def newest(self, limit: int) -> list[LiveVideo]:
        """The videos that were handed in last and are still there, refused ones too."""
        there = select(VIDEOS).where(_C.state.not_in(("deleted", "catalogue")))
        rows = self._database.rows(there.order_by(_C.received_ms.desc()).limit(limit))
        return [to_video(row._mapping) for row in rows]

    def latest_seq(self) -> int:
        """The `seq` of the newest change; 0 without any."""
        return int(self._database.rows(select(func.coalesce(func.max(_C.seq), 0)))[0][0])

    def add(self, video_id: str, file: StoredFile | None, facts: VideoFacts) -> LiveVideo:
        """Takes a video in; the same once more changes nothing and gives what is there.

        One that was refused is taken anew.

        Raises:
            VideoConflict: The id has another content, other facts, or was deleted.
        """
        check_id(video_id, "video_id")
        with self._database.writing() as connection:
            there = self._find(connection, video_id)
            if there is not None and there.state != "refused":
                _require_same(there, file, facts)
                return there
            row = {
                "video_id": video_id,
                "state": "stored",
                "received_ms": self._clock(),
                **(vars(file) if file is not None else {}),
                **facts.to_row(),
            }
            if there is not None:
                connection.execute(delete(VIDEOS).where(_C.video_id == video_id))
                forget_faults(connection, video_id)
            connection.execute(insert(VIDEOS), {**row, "seq": next_seq(connection)})
            added = self._find(connection, video_id)
        assert added is not None
        return added

    def change(
        self, video_id: str, changes: Mapping[str, Any], *, of_bundle: VideoFacts | None = None
    ) -> LiveVideo | None:
        """Changes what is said of a video; its vector is made anew where it is made of that.

        Args:
            video_id: Here, or of the bundle.
            changes: Fields of `VideoFacts` with their new values.
            of_bundle: What the bundle says of it, where it holds it.

        Returns:
            The video; None where there is none.
        """
        with self._database.writing() as connection:
            there = self._find(connection, video_id)
            if there is None and of_bundle is None:
                return None
            if there is not None and there.state == "deleted":
                return None
            before = there.facts if there is not None else of_bundle
            facts = VideoFacts(**{**vars(before), **changes})
            row = {**facts.to_row(), "seq": next_seq(connection)}
            self._put(connection, video_id, there, row)
            return self._find(connection, video_id)

    def delete(self, video_id: str, *, in_bundle: bool = False) -> LiveVideo | None:
        """Takes a video out of everything for good; the same once more changes nothing.

        Returns:
            The video; None where there never was one.
        """
        with self._database.writing() as connection:
            there = self._find(connection, video_id)
            if there is None and not in_bundle:
                return None
            if there is not None and there.state == "deleted":
                return there
            row = {"state": "deleted", "seq": next_seq(connection)}
            self._put(connection, video_id, there, row)
            of_it = VIDEO_VECTORS.c.video_id == video_id
            connection.execute(delete(VIDEO_VECTORS).where(of_it))
            forget_faults(connection, video_id)
            named = update(VIDEOS).where(_C.duplicate_of == video_id)
            connection.execute(named.values(duplicate_of=None, similarity=None))
            return self._find(connection, video_id)

    def is_needed(self, uri: str) -> bool:
        """Whether a stored file is of a video that was neither deleted nor refused.

        Its name says that: its folder may be mounted elsewhere by now.
        """
        named = _C.uri.endswith(f"/{os.path.basename(uri)}", autoescape=True)
        gone = _C.state.in_(("deleted", "refused"))
        return bool(self._database.rows(select(_C.seq).where(named, ~gone).limit(1)))

    def tail(self, version: str) -> VideoTail:
        """A quick reader of what has changed, with the vectors of one version."""
        return VideoTail(self._database, version)

    def _find(self, connection: Connection, video_id: str) -> LiveVideo | None:
        row = connection.execute(select(VIDEOS).where(_C.video_id == video_id)).first()
        return None if row is None else to_video(row._mapping)

    def _put(
        self,
        connection: Connection,
        video_id: str,
        there: LiveVideo | None,
        row: Mapping[str, Any],
    ) -> None:
        """Changes a row, or begins one of a video that the bundle holds."""
        if there is not None:
            connection.execute(update(VIDEOS).where(_C.video_id == video_id).values(**row))
            return
        begun = {"state": "catalogue", "received_ms": self._clock(), **VideoFacts().to_row()}
        connection.execute(insert(VIDEOS), {**begun, "video_id": video_id, **row})


class VideoTail:
    """Reads the videos that have changed, again and again; one thread at a time."""

    def __init__(self, database: Database, version: str) -> None:
        v = VIDEO_VECTORS.c
        vector = and_(v.video_id == _C.video_id, v.version == version)
        statement = (
            select(VIDEOS, VIDEO_VECTORS.c.vector)
            .outerjoin(VIDEO_VECTORS, vector)
            .where(_C.seq > bindparam("after"), _C.seq <= bindparam("up_to"))
            .order_by(_C.seq)
            .limit(bindparam("limit"))
        )
        self._tail = Tail(database, statement)
        self._names = list(statement.selected_columns.keys())

    def changed(self, after_seq: int, limit: int) -> list[LiveVideo]:
        """The videos that changed after a `seq`, in the order of their last changes.

        Raises:
            LogError: The database fails.
        """
        rows = self._tail.rows(after_seq, 2**63 - 1, limit)
        return [to_video(dict(zip(self._names, row, strict=True))) for row in rows]


def to_video(values: RowMapping | Mapping[str, Any]) -> LiveVideo:
    """A row of the table, perhaps with a vector, as a value."""
    facts = {name: values[name] for name in _OF_CALLERS}
    facts |= {name: tuple(json.loads(values[name])) for name in _LISTS}
    facts["hidden"] = bool(values["hidden"])
    names = ("uri", "sha256", "size_bytes", "source")
    file = StoredFile(**{name: values[name] for name in names}) if values["uri"] else None
    others = ("video_id", "seq", "state", "received_ms", "decoded_ms", "indexed_ms")
    more = ("reason", "message", "duplicate_of", "similarity")
    vector = values.get("vector")
    return LiveVideo(
        **{name: values[name] for name in (*others, *more)},
        facts=VideoFacts(**facts),
        file=file,
        vector=None if vector is None else to_floats(vector),
    )


def forget_faults(connection: Connection, video_id: str) -> None:
    """Takes back what was tried with a video and failed."""
    connection.execute(delete(VIDEO_FAULTS).where(VIDEO_FAULTS.c.video_id == video_id))


def next_seq(connection: Connection) -> int:
    """One more than any; writers take turns, so that no two have the same."""
    return int(connection.execute(select(func.coalesce(func.max(_C.seq), 0))).scalar_one()) + 1


def to_floats(data: bytes) -> FloatArray:
    """A vector as the table keeps it."""
    return np.frombuffer(data, "<f4")


def _require_same(there: LiveVideo, file: StoredFile | None, facts: VideoFacts) -> None:
    name = f"video_id={shown(there.video_id)}"
    if there.state == "deleted":
        raise VideoConflict(f"{name}: was deleted, and histories hold it; take another id")
    if there.state == "catalogue":
        raise VideoConflict(f"{name}: is a video of the catalogue; take another id")
    digests = [None if one is None else one.sha256 for one in (there.file, file)]
    if digests[0] != digests[1]:
        raise VideoConflict(f"{name}: is there with another content; take another id")
    if facts.duration is None:  # it may have been read from the file
        facts = replace(facts, duration=there.facts.duration)
    if there.facts != facts:
        raise VideoConflict(f"{name}: is there with other facts; change them by PATCH")
