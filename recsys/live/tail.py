"""The end of the log, read again and again: what a server does before every batch of requests.

One connection is held and one statement prepared, since what the others cost is more than the
reading itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select
from sqlalchemy.exc import DBAPIError

from recsys.live.database import READ_LIMIT_S, Database, LogError


class Tail:
    """Reads rows after a place in the log; one thread at a time.

    Args:
        database: Of the log.
        statement: With the parameters `after`, `up_to` and `limit`.
    """

    def __init__(self, database: Database, statement: Select[Any]) -> None:
        self._database = database
        compiled = statement.compile(dialect=database.dialect)
        self._text, self._names = str(compiled), compiled.positiontup
        self._others = dict(compiled.params)
        self._held: Connection | None = None

    def rows(self, after_seq: int, up_to_seq: int, limit: int) -> Sequence[Row[Any]]:
        """The rows of `EventLog.rows_after`.

        Raises:
            LogError: The database fails, or does not answer in `READ_LIMIT_S`.
        """
        given = {**self._others, "after": after_seq, "up_to": up_to_seq, "limit": limit}
        names = self._names
        parameters = given if names is None else tuple(given[name] for name in names)
        with self._database.plain_errors("read"):
            try:
                # The server was started anew, perhaps; the next connection will tell.
                return self._database.twice(lambda: self._read(parameters), again=self._close_for)
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

    def _read(self, parameters: dict[str, object] | tuple[object, ...]) -> Sequence[Row[Any]]:
        if self._held is None:
            self._held = self._database.reader()
        with self._database.limited(self._held, READ_LIMIT_S):
            return self._held.exec_driver_sql(self._text, parameters).fetchall()
