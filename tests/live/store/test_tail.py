"""The quick reader gives what the log gives, also after the database was away."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event, text

from recsys.live.log.event import Event
from recsys.live.log.events import LARGEST_SEQ, EventLog
from recsys.live.store.database import LogError


def test_rows_are_those_of_the_log(log: EventLog, open_log: Callable[[], EventLog]) -> None:
    tail = log.tail()
    assert tail.rows(0, LARGEST_SEQ, 10) == []
    other = open_log()
    for number in range(5):
        other.append([Event("u1", video_id=f"v{number}", watched=1.5, labels={"like": True})])
        assert list(tail.rows(0, LARGEST_SEQ, 10)) == list(log.rows_after(0, 10))
    assert list(tail.rows(2, 4, 10)) == list(log.rows_after(2, 10, up_to_seq=4))
    assert list(tail.rows(1, LARGEST_SEQ, 2)) == list(log.rows_after(1, 2))
    tail.close()


def test_a_database_that_fails_is_a_log_error_and_comes_back(log: EventLog) -> None:
    tail = log.tail()
    log.append([Event("u1", video_id="v1")])
    with log.database.writing() as connection:
        connection.execute(text("ALTER TABLE recsys_events RENAME TO gone"))
    with pytest.raises(LogError, match="the event log cannot be read"):
        tail.rows(0, LARGEST_SEQ, 10)
    with log.database.writing() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO recsys_events"))
    assert len(tail.rows(0, LARGEST_SEQ, 10)) == 1
    tail.close()


def test_nothing_but_a_number_is_read_where_nothing_is_new(log: EventLog) -> None:
    """A row of the log is wide, and a server asks before every batch of requests."""
    read: list[str] = []

    def note(*given: object) -> None:
        read.append(str(given[2]))

    log.append([Event("u1", video_id="v1")])
    tail = log.tail()
    assert len(tail.rows(0, LARGEST_SEQ, 10)) == 1
    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert tail.rows(1, LARGEST_SEQ, 10) == []
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    (statement,) = (one for one in read if "recsys_events" in one)
    assert statement.split("FROM")[0].split() == ["SELECT", "1"]
    tail.close()
