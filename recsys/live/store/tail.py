"""The end of the log, read again and again: what a server does before every batch of requests.

One connection is held and the statements are prepared, since what the others cost is more than the
reading itself; and mostly nothing is new, so that first only a number is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Row, Select, literal_column
from sqlalchemy.exc import DBAPIError

from recsys.live.store.database import Database, LogError


class Tail:
    """Reads rows after a place in the log; one thread at a time.

    Args:
        database: Of the log.
        statement: With the parameters `after`, `up_to` and `limit`.
    """

    def __init__(self, database: Database, statement: Select[Any]) -> None:
        self._database = database
        one: Select[Any] = statement.with_only_columns(
            literal_column("1"), maintain_column_froms=True
        )
        self._any = _Prepared(one.order_by(None).limit(1), database.dialect)
        self._all = _Prepared(statement, database.dialect)
        self._held: Connection | None = None

    def rows(self, after_seq: int, up_to_seq: int, limit: int) -> Sequence[Row[Any]]:
        """The rows of `EventLog.rows_after`.

        Raises:
            LogError: The database fails, or does not answer in its `read_limit_s`.
        """
        given = {"after": after_seq, "up_to": up_to_seq, "limit": limit}
        with self._database.plain_errors("read"):
            try:
                # The server was started anew, perhaps; the next connection will tell.
                return self._database.twice(lambda: self._read(given), again=self._close_for)
            except LogError:
                self.close()
                raise

    def _close_for(self, _: DBAPIError) -> bool:
        self.close()
        return True

    def close(self) -> None:
        """Gives the connection back."""
        if self._held is not None:
            self._held.invalidate()
            self._held.close()
            self._held = None

    def _read(self, given: Mapping[str, int]) -> Sequence[Row[Any]]:
        if self._held is None:
            self._held = self._database.reader()
        with self._database.limited(self._held, self._database.read_limit_s):
            return self._all.rows(self._held, given) if self._any.rows(self._held, given) else []


class _Prepared:
    """A statement as the driver takes it."""

    def __init__(self, statement: Select[Any], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self._text, self._names = str(compiled), compiled.positiontup
        self._own = dict(compiled.params)

    def rows(self, connection: Connection, given: Mapping[str, int]) -> Sequence[Row[Any]]:
        """What it finds with parameters."""
        values = {name: given.get(name, value) for name, value in self._own.items()}
        names = self._names
        parameters = values if names is None else tuple(values[name] for name in names)
        return connection.exec_driver_sql(self._text, parameters).fetchall()
