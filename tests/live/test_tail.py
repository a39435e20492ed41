"""The quick reader gives what the log gives, also after the database was away."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from recsys.live.database import LogError
from recsys.live.event import Event
from recsys.live.events import LARGEST_SEQ, EventLog


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
