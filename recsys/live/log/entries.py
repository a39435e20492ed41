"""What the log gives back: events with their place in it, and notices of deletions."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from recsys.live.log.event import Event, Row

FORGET, PRUNE = "forget", "prune"
NOTICES = (FORGET, PRUNE)
"""Types of rows that tell followers of a deletion; they are no events."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event in the log."""

    seq: int
    """Its place in the order of commits."""
    event: Event
    """Complete: with its id, with `positive`, and with the time at which it counts in `time_ms`."""
    received_ms: int
    """The server's time of receipt."""
    given_ms: int | None
    """The caller's time as it came."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """All events of a user up to `time_ms` were deleted: drop them from memory too."""

    seq: int
    mark: str
    """`user_mark` of the user's id."""
    time_ms: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """All events of before `before_ms` were deleted."""

    seq: int
    before_ms: int


Entry = LoggedEvent | Forgotten | Pruned


def user_mark(user_id: str) -> str:
    """What a forgotten user is recognised by: a hash, so that the id itself need not be kept."""
    return hashlib.sha256(f"recsys forgotten user\0{user_id}".encode()).hexdigest()[:32]


def notice(kind: str, mark: str, time_ms: int) -> Row:
    """The row of a notice; the time is that of the deletion, or that before which all is gone."""
    return {
        "event_id": f"{kind}-{uuid.uuid4().hex}",
        "user_id": mark,
        "type": kind,
        "time_ms": time_ms,
        "received_ms": time_ms,
        "positive": 0,
    }


def to_entry(row: Sequence[Any]) -> Entry:
    """The entry of a row of the log, which has its columns in the order of `tables.EVENTS`."""
    kind = row[3]
    if kind == FORGET:
        return Forgotten(seq=row[0], mark=row[2], time_ms=row[6])
    if kind == PRUNE:
        return Pruned(seq=row[0], before_ms=row[6])
    return to_logged(row)


def to_logged(row: Sequence[Any]) -> LoggedEvent:
    """The event of a row that is one; by place, since a request reads many."""
    (seq, event_id, user_id, kind, video_id, creator_id, time_ms, given_ms, received_ms) = row[:9]
    (positive, watched, labels, context, impression_id, version, place) = row[9:]
    event = Event(
        user_id,
        kind,
        video_id,
        creator_id,
        time_ms,
        bool(positive),
        watched,
        _from_json(labels),
        _from_json(context),
        event_id,
        impression_id,
        version,
        place,
    )
    return LoggedEvent(seq, event, received_ms, given_ms)


@lru_cache(maxsize=4096)
def _from_json(text: str | None) -> Mapping[str, Any]:
    """What a text of labels or of a context holds; the same few come again and again."""
    return MappingProxyType(json.loads(text) if text else {})
