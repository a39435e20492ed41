"""The event log: what happens while a model is served, in outside ids, kept for good.

Append-only, in the order of commits; what `append` has returned is on disk. A retry changes
nothing. It outlives every bundle, since it knows no rows of a vocabulary.

    log = EventLog("runs/mine/live.sqlite")           # or postgresql://user@host/name
    log.append([Event("u1", VIEW, "v7", time_ms=1_764_143_103_000, watched=12.5)])
    log.of_user("u1")                                 # what a request reads
    log.follow(after_seq)                             # what a replica reads, again and again
    log.forget("u1")                                  # their right
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, distinct, func, or_, select

from recsys.errors import InputError
from recsys.live.clock import Clock, now
from recsys.live.log.entries import (
    FORGET,
    NOTICES,
    PRUNE,
    Entry,
    LoggedEvent,
    notice,
    to_entry,
    to_logged,
)
from recsys.live.log.event import STANDING, Event, to_row
from recsys.live.log.writing import (
    CHUNK,
    AppendCall,
    Status,
    chunks,
    delete_user,
    delete_users,
    write,
)
from recsys.live.store.commits import GroupCommit
from recsys.live.store.database import Database, LogError, among, insert_rows
from recsys.live.store.tables import EVENTS, EXPLORED
from recsys.live.store.tail import Tail
from recsys.live.text import check_text

PAGE = 10_000
"""Rows that are read at a time."""
LARGEST_SEQ = 2**63 - 1


@cache
def select_of_users(kind: str) -> Select[Any]:
    """The events of `user_ids` after `after_seq`."""
    c = EVENTS.c
    listed = among(c.user_id, "user_ids", kind)
    return select(EVENTS).where(listed, c.seq > bindparam("after_seq"), c.type.not_in(NOTICES))


@cache
def select_since(kind: str) -> Select[Any]:
    """The events of `user_ids` after `after_seq`, and what they refused before."""
    c = EVENTS.c
    listed = among(c.user_id, "user_ids", kind)
    since = or_(c.seq > bindparam("after_seq"), c.type.in_(STANDING))
    return select(EVENTS).where(listed, since, c.type.not_in(NOTICES))


@cache
def select_of_videos(kind: str) -> Select[Any]:
    """The events of `user_ids` and `video_ids` up to `after_seq`, but for what they refused."""
    c = EVENTS.c
    listed = (among(c.user_id, "user_ids", kind), among(c.video_id, "video_ids", kind))
    others = c.type.not_in((*NOTICES, *STANDING))
    return select(EVENTS).where(*listed, c.seq <= bindparam("after_seq"), others)


ROWS: Select[Any] = (
    select(EVENTS)
    .where(EVENTS.c.seq > bindparam("after"), EVENTS.c.seq <= bindparam("up_to"))
    .order_by(EVENTS.c.seq)
    .limit(bindparam("limit"))
)
_C = EVENTS.c
# Notices are few and events many: by how their ids begin they are found in the index of ids.
FORGOTTEN: Select[Any] = (
    select(_C.event_id, _C.user_id, _C.time_ms)
    .where(_C.event_id > bindparam("after"), _C.event_id < f"{FORGET}.", _C.type == FORGET)
    .order_by(_C.event_id)
    .limit(bindparam("limit"))
)
LATEST: Select[Any] = select(func.coalesce(func.max(EVENTS.c.seq), 0))


@dataclass(frozen=True)
class Appended:
    """What became of the events of one call, in their order."""

    event_ids: list[str]
    statuses: list[Status]

    def count(self, status: Status) -> int:
        """Number of events of a status."""
        return self.statuses.count(status)


@dataclass(frozen=True)
class LogCounts:
    """What is in a log."""

    events: int
    users: int
    types: dict[str, int] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    latest_seq: int = 0
    forgotten_users: int = 0


def _by_user(rows: Iterable[Row[Any]]) -> dict[str, list[LoggedEvent]]:
    """Each user's events, in the order of their times."""
    by_user: dict[str, list[LoggedEvent]] = {}
    for row in rows:
        by_user.setdefault(row.user_id, []).append(to_logged(row))
    for events in by_user.values():
        events.sort(key=lambda logged: (logged.event.time_ms, logged.seq))
    return by_user


class EventLog:
    """An open log; any thread may call it, and each process opens its own.

    Args:
        address: A local path or `sqlite:///PATH` (on this machine's own disk: SQLite's shared
            memory does not work over a network), or `postgresql://USER@HOST/NAME`.
        create: Make it where there is none.
        clock: The server's.
        read_limit_s: As `Database` takes it: how long a server lets each of its queries take.

    Raises:
        InputError: It cannot be opened, or is of another version.
    """

    def __init__(
        self,
        address: str,
        *,
        create: bool = True,
        clock: Clock = now,
        read_limit_s: float | None = None,
    ) -> None:
        self.database = Database(address, create=create, read_limit_s=read_limit_s)
        self.clock = clock
        self._commits: GroupCommit[AppendCall, Appended] = GroupCommit(self._write, fatal=LogError)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commits what was handed in and closes the database."""
        self._commits.close()
        self.database.close()

    def append(
        self, events: Sequence[Event], *, received_ms: Sequence[int] | None = None
    ) -> Appended:
        """Adds events, all of a call or none, and returns when they are on disk.

        Args:
            events: In outside ids.
            received_ms: When the server had received each, for events that another log gave away;
                now without it.

        Raises:
            InputError: An event is wrong; none of the call is kept. The message names its place in
                the call where there are several.
            LogError: The database fails. None or all are kept; the same call may be made again.
        """
        return self.hand_in(events, received_ms=received_ms).result()

    def hand_in(
        self, events: Sequence[Event], *, received_ms: Sequence[int] | None = None
    ) -> Future[Appended]:
        """`append` for who does not wait: the future is done when they are on disk, or failed.

        Raises:
            InputError: As `append`.
        """
        now_ms = self.clock()
        received = [now_ms] * len(events) if received_ms is None else received_ms
        call = AppendCall()
        for place, (event, time_ms) in enumerate(zip(events, received, strict=True)):
            try:
                row, second_id = to_row(event, time_ms)
            except InputError as error:
                if len(events) == 1:
                    raise
                raise InputError(f"event {place + 1} of {len(events)}: {error}") from None
            call.rows.append(row)
            call.second_ids.append(second_id)
        return self._commits.submit(call)

    def _write(self, calls: Sequence[AppendCall]) -> list[Appended]:
        with self.database.writing() as connection:
            statuses = write(connection, calls)
        ids = [[row["event_id"] for row in call.rows] for call in calls]
        return [Appended(*pair) for pair in zip(ids, statuses, strict=True)]

    def of_user(
        self, user_id: str, *, after_seq: int = 0, from_ms: int | None = None
    ) -> list[LoggedEvent]:
        """One user's events in the order of their times; an event is here once it is committed.

        Args:
            user_id: Known or not.
            after_seq: Only what was committed later, late events included: what a bundle that was
                made of the log up to `after_seq` does not know.
            from_ms: Only what happened then or later.
        """
        return self.of_users([user_id], after_seq=after_seq, from_ms=from_ms).get(user_id, [])

    def of_users(
        self,
        user_ids: Collection[str],
        *,
        after_seq: int = 0,
        from_ms: int | None = None,
        up_to_seq: int | None = None,
    ) -> dict[str, list[LoggedEvent]]:
        """`of_user` of many users: one indexed query a thousand; who has none is left out.

        Args:
            user_ids: Known or not.
            after_seq: As in `of_user`.
            from_ms: As in `of_user`.
            up_to_seq: Only what was committed up to there.

        Raises:
            InputError: An id is no text that a log can hold.
            LogError: The database fails, or does not answer in time.
        """
        for user_id in user_ids:
            check_text(user_id, "user_id")
        parameters: dict[str, object] = {"after_seq": after_seq}
        statement = select_of_users(self.database.kind)
        for name, value, condition in (
            ("from_ms", from_ms, EVENTS.c.time_ms >= bindparam("from_ms")),
            ("up_to_seq", up_to_seq, EVENTS.c.seq <= bindparam("up_to_seq")),
        ):
            if value is not None:
                statement = statement.where(condition)
                parameters[name] = value
        return _by_user(
            row
            for chunk in chunks(user_ids)
            for row in self.database.rows(statement, {**parameters, "user_ids": chunk})
        )

    def since(self, user_ids: Collection[str], after_seq: int) -> dict[str, list[LoggedEvent]]:
        """What users did after a place in the log, and what of before has to do with it.

        That is all that they did with the videos of it, since an event may belong to a showing of
        before, and whatever they refused. So what it costs does not grow with what is older.

        Args:
            user_ids: Known or not.
            after_seq: Up to where all is known otherwise.

        Raises:
            InputError: As `of_users`.
            LogError: As `of_users`.
        """
        for user_id in user_ids:
            check_text(user_id, "user_id")
        kind, read = self.database.kind, self.database.rows
        rows: list[Row[Any]] = []
        for chunk in chunks(user_ids):
            asked: dict[str, object] = {"user_ids": chunk, "after_seq": after_seq}
            rows += (there := read(select_since(kind), asked))
            if not after_seq:  # there is nothing before
                continue
            new = [row for row in there if row.seq > after_seq and row.video_id is not None]
            asked["user_ids"] = list({row.user_id for row in new})
            for videos in chunks({row.video_id for row in new}):
                rows += read(select_of_videos(kind), {**asked, "video_ids": videos})
        return _by_user(rows)

    def follow(self, after_seq: int, limit: int = PAGE) -> list[Entry]:
        """What was committed after a place in the log, in its order; none is ever skipped.

        A row that becomes visible has a higher `seq` than every row that was visible before (see
        `database.TURN`), so a follower goes on from the last `seq` that it was given.
        """
        return [to_entry(row) for row in self.rows_after(after_seq, limit)]

    def rows_after(
        self, after_seq: int, limit: int, *, up_to_seq: int | None = None
    ) -> Sequence[Row[Any]]:
        """The rows of `follow` as the database has them, up to a place in the log.

        Raises:
            LogError: The database fails, or does not answer in its `read_limit_s`.
        """
        up_to = LARGEST_SEQ if up_to_seq is None else up_to_seq
        asked = {"after": after_seq, "up_to": up_to, "limit": limit}
        return self.database.rows(ROWS, asked)

    def tail(self) -> Tail:
        """A quick reader of what was committed last, for one thread that follows the log."""
        return Tail(self.database, ROWS)

    def entries(self, after_seq: int = 0, up_to_seq: int | None = None) -> Iterator[Entry]:
        """All of a range, read in pages, each of them a query of its own."""
        last = self.latest_seq() if up_to_seq is None else up_to_seq
        while page := self.rows_after(after_seq, PAGE, up_to_seq=last):
            yield from map(to_entry, page)
            after_seq = page[-1].seq

    def latest_seq(self) -> int:
        """The `seq` of the newest row; 0 for an empty log."""
        return int(self.database.rows(LATEST)[0][0])

    def forget(self, user_id: str) -> int:
        """Deletes all events of a user, tells followers of it, and returns how many there were.

        They stay deleted: events of the time before are not taken again, from whichever source.
        What the user does afterwards is kept.

        Raises:
            InputError: The id is no text that a log can hold.
        """
        check_text(user_id, "user_id")
        with self.database.writing() as connection:
            deleted = delete_user(connection, user_id, self.clock())
        self.database.wipe_traces()
        return deleted

    def forget_marks(self, marks: Mapping[str, int], user_ids: Collection[str]) -> int:
        """Deletes events of users by their marks, up to a time each, as `forget` does.

        Args:
            marks: `user_mark` of a user → time of the deletion.
            user_ids: Users among whom those of the marks are, if they have events.
        """
        with self.database.writing() as connection:
            deleted = delete_users(connection, marks, user_ids)
        self.database.wipe_traces()
        return deleted

    def prune(self, before_ms: int, *, batch: int = 10_000) -> int:
        """Deletes the events that happened before a time and returns how many there were.

        What users refused (`STANDING`) stays, since it holds for good.

        A batch of rows a transaction, so that writers wait milliseconds. Each of events leaves the
        notice that tells followers, in place of that of the batch before: whoever is killed in the
        middle leaves none that do not know. What was explored so long ago goes after them.
        """
        c = EVENTS.c
        old = (c.time_ms < before_ms, c.type.not_in((*NOTICES, *STANDING)))
        page = select(c.seq).where(*old).order_by(c.seq).limit(batch)
        deleted = last = 0
        told = ""
        while seqs := self.database.rows(page.where(c.seq > last)):
            first, last = seqs[0][0], seqs[-1][0]
            row = notice(PRUNE, "", before_ms)
            with self.database.writing() as connection:
                gone = connection.execute(delete(EVENTS).where(c.seq.between(first, last), *old))
                connection.execute(delete(EVENTS).where(c.event_id == told))
                insert_rows(connection, [row])
            deleted, told = deleted + gone.rowcount, str(row["event_id"])
        self._prune_explored(before_ms, batch)
        if deleted:
            self.database.wipe_traces()
        return deleted

    def _prune_explored(self, before_ms: int, batch: int) -> None:
        """Deletes what was explored before a time, from the oldest on, a batch a transaction."""
        time_ms, done, last = EXPLORED.c.time_ms, -1, before_ms - 1
        page = select(time_ms).where(time_ms <= last).order_by(time_ms).offset(batch - 1).limit(1)
        while done < last:
            ends = self.database.rows(page.where(time_ms > done))
            end = ends[0][0] if ends else last
            with self.database.writing() as connection:
                connection.execute(delete(EXPLORED).where(time_ms > done, time_ms <= end))
            done = end

    def counts(self) -> LogCounts:
        """How many events of which types, of how many users, from when to when."""
        c = EVENTS.c
        types = select(c.type, func.count().label("number")).group_by(c.type).order_by(c.type)
        times = (func.min(c.time_ms).label("first"), func.max(c.time_ms).label("last"))
        users = func.count(distinct(c.user_id)).label("users")
        span = self.database.rows(select(users, *times).where(c.type.not_in(NOTICES)))[0]
        events = {
            row.type: row.number for row in self.database.rows(types) if row.type not in NOTICES
        }
        return LogCounts(
            events=sum(events.values()),
            users=span.users,
            types=events,
            first_ms=span.first,
            last_ms=span.last,
            latest_seq=self.latest_seq(),
            forgotten_users=len(self.forgotten_marks()),
        )

    def forgotten_marks(self) -> dict[str, int]:
        """`user_mark` → time of the latest deletion, of all users that were forgotten.

        Read in pages; a follower learns of those that are forgotten meanwhile by their notices.
        """
        times: dict[str, int] = {}
        asked = {"after": f"{FORGET}-", "limit": PAGE}
        while page := self.database.rows(FORGOTTEN, asked):
            for row in page:
                times[row.user_id] = max(row.time_ms, times.get(row.user_id, row.time_ms))
            asked["after"] = page[-1].event_id
        return times

    def user_ids(self, after: str = "", limit: int = CHUNK) -> list[str]:
        """The next users that have events, in the order of their ids."""
        statement = (
            select(EVENTS.c.user_id)
            .where(EVENTS.c.user_id > after, EVENTS.c.type.not_in(NOTICES))
            .distinct()
            .order_by(EVENTS.c.user_id)
            .limit(limit)
        )
        return [row[0] for row in self.database.rows(statement)]
