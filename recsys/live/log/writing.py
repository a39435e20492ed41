"""What a transaction of the log does while it is the only one that writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from sqlalchemy import Connection, Select, delete, func, select

from recsys.live.log.entries import FORGET, NOTICES, notice, user_mark
from recsys.live.log.event import CONTENT, Row, digest
from recsys.live.store.database import among, insert_rows
from recsys.live.store.tables import EVENTS, EXPLORED

CHUNK = 1000
"""Ids that one statement asks for."""

Status = Literal["accepted", "duplicate", "conflict", "forgotten"]
"""What became of an event. `accepted`: it is new and in the log. `duplicate`: it was there already.
`conflict`: its id was there with other content; the first stays. `forgotten`: its user's data were
deleted after it happened, so it is not kept."""


@dataclass(frozen=True)
class AppendCall:
    """The rows of one call of `append`, and the second ids that they may be there under."""

    rows: list[Row] = field(default_factory=list)
    second_ids: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)


@cache
def select_contents(kind: str) -> Select[Any]:
    """The contents of events of `event_ids`."""
    c = EVENTS.c
    columns = [c[name] for name in CONTENT]
    return select(c.event_id, *columns).where(among(c.event_id, "event_ids", kind))


@cache
def select_forgotten(kind: str) -> Select[Any]:
    """The notices of forgotten users of `marks`."""
    c = EVENTS.c
    return select(c.user_id, c.time_ms).where(among(c.user_id, "marks", kind), c.type == FORGET)


def write(connection: Connection, calls: Sequence[AppendCall]) -> list[list[Status]]:
    """Writes calls, the first call's events first, and says what became of each event.

    What is not there now may be inserted, since no other transaction writes meanwhile.
    """
    rows = [row for call in calls for row in call.rows]
    second_ids = [second_id for call in calls for second_id in call.second_ids]
    ids = {row["event_id"] for row in rows} | {i for i in second_ids if i is not None}
    there = _contents(connection, ids)
    forgotten = forgotten_times(connection, {row["user_id"] for row in rows})
    statuses: list[Status] = []
    new: list[Row] = []
    for row, second_id in zip(rows, second_ids, strict=True):
        statuses.append(_status(row, second_id, there, forgotten))
        if statuses[-1] == "accepted":
            there[row["event_id"]] = row
            new.append(row)
    if new:
        insert_rows(connection, new)
    in_order = iter(statuses)
    return [[next(in_order) for _ in call.rows] for call in calls]


def delete_users(
    connection: Connection, marks: Mapping[str, int], user_ids: Collection[str]
) -> int:
    """Deletes users' events up to the time of their mark and leaves notices; gives the number."""
    ids = {user_mark(user_id): user_id for user_id in user_ids}
    known, deleted = _forgotten_marks(connection, marks), 0
    for mark, time_ms in marks.items():
        if mark in ids:
            of_user = (EVENTS.c.user_id == ids[mark], EVENTS.c.type.not_in(NOTICES))
            gone = connection.execute(delete(EVENTS).where(*of_user, EVENTS.c.time_ms <= time_ms))
            deleted += gone.rowcount
            shown = (EXPLORED.c.user_id == ids[mark], EXPLORED.c.time_ms <= time_ms)
            connection.execute(delete(EXPLORED).where(*shown))
        if known.get(mark, -1) < time_ms:
            insert_rows(connection, [notice(FORGET, mark, time_ms)])
    return deleted


def delete_user(connection: Connection, user_id: str, now_ms: int) -> int:
    """Deletes all that is kept of a user and leaves a notice; gives the number of events.

    What another machine has acknowledged, whose clock runs ahead of `now_ms`, goes too.
    """
    latest = func.coalesce(func.max(EVENTS.c.time_ms), now_ms)
    of_user = (EVENTS.c.user_id == user_id, EVENTS.c.type.not_in(NOTICES))
    last_ms = connection.execute(select(latest).where(*of_user)).scalar_one()
    connection.execute(delete(EXPLORED).where(EXPLORED.c.user_id == user_id))
    return delete_users(connection, {user_mark(user_id): max(now_ms, last_ms)}, [user_id])


def _contents(
    connection: Connection, event_ids: Collection[str]
) -> dict[str, Mapping[str, object]]:
    """The contents of those events that are there, by their ids."""
    return {
        row.event_id: row._asdict()
        for chunk in chunks(event_ids)
        for row in connection.execute(
            select_contents(connection.dialect.name), {"event_ids": chunk}
        )
    }


def _forgotten_marks(connection: Connection, marks: Collection[str]) -> dict[str, int]:
    """When users were last forgotten, by their marks, of those that ever were."""
    times: dict[str, int] = {}
    for chunk in chunks(marks):
        for row in connection.execute(select_forgotten(connection.dialect.name), {"marks": chunk}):
            times[row.user_id] = max(row.time_ms, times.get(row.user_id, row.time_ms))
    return times


def forgotten_times(connection: Connection, user_ids: Collection[str]) -> dict[str, int]:
    """When users were last forgotten, of those that ever were."""
    ids = {user_mark(user_id): user_id for user_id in user_ids}
    return {ids[mark]: time_ms for mark, time_ms in _forgotten_marks(connection, ids).items()}


def _status(
    row: Row,
    second_id: str | None,
    there: Mapping[str, Mapping[str, object]],
    forgotten: Mapping[str, int],
) -> Status:
    first = there.get(row["event_id"])
    if first is not None:
        return "duplicate" if digest(first) == digest(row) else "conflict"
    if second_id in there:
        return "duplicate"
    return "forgotten" if row["time_ms"] <= forgotten.get(row["user_id"], -1) else "accepted"


def chunks(values: Collection[str]) -> Iterator[list[str]]:
    """Values in lists that are short enough for one statement."""
    listed = list(values)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]
