"""One live event in outside ids: its types, what is allowed in it, and what it is known by.

`Event` is what a caller hands in; `to_row` checks it and gives the row that the log keeps. Nothing
here knows of a database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from recsys.errors import InputError
from recsys.live.text import check_entries, check_id, check_text, shown

Checked = TypeVar("Checked")

Row = dict[str, Any]
"""A row of the log by the names of its columns, without `seq`."""

FIRST_MS = 946_684_800_000
"""1 January 2000 (UTC): nothing that is told of now happened earlier."""
LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""
DAY_MS = 86_400_000
AHEAD_MS = DAY_MS
"""How far a caller's clock may run ahead of the server's."""
MINUTE_MS = 60_000
LONGEST_WATCH = 1e15
"""Longest watch time, in whatever unit; the limit that training data have."""
LARGEST_PLACE = 1_000_000


@dataclass(frozen=True)
class EventType:
    """What is asked of the events of one type, and what they weigh."""

    weight: float
    """What one event says of the user's interest: more than 0 for it, less against it."""
    needs: tuple[str, ...]
    """Fields that must be given."""
    takes: tuple[str, ...] = ()
    """Fields that may be given beside those that any event has."""

    @property
    def positive(self) -> bool:
        """Whether it says that the user liked the video, where the caller does not tell."""
        return self.weight > 0


EXPOSURE, VIEW, TASK = "exposure", "view", "task"
NOT_INTERESTED, HIDE_CREATOR = "not_interested", "hide_creator"

TYPES: Mapping[str, EventType] = {
    EXPOSURE: EventType(0.0, ("video_id",), ("place",)),
    VIEW: EventType(1.0, ("video_id",), ("watched", "labels")),
    TASK: EventType(1.0, ("video_id", "labels")),
    NOT_INTERESTED: EventType(-1.0, ("video_id",)),
    HIDE_CREATOR: EventType(-1.0, ("creator_id",)),
}
"""Every type. `exposure`: a video was shown. `view`: it was watched, and for how long. `task`: one
of the run's tasks was done or undone (`labels`). `not_interested`: no more of this video.
`hide_creator`: no more of this creator."""

STANDING = (NOT_INTERESTED, HIDE_CREATOR)
"""Types of what holds for good."""

LIMITED = ("watched", "labels", "place")
"""Fields that only some types take."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a caller tells of it; ids are their own, text or integers."""

    user_id: str
    type: str = VIEW
    """One of `TYPES`."""
    video_id: str | None = None
    creator_id: str | None = None
    time_ms: int | None = None
    """When it happened by the caller's clock, in Unix milliseconds; the server's time of receipt
    without it."""
    positive: bool | None = None
    """Whether the user liked the video; without it as the type says, and for a task whether any
    label is true."""
    watched: float | None = None
    """How long, in the unit of the run's durations; in seconds where it has none."""
    labels: Mapping[str, bool] = field(default_factory=dict)
    """Ranking tasks that this event says something of."""
    context: Mapping[str, str] = field(default_factory=dict)
    """What was known when the video was asked for."""
    event_id: str | None = None
    """What a retry is known by. Without it it is made of the content, `time_ms` included. With
    neither, the same content again in the same minute or the next is taken for a retry."""
    impression_id: str | None = None
    """Of the recommendation that showed the video."""
    version: str | None = None
    """Of the bundle that recommended it."""
    place: int | None = None
    """Of an exposure: where the video stood, from 0."""


CONTENT = (
    "user_id",
    "type",
    "video_id",
    "creator_id",
    "given_ms",
    "positive",
    "watched",
    "labels",
    "context",
    "impression_id",
    "version",
    "place",
)
"""Columns that tell two events apart. Changing them or their order changes every id that is made
of content, and so makes retries of old events new."""


def digest(row: Mapping[str, object]) -> str:
    """A stable hash of an event's content: 32 hexadecimal characters."""
    content = json.dumps([row[name] for name in CONTENT], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def to_row(event: Event, received_ms: int) -> tuple[Row, str | None]:
    """Checks an event and makes the log's row of it.

    Returns:
        The row, and a second id by which the event may be there already: that of the minute before,
        for an event that has neither an id nor a time.

    Raises:
        InputError: A field is wrong; the message names it, its value and what is allowed.
    """
    kind = TYPES.get(event.type) if isinstance(event.type, str) else None
    if kind is None:
        raise InputError(f"type={shown(event.type)}: allowed are {', '.join(TYPES)}")
    _check_fields(event, kind)
    given = None if event.time_ms is None else check_time(event.time_ms, received_ms)
    labels = check_entries(event.labels, "labels")
    row: Row = {
        "user_id": check_id(event.user_id, "user_id"),
        "type": event.type,
        "video_id": _optional(check_id, event.video_id, "video_id"),
        "creator_id": _optional(check_id, event.creator_id, "creator_id"),
        "given_ms": given,
        "received_ms": received_ms,
        # The server's clock orders: a clock that runs ahead does not put an event into the future.
        "time_ms": received_ms if given is None else min(given, received_ms),
        "positive": int(_positive(event, kind)),
        "watched": _optional(_check_watched, event.watched, "watched"),
        "labels": _to_json({k: _check_flag(v, f"labels.{k}") for k, v in labels.items()}),
        "context": _to_json(_check_context(event.context)),
        "impression_id": _optional(check_id, event.impression_id, "impression_id"),
        "version": _optional(check_text, event.version, "version"),
        "place": _optional(_check_place, event.place, "place"),
    }
    return _with_id(row, event.event_id)


def _with_id(row: Row, event_id: str | None) -> tuple[Row, str | None]:
    if event_id is not None:
        row["event_id"] = check_id(event_id, "event_id")
        return row, None
    content = digest(row)
    row["event_id"] = f"c-{content}"
    if row["given_ms"] is not None:
        return row, None
    minute = row["received_ms"] // MINUTE_MS
    row["event_id"] = f"c-{content}-{minute}"
    return row, f"c-{content}-{minute - 1}"


def check_time(
    time_ms: object, now_ms: int, name: str = "time_ms", *, last_ms: int | None = None
) -> int:
    """A caller's time, if it can be one in Unix milliseconds; late ones are fine.

    >>> check_time(1_700_000_000, 1_700_000_000_000)
    Traceback (most recent call last):
    recsys.errors.InputError: time_ms=1700000000: these are seconds; send milliseconds; \
the server's time is 1700000000000 (2023-11-14T22:13:20Z)

    Args:
        time_ms: The caller's time.
        now_ms: The server's.
        name: Of the field.
        last_ms: The latest that it may be, of what may lie ahead; without it a day from now.

    Raises:
        InputError: It is before 2000, in another unit, or after the latest that it may be.
    """
    if isinstance(time_ms, bool) or not isinstance(time_ms, int):
        raise InputError(f"{name}={shown(time_ms)}: must be an integer, in Unix milliseconds")
    last = now_ms + AHEAD_MS if last_ms is None else last_ms
    if FIRST_MS <= time_ms <= last:
        return time_ms
    server = f"the server's time is {now_ms} ({iso(now_ms)})"
    for unit, per_ms in (("seconds", 1e-3), ("microseconds", 1e3), ("nanoseconds", 1e6)):
        if FIRST_MS * per_ms <= time_ms <= last * per_ms:
            reason = f"these are {unit}; send milliseconds"
            break
    else:
        ahead = "more than a day ahead" if last_ms is None else f"after {iso(last_ms)}"
        wrong = "before 2000" if time_ms < FIRST_MS else ahead
        reason = f"{wrong}; check the sender's clock"
    raise InputError(f"{name}={shown(time_ms)}: {reason}; {server}")


def iso(time_ms: int) -> str:
    """A time for people, in UTC.

    >>> iso(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_fields(event: Event, kind: EventType) -> None:
    for name in kind.needs:
        if getattr(event, name) in (None, {}):
            raise InputError(f"{name}: an event of type {event.type} needs it; add it")
    for name in LIMITED:
        given = getattr(event, name) not in (None, {})
        if given and name not in kind.takes + kind.needs:
            fitting = [other for other, t in TYPES.items() if name in t.takes + t.needs]
            raise InputError(
                f"{name}: an event of type {event.type} has none; leave it out, or send it with "
                f"type {' or '.join(fitting)}"
            )


def _positive(event: Event, kind: EventType) -> bool:
    if event.positive is not None:
        return _check_flag(event.positive, "positive")
    return any(event.labels.values()) if event.type == TASK else kind.positive


def _optional(check: Callable[[object, str], Checked], value: object, name: str) -> Checked | None:
    return None if value is None else check(value, name)


def _check_flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name}={shown(value)}: must be true or false")
    return value


def _check_watched(value: object, name: str) -> float:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
    if 0 <= number <= LONGEST_WATCH:  # what is not a number is neither
        return float(number) + 0.0  # -0.0 is 0.0, as SQLite gives it back
    raise InputError(f"{name}={shown(value)}: must be a number from 0 to {LONGEST_WATCH:g}")


def _check_place(value: object, name: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_PLACE:
        return value
    raise InputError(f"{name}={shown(value)}: must be an integer from 0 to {LARGEST_PLACE}")


def _check_context(context: object) -> dict[str, str]:
    entries = check_entries(context, "context")
    return {name: check_id(value, f"context.{name}") for name, value in entries.items()}


def _to_json(entries: Mapping[str, object]) -> str | None:
    """Sorted by name, so that equal contents are equal texts; nothing for no entries."""
    return json.dumps(entries, sort_keys=True, separators=(",", ":")) if entries else None
