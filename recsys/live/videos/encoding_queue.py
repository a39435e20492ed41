"""The live videos that wait for an encoder, and what encoders make of them.

An encoder claims a video for a while. A claim is counted before the work begins, so that a video
that kills its encoder is counted too; after `MOST_TRIES` it is refused, and where its file is away
after `MOST_TRIES_AWAY`. What cannot be encoded again for another version is left alone after as
many, and told of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from recsys.data.ragged import FloatArray
from recsys.live.clock import Clock, now
from recsys.live.store.database import Database
from recsys.live.store.tables import SERVED_VERSIONS, VIDEO_FAULTS, VIDEO_VECTORS, VIDEOS
from recsys.live.videos.live_videos import (
    LiveVideo,
    VideoFacts,
    VideoVector,
    next_seq,
    to_floats,
    to_video,
)
from recsys.schema import QUARANTINE_REASONS

LEASE_MS = 120_000
"""How long an encoder may take for a video until another one takes it up, and how long one rests
that could not be encoded."""
MOST_TRIES = 3
AWAY = ("missing", "unreachable")
"""Reasons that are not the video's fault, but that its folder is away."""
MOST_TRIES_AWAY = 720
"""Tries of what is away: about a day of them."""
SERVED_MS = 120_000
"""How long a version counts as served after a replica last said so."""
NOT_ENCODED = "not_encoded"
REFUSALS: Mapping[str, str] = {
    **QUARANTINE_REASONS,
    NOT_ENCODED: f"the encoder failed at it {MOST_TRIES} times; its log says how",
}
"""Every reason for which a video is refused, and what it means."""
AT_FIRST = ""
"""What stands for a version where a video has no vector at all yet."""

_C, _V, _F = VIDEOS.c, VIDEO_VECTORS.c, VIDEO_FAULTS.c
_IS_LAST = _F.tries >= case((_F.reason.in_(AWAY), MOST_TRIES_AWAY), else_=MOST_TRIES)


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of a video."""

    vectors: Mapping[str, VideoVector]
    """By version."""
    decoded_ms: int | None
    """When the file was decoded; None of a video without one."""
    message: str | None = None
    """What there is to say of it, such as that the vector is made of the facts alone."""
    duplicate_of: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Fault:
    """Tries to encode a video that have not come to an end."""

    version: str | None
    """That lacks its vector; None of a video that has none at all yet."""
    tries: int
    tried_ms: int
    reason: str | None
    """Of `REFUSALS`; None while it is tried, or where the encoder did not come back from it. One
    of `AWAY` stays until another try has ended."""

    @property
    def is_last(self) -> bool:
        """Whether it is not tried again."""
        return self.tries >= (MOST_TRIES_AWAY if self.reason in AWAY else MOST_TRIES)


@dataclass(frozen=True)
class VideoCounts:
    """How many live videos there are, for the metrics."""

    states: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    not_encoded: Mapping[str, int] = field(default_factory=dict)
    """By version: those that have no vector of it, and are not tried again."""


class EncodingQueue:
    """What encoders take and give back; all threads may share one.

    Args:
        database: Of the event log.
        clock: The server's.
    """

    def __init__(self, database: Database, *, clock: Clock = now) -> None:
        self._database, self._clock = database, clock

    def claim(self) -> LiveVideo | None:
        """The next video to encode, which no other encoder takes meanwhile; None without any.

        One whose encoders never came back from it is refused on the way.
        """
        now_ms = self._clock()
        free = or_(_C.claimed_ms.is_(None), _C.claimed_ms < now_ms - LEASE_MS)
        waiting = select(VIDEOS).where(_C.state == "stored", free).order_by(_C.seq).limit(1)
        if not self._database.rows(waiting):
            return None
        with self._database.writing() as connection:
            while (row := connection.execute(waiting).first()) is not None:
                fault = _fault(connection, row.video_id, AT_FIRST)
                if fault is not None and fault.is_last:
                    _refuse(connection, row.video_id, NOT_ENCODED, None)
                    continue
                _count_try(connection, row.video_id, AT_FIRST, now_ms)
                of_it = update(VIDEOS).where(_C.video_id == row.video_id)
                connection.execute(of_it.values(claimed_ms=now_ms))
                return to_video(row._mapping)
        return None

    def missing(self, version: str, *, after_seq: int = 0, limit: int = 100) -> list[LiveVideo]:
        """Indexed videos without a vector of their present facts under a version, by `seq`.

        Those that could not be encoded rest for a while, and for good after some tries.
        """
        failed = and_(_F.video_id == _C.video_id, _F.version == version, self._rests())
        resting = select(_F.video_id).where(failed).exists()
        there = select(VIDEOS).where(_lacks(version), ~resting, _C.seq > after_seq)
        rows = self._database.rows(there.order_by(_C.seq).limit(limit))
        return [to_video(row._mapping) for row in rows]

    def rested(self, version: str, *, limit: int = 100) -> list[LiveVideo]:
        """Of what `missing` gives those that were tried before and may be again."""
        tried = and_(_F.video_id == _C.video_id, _F.version == version, ~self._rests())
        there = select(VIDEOS).join(VIDEO_FAULTS, tried).where(_lacks(version))
        rows = self._database.rows(there.order_by(_C.seq).limit(limit))
        return [to_video(row._mapping) for row in rows]

    def _rests(self) -> ColumnElement[bool]:
        return or_(_IS_LAST, _F.tried_ms > self._clock() - LEASE_MS)

    def encoded(self, video: LiveVideo, made: Encoded) -> None:
        """Keeps what an encoder made; nothing where the video was changed or deleted meanwhile.

        Nor where it has another file by now: one that was refused may be handed in anew.
        """
        sha256 = None if video.file is None else video.file.sha256
        row: dict[str, Any] = {"state": "indexed"}
        if video.state == "stored":
            row |= {
                "decoded_ms": made.decoded_ms,
                "indexed_ms": self._clock(),
                "message": made.message,
                "duplicate_of": made.duplicate_of,
                "similarity": made.similarity,
            }
        with self._database.writing() as connection:
            of_it = select(VIDEOS).where(_C.video_id == video.video_id)
            there = connection.execute(of_it).first()
            if there is None or (there.state, there.sha256) != (video.state, sha256):
                return
            if row.get("duplicate_of") and _is_deleted(connection, row["duplicate_of"]):
                row |= {"duplicate_of": None, "similarity": None}
            if _is_read_from_file(to_video(there._mapping).facts, video.facts):
                row |= {"duration": video.facts.duration, "facts": video.facts.digest}
            for version, vector in made.vectors.items():
                _put_vector(connection, version, video, vector)
            done = _F.version.in_((AT_FIRST, *made.vectors))
            connection.execute(delete(VIDEO_FAULTS).where(_F.video_id == video.video_id, done))
            changed = update(VIDEOS).where(_C.video_id == video.video_id)
            connection.execute(changed.values(**row, seq=next_seq(connection)))

    def refuse(self, video: LiveVideo, reason: str, message: str | None) -> None:
        """Says that a stored video is none that can be used, and why."""
        with self._database.writing() as connection:
            _refuse(connection, video.video_id, reason, message)

    def failed(self, video: LiveVideo, reason: str, *, version: str | None = None) -> bool:
        """Says that a claimed video, or one that a version lacks, could not be encoded this time.

        Returns:
            Whether that was the last try: a claimed video is refused then.
        """
        with self._database.writing() as connection:
            if version is not None:
                _count_try(connection, video.video_id, version, self._clock())
            name = version or AT_FIRST
            of_it = (_F.video_id == video.video_id, _F.version == name)
            before = _fault(connection, video.video_id, name)
            row: dict[str, Any] = {"reason": reason}
            if before is not None and before.reason in AWAY and reason not in AWAY:
                row["tries"] = 1  # its folder is back, and this is a fault of another kind
            connection.execute(update(VIDEO_FAULTS).where(*of_it).values(**row))
            fault = _fault(connection, video.video_id, name)
            is_last = fault is not None and fault.is_last
            if is_last and version is None:
                _refuse(connection, video.video_id, reason, None)
            return is_last

    def faults(self, video_id: str) -> list[Fault]:
        """What was tried with a video and has not come to an end, by version."""
        statement = select(VIDEO_FAULTS).where(_F.video_id == video_id).order_by(_F.version)
        return [_to_fault(row) for row in self._database.rows(statement)]

    def counts(self) -> VideoCounts:
        """How many live videos there are."""
        by_state = select(_C.state, _C.reason, func.count().label("number"))
        states: dict[str, int] = {}
        refused: dict[str, int] = {}
        for row in self._database.rows(by_state.group_by(_C.state, _C.reason)):
            states[row.state] = states.get(row.state, 0) + row.number
            if row.state == "refused":
                refused[str(row.reason)] = row.number
        lasting = (_F.version != AT_FIRST, _IS_LAST)
        by_version = select(_F.version, func.count().label("number")).where(*lasting)
        rows = self._database.rows(by_version.group_by(_F.version))
        return VideoCounts(states, refused, {row.version: row.number for row in rows})

    def same_file(self, video: LiveVideo) -> str | None:
        """An older video with the same bytes."""
        if video.file is None:
            return None
        same = (_C.sha256 == video.file.sha256, _C.state == "indexed")
        others = select(_C.video_id).where(*same, _C.video_id != video.video_id)
        rows = self._database.rows(others.order_by(_C.received_ms).limit(1))
        return str(rows[0][0]) if rows else None

    def contents(
        self, version: str, after_seq: int = 0, limit: int = 10_000
    ) -> list[tuple[str, int, FloatArray | None]]:
        """Ids, `seq` and contents of the next videos that changed since and have one.

        Those that were deleted are among them, without a content; so are the bundle's.
        """
        fits = and_(_V.video_id == _C.video_id, _V.version == version)
        statement = (
            select(_C.video_id, _C.seq, _V.content)
            .outerjoin(VIDEO_VECTORS, fits)
            .where(or_(_V.content.is_not(None), _C.state == "deleted"), _C.seq > after_seq)
            .order_by(_C.seq)
            .limit(limit)
        )
        rows = self._database.rows(statement)
        return [
            (row.video_id, row.seq, None if row.content is None else to_floats(row.content))
            for row in rows
        ]

    def serves(self, version: str) -> None:
        """Tells encoders that vectors of a version are wanted."""
        c = SERVED_VERSIONS.c
        with self._database.writing() as connection:
            connection.execute(delete(SERVED_VERSIONS).where(c.version == version))
            row = {"version": version, "seen_ms": self._clock()}
            connection.execute(insert(SERVED_VERSIONS), row)

    def served(self) -> set[str]:
        """The versions that replicas serve now."""
        c = SERVED_VERSIONS.c
        recent = c.seen_ms > self._clock() - SERVED_MS
        return {str(row.version) for row in self._database.rows(select(c.version).where(recent))}


def _lacks(version: str) -> ColumnElement[bool]:
    """Whether an indexed video has no vector of its present facts under a version."""
    fits = and_(_V.video_id == _C.video_id, _V.version == version, _V.facts == _C.facts)
    return and_(_C.state == "indexed", ~select(_V.video_id).where(fits).exists())


def _is_read_from_file(there: VideoFacts, made: VideoFacts) -> bool:
    """Whether an encoder read the duration that nobody had said, and all else is as it was."""
    return there.duration is None and replace(there, duration=made.duration) == made != there


def _is_deleted(connection: Connection, video_id: str) -> bool:
    deleted = select(_C.seq).where(_C.video_id == video_id, _C.state == "deleted")
    return connection.execute(deleted).first() is not None


def _to_fault(row: Any) -> Fault:
    return Fault(row.version or None, row.tries, row.tried_ms, row.reason)


def _fault(connection: Connection, video_id: str, version: str) -> Fault | None:
    of_it = (_F.video_id == video_id, _F.version == version)
    row = connection.execute(select(VIDEO_FAULTS).where(*of_it)).first()
    return None if row is None else _to_fault(row)


def _count_try(connection: Connection, video_id: str, version: str, now_ms: int) -> None:
    """One more try; of several encoders that try at the same time one is counted."""
    before = _fault(connection, video_id, version)
    if before is not None and before.tried_ms > now_ms - LEASE_MS:
        return
    tries = 1 if before is None else before.tries + 1
    reason = before.reason if before is not None and before.reason in AWAY else None
    row = {"tries": tries, "tried_ms": now_ms, "reason": reason}
    of_it = (_F.video_id == video_id, _F.version == version)
    connection.execute(delete(VIDEO_FAULTS).where(*of_it))
    connection.execute(insert(VIDEO_FAULTS), {"video_id": video_id, "version": version, **row})


def _refuse(connection: Connection, video_id: str, reason: str, message: str | None) -> None:
    row = {"state": "refused", "reason": reason, "message": message}
    stored = (_C.video_id == video_id, _C.state == "stored")
    connection.execute(update(VIDEOS).where(*stored).values(**row, seq=next_seq(connection)))


def _put_vector(connection: Connection, version: str, video: LiveVideo, made: VideoVector) -> None:
    before = delete(VIDEO_VECTORS).where(_V.version == version, _V.video_id == video.video_id)
    connection.execute(before)
    row = {
        "version": version,
        "video_id": video.video_id,
        "facts": video.facts.digest,
        "vector": _bytes(made.vector),
        "content": None if made.content is None else _bytes(made.content),
    }
    connection.execute(insert(VIDEO_VECTORS), row)


def _bytes(values: FloatArray) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()
