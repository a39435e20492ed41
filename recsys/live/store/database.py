"""The database of the event log: SQLite by default, PostgreSQL by URL.

Readers see what is committed; writers take turns, one transaction at a time over all threads,
processes and machines. What is kept is in `live.store.tables`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Executable,
    Row,
    Text,
    any_,
    bindparam,
    cast,
    column,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from recsys.errors import InputError
from recsys.live.store.tables import EVENTS, FACTS, METADATA
from recsys.live.store.time_limit import TimeLimits

Result = TypeVar("Result")
VERSION = "2"
"""Of the tables below; a database of another version is refused."""

BUSY_MS = 30_000
"""How long a writer waits for its turn before it gives up."""
READ_BUSY_MS = 1_000
"""How long a reader of SQLite waits for a file that is locked as a whole, which is seldom."""
READ_LIMIT_S = 2.0
"""How long a server's reads may take: what it asks for, an index finds in milliseconds."""
WRITE_LIMIT_S = 60.0
"""How long a transaction that writes may take, with waiting for its turn."""
CONNECT_S = 3
"""How long a reader waits for a connection; a writer waits `WRITE_CONNECT_S`."""
WRITE_CONNECT_S = 10

PRAGMAS = (
    "journal_mode=WAL",
    # In WAL mode the default leaves the newest commits to the operating system.
    "synchronous=FULL",
    # What is deleted is overwritten, not only unlinked.
    "secure_delete=ON",
)
READ_KIB, WRITE_KIB = 512, 4096
"""Of SQLite's pages that a connection keeps: of what it has read once, which the system keeps for
all of them; of what it writes."""


def among(column: ColumnElement[str], name: str, kind: str) -> ColumnElement[bool]:
    """Whether a column's text is in the list of a parameter, by the column's index.

    PostgreSQL takes the list as one array, so that the statement's text is always the same; SQLite
    plans well only where it knows how long the list is.
    """
    if kind == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(Text)))
    return column.in_(bindparam(name, expanding=True))


_GIVEN = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON)).table_valued(
    *(
        column(c.name, Text() if isinstance(c.type, Text) else c.type)
        for c in EVENTS.columns
        if c.name != "seq"
    ),
    name="given",
)
INSERT_MANY = insert(EVENTS).from_select(
    [c.name for c in _GIVEN.c], select(*_GIVEN.render_derived(with_types=True).c)
)
"""All rows in one statement, for PostgreSQL: five times as fast as one statement a row."""

TURN = {
    "sqlite": "BEGIN IMMEDIATE",
    # PostgreSQL draws `seq` before the commit. Without the lock a transaction with a low number
    # could commit after one with a high number, and a follower that has seen the high one would
    # never see the low one. The lock is taken before the first insert and ends after the commit is
    # visible, so that numbers become visible in their order. Its key is any fixed number.
    "postgresql": (
        # A writer's statements find their rows by an index. Until the first ANALYZE the planner
        # believes that the table is small, and would read all of it.
        "SET LOCAL enable_seqscan = off;"
        f"SET LOCAL lock_timeout = {BUSY_MS};"
        # What is acknowledged is on disk, also where the server would rather not wait for it.
        "SELECT set_config('synchronous_commit', 'on', true)"
        " WHERE current_setting('synchronous_commit') = 'off';"
        # A writer that hangs inside its turn would stop all others.
        f"SET LOCAL idle_in_transaction_session_timeout = {BUSY_MS};"
        "SELECT pg_advisory_xact_lock(7235419866104)"
    ),
}
"""What a transaction that writes begins with: it waits for its turn."""


class LogError(RuntimeError):
    """The database failed: it is gone, full or locked for too long. The same call may succeed."""


class Database:
    """An open database.

    Args:
        address: A local path or `sqlite:///PATH`, or `postgresql://USER@HOST/NAME`.
        create: Make the tables where there are none; without it their absence is an error.
        read_limit_s: Seconds after which the database counts as failed at each thing that is read
            of it, `READ_LIMIT_S` in a server; None waits for ever, as commands do.

    Raises:
        InputError: The address is of no kind that is known, nothing answers there, or what is there
            is no event log of this version.
    """

    def __init__(
        self, address: str, *, create: bool = True, read_limit_s: float | None = None
    ) -> None:
        self.read_limit_s = read_limit_s
        url = parse_address(address)
        self.shown = shown_address(url)
        self.kind = url.get_backend_name()
        self.id: str | None = None
        """Of the log, wherever it is moved to: places in another one are other events. None of a
        log that was made before there were any."""
        if self.kind == "sqlite":
            _check_file(Path(str(url.database)), create=create)
        # Readers run one statement at a time, without a transaction around it.
        self._readers = _engine(
            url,
            busy_ms=READ_BUSY_MS,
            kept_kib=READ_KIB,
            connect_s=CONNECT_S,
            isolation_level="AUTOCOMMIT",
            pool_size=8,
            max_overflow=56,
            pool_timeout=CONNECT_S,
        )
        self._writers = _engine(
            url,
            busy_ms=BUSY_MS,
            kept_kib=WRITE_KIB,
            connect_s=WRITE_CONNECT_S,
            pool_size=1,
            max_overflow=7,
        )
        self._limits = TimeLimits()
        event.listen(self._writers, "begin", self._take_turn)
        try:
            self._prepare(create=create)
        except DBAPIError as error:
            self.close()
            raise InputError(
                f"{self.shown}: cannot be used as an event log ({reason(error)})"
            ) from None
        except LogError as error:
            self.close()
            raise InputError(str(error)) from None
        except InputError:
            self.close()
            raise

    def _prepare(self, *, create: bool) -> None:
        with self._reading() as connection:
            tables = set(inspect(connection).get_table_names())
            there = FACTS.name in tables
            encoding = self.kind == "sqlite" or connection.scalar(text("SHOW server_encoding"))
        if encoding not in (True, "UTF8"):
            raise InputError(
                f"{self.shown}: keeps its text in {encoding}; make a database with encoding UTF8"
            )
        if not there and not create:
            raise InputError(f"{self.shown}: there is no event log in it")
        if not tables >= METADATA.tables.keys():  # none, or those of a time before live videos
            with self._writers.begin() as connection:  # another process may have been faster
                METADATA.create_all(connection)
                if connection.scalar(select(FACTS.c.value)) is None:
                    made = {"version": VERSION, "id": uuid.uuid4().hex}
                    rows = [{"name": name, "value": value} for name, value in made.items()]
                    connection.execute(insert(FACTS), rows)
        with self._reading() as connection:
            facts = dict(connection.execute(select(FACTS.c.name, FACTS.c.value)).tuples().all())
        version, self.id = facts.get("version"), facts.get("id")
        if version != VERSION:
            raise InputError(
                f"{self.shown}: an event log of version {version}, and this program keeps version "
                f"{VERSION}; export it with the program that made it and import it into a new one"
            )

    def _take_turn(self, connection: Connection) -> None:
        connection.exec_driver_sql(TURN[self.kind])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection to read with, for no longer than the limit.

        Raises:
            LogError: It took longer.
        """
        with (
            self._readers.connect() as connection,
            self.limited(connection, self.read_limit_s),
        ):
            yield connection

    def rows(
        self, statement: Executable, parameters: Mapping[str, object] | None = None
    ) -> Sequence[Row[Any]]:
        """What a statement reads of all that is committed.

        Raises:
            LogError: The database fails, or does not answer in `read_limit_s`.
        """

        def read() -> Sequence[Row[Any]]:
            with self._reading() as connection:
                return connection.execute(statement, parameters).all()

        with self.plain_errors("read"):
            # Once the server was started anew, all connections of before are dropped.
            return self.twice(read, again=lambda error: error.connection_invalidated)

    @contextlib.contextmanager
    def limited(self, connection: Connection, limit_s: float | None) -> Iterator[None]:
        """Limits how long the database may take for what is asked meanwhile.

        Raises:
            LogError: It took longer.
        """
        if limit_s is None:
            yield
            return
        with self._limits.within(connection, limit_s) as running:
            try:
                yield
            except DBAPIError:
                if not running.is_late:
                    raise
                raise LogError(
                    f"{self.shown}: the event log did not answer in {limit_s:g} s"
                ) from None

    def twice(self, read: Callable[[], Result], *, again: Callable[[DBAPIError], bool]) -> Result:
        """What is read, at the second try if the first one failed quickly.

        Args:
            read: Reads.
            again: Whether what it failed at may be better at the next try.
        """
        begun = time.monotonic()
        try:
            return read()
        except DBAPIError as error:
            if not again(error) or time.monotonic() - begun >= READ_LIMIT_S:
                raise
            return read()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is the only one that writes, committed at the end.

        Raises:
            LogError: The database fails, the turn did not come in `BUSY_MS`, or all of it took
                longer than `WRITE_LIMIT_S`.
        """
        with (
            self.plain_errors("written"),
            self._writers.connect() as connection,
            self.limited(connection, WRITE_LIMIT_S),
            connection.begin(),
        ):
            yield connection

    @property
    def dialect(self) -> Dialect:
        """How statements are written for this database."""
        return self._readers.dialect

    def reader(self) -> Connection:
        """A connection of the caller's own, to read with; the caller closes it."""
        return self._readers.connect()

    @contextlib.contextmanager
    def plain_errors(self, verb: str) -> Iterator[None]:
        """Tells of the database's failures in one line; `verb` is what could not be done.

        Raises:
            LogError: The database fails.
        """
        try:
            yield
        except (DataError, IntegrityError):  # of what was to be written, not of the database
            raise
        except SQLAlchemyError as error:
            raise LogError(
                f"{self.shown}: the event log cannot be {verb} ({reason(error)})"
            ) from error

    def wipe_traces(self) -> None:
        """Empties SQLite's write-ahead file, which still has what was deleted, if no one reads.

        Raises:
            LogError: The database fails, or takes longer than `WRITE_LIMIT_S`: a file that has
                grown large takes longer than what is read.
        """
        if self.kind == "sqlite":
            with (
                self.plain_errors("written"),
                self._readers.connect() as connection,
                self.limited(connection, WRITE_LIMIT_S),
            ):
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def close(self) -> None:
        """Closes every connection."""
        self._limits.close()
        self._readers.dispose()
        self._writers.dispose()


def insert_rows(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Adds rows to the log, which have the same columns, in a transaction of `writing`."""
    if connection.dialect.name == "sqlite":
        connection.execute(insert(EVENTS), rows)
    else:
        connection.execute(INSERT_MANY, {"rows": json.dumps(rows)})


def parse_address(address: str) -> URL:
    """The database that an address means.

    >>> parse_address("runs/mine/live.sqlite").database.endswith("/runs/mine/live.sqlite")
    True

    Raises:
        InputError: It is of no kind that is known, or its driver is not installed.
    """
    if "://" not in address:
        return URL.create("sqlite", database=os.path.abspath(os.path.expanduser(address)))
    try:
        url = make_url(address.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise InputError("the event log's address cannot be read; write " + ADDRESSES) from None
    if url.drivername == "sqlite" and url.database:
        return URL.create("sqlite", database=os.path.abspath(url.database))
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise InputError(f"{shown_address(url)}: no address of an event log; write {ADDRESSES}")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError(
            f"{shown_address(url)}: PostgreSQL's driver is not installed; "
            "pip install 'recsys[postgres]'"
        ) from None
    return url.set(drivername="postgresql+psycopg")


ADDRESSES = "a local path, sqlite:///PATH or postgresql://USER@HOST/NAME"


def shown_address(url: URL) -> str:
    """An address for messages: without the password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def reason(error: SQLAlchemyError) -> str:
    """The database's own words, in one line."""
    words = str(error.orig) if isinstance(error, DBAPIError) and error.orig else str(error)
    return " ".join(words.split())


def _engine(url: URL, *, busy_ms: int, kept_kib: int, connect_s: int, **settings: Any) -> Engine:
    if url.get_backend_name() != "sqlite":
        # READ COMMITTED: what is read after the turn came is what the turn before left.
        settings.setdefault("isolation_level", "READ COMMITTED")
        # No prepared statements: their plans would be those of the day when the table was small,
        # and connection poolers lose them.
        more = {"connect_timeout": connect_s, "prepare_threshold": None}
        return create_engine(url, connect_args=more, **settings)
    engine = create_engine(url, connect_args={"check_same_thread": False}, **settings)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        # Python's driver begins no transaction of its own, so that BEGIN IMMEDIATE can.
        connection.isolation_level = None
        for pragma in (f"busy_timeout={busy_ms}", f"cache_size=-{kept_kib}", *PRAGMAS):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _check_file(path: Path, *, create: bool) -> None:
    if not path.exists() and not create:
        raise InputError(f"{path}: there is no event log")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: its folder cannot be made ({error.strerror})") from None
