"""Which shown videos were drawn to be tried out, and how likely each was: the server's own record.

Who learns from what was explored weighs each showing by its propensity, the probability that the
list held the video (D. G. Horvitz and D. J. Thompson, 1952). The server alone knows it, at the
moment of the answer, so it is no field of an event: it stands here under the impression that the
exposure names, and is read beside the exposure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from recsys.live.log.writing import chunks, forgotten_times
from recsys.live.store.database import Database, among
from recsys.live.store.tables import EXPLORED

Shown = tuple[str | None, str | None]
"""An impression and a video of it."""

_C = EXPLORED.c


@dataclass(frozen=True)
class Explored:
    """One video of one list that was drawn to be tried out."""

    impression_id: str
    video_id: str
    user_id: str
    time_ms: int
    """When the list was made (Unix ms)."""
    propensity: float
    """From above 0 to 1: how likely the video was to be drawn into the list."""


class ExploredVideos:
    """The record; any thread may call it.

    Args:
        database: Of the event log.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, explored: Sequence[Explored]) -> int:
        """Keeps what is not there yet and not of forgotten users; gives its number.

        Raises:
            LogError: The database fails; the same call may be made again.
        """
        if not explored:
            return 0
        with self._database.writing() as connection:
            there = self._of(connection, {one.impression_id for one in explored})
            forgotten = forgotten_times(connection, {one.user_id for one in explored})
            rows = {
                (one.impression_id, one.video_id): asdict(one)
                for one in explored
                if (one.impression_id, one.video_id) not in there
                and one.time_ms > forgotten.get(one.user_id, -1)
            }
            if rows:
                connection.execute(insert(EXPLORED), list(rows.values()))
            return len(rows)

    def propensities(self, impression_ids: Collection[str | None]) -> Mapping[Shown, float]:
        """How likely the explored videos of some impressions were; others are not in it.

        Raises:
            LogError: The database fails.
        """
        propensities: dict[Shown, float] = {}
        statement = _select(self._database.kind)
        for chunk in chunks({one for one in impression_ids if one is not None}):
            for row in self._database.rows(statement, {"impression_ids": chunk}):
                propensities[row.impression_id, row.video_id] = row.propensity
        return propensities

    def _of(self, connection: Connection, impression_ids: Collection[str]) -> set[Shown]:
        statement = _select(connection.dialect.name)
        return {
            (row.impression_id, row.video_id)
            for chunk in chunks(impression_ids)
            for row in connection.execute(statement, {"impression_ids": chunk})
        }


def _select(kind: str) -> Select[Any]:
    columns = (_C.impression_id, _C.video_id, _C.propensity)
    return select(*columns).where(among(_C.impression_id, "impression_ids", kind))
