"""A database that hangs holds nobody longer than the limit says."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from recsys.errors import InputError
from recsys.live.log.event import Event
from recsys.live.log.events import LARGEST_SEQ, EventLog
from recsys.live.log.explored import ExploredVideos
from recsys.live.store import database
from recsys.live.store.database import LogError
from recsys.live.store.tables import METADATA
from recsys.live.store.time_limit import TimeLimits
from recsys.live.versions.watch import Watch
from recsys.live.videos.encoding_queue import EncodingQueue
from recsys.live.videos.live_videos import LiveVideo, LiveVideos, StoredFile, VideoFacts
from tests.benchmarks._postgres import make_database
from tests.nodes import wait_for

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test has time for."""
    monkeypatch.setattr(database, "WRITE_LIMIT_S", 0.5)
    for name in ("CONNECT_S", "WRITE_CONNECT_S"):
        monkeypatch.setattr(database, name, 2)  # the least that the driver takes
    monkeypatch.setattr(database, "TimeLimits", lambda: TimeLimits(tick_s=0.01, grace_s=1.0))


def test_what_takes_too_long_is_ended(log: EventLog) -> None:
    log.database.read_limit_s = 0.5
    for event_id in ("e1", "e2"):  # the connection, or another one, is of use afterwards
        with pytest.raises(LogError, match=r"the event log did not answer in 0\.5 s"):
            log.database.rows(text(ENDLESS[log.database.kind]))
        event = Event("u1", video_id="v1", event_id=event_id)
        assert log.append([event]).statuses == ["accepted"]
    assert log.database.rows(text("SELECT 1"))[0][0] == 1


def test_what_is_quick_or_has_no_limit_is_not_touched(log: EventLog) -> None:
    with log.database.reader() as connection, log.database.limited(connection, 60):
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert not log.database._limits._running


def test_a_writer_that_hangs_is_ended_and_the_next_one_has_its_turn(log: EventLog) -> None:
    with pytest.raises(LogError, match="did not answer"), log.database.writing() as connection:
        connection.execute(text(ENDLESS[log.database.kind]))
    assert log.append([Event("u1", video_id="v1")]).count("accepted") == 1


@contextlib.contextmanager
def locked(address: str) -> Iterator[None]:
    """Somebody holds the tables."""
    import psycopg

    with psycopg.connect(address) as connection:
        connection.execute(f"LOCK TABLE {', '.join(METADATA.tables)} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_a_table_that_somebody_holds_is_waited_for_no_longer_than_the_limit(postgres: str) -> None:
    address = make_database(postgres, "locked")
    with EventLog(address) as log, EventLog(address) as other:
        log.append([Event("u1", video_id="v1")])
        log.database.read_limit_s = 0.5
        reader = log.tail()
        assert len(reader.rows(0, LARGEST_SEQ, 10)) == 1
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with locked(address):
            with pytest.raises(LogError, match="did not answer in 0.5 s"):
                reader.rows(0, LARGEST_SEQ, 10)
            wait_for(lambda: other.database.rows(waiting)[0][0] == 0, "the server to wait no more")
        assert len(reader.rows(0, LARGEST_SEQ, 10)) == 1
        reader.close()


def test_whatever_is_read_is_waited_for_no_longer_than_the_limit(postgres: str) -> None:
    address = make_database(postgres, "all_locked")
    with EventLog(address) as log, ThreadPoolExecutor(32) as threads, locked(address):
        log.database.read_limit_s = 0.5
        asked = [threads.submit(read) for read in all_reads(log)]
        asked.append(threads.submit(EventLog, address, create=False, read_limit_s=0.5))
        for one in asked:
            with pytest.raises((LogError, InputError), match="did not answer in 0.5 s"):
                one.result(timeout=30)


def all_reads(log: EventLog) -> list[Callable[[], object]]:
    """Whatever reads of the database; each with what it needs."""
    videos, queue = LiveVideos(log.database), EncodingQueue(log.database)
    video = LiveVideo("v", 1, "stored", VideoFacts(), StoredFile("/v", "0", 1), None)
    return [
        log.counts,
        log.forgotten_marks,
        log.latest_seq,
        log.user_ids,
        lambda: list(log.entries(0, 9)),
        lambda: log.follow(0),
        lambda: log.of_user("u1"),
        lambda: log.since(["u1"], 1),
        lambda: log.tail().rows(0, LARGEST_SEQ, 10),
        lambda: ExploredVideos(log.database).propensities(["i1"]),
        Watch(log.database, "/none").decision,
        videos.latest_seq,
        videos.page,
        lambda: videos.get("v"),
        lambda: videos.is_needed("/v"),
        lambda: videos.newest(10),
        lambda: videos.tail("1").changed(0, 10),
        queue.claim,
        queue.counts,
        queue.served,
        lambda: queue.contents("1"),
        lambda: queue.faults("v"),
        lambda: queue.missing("1"),
        lambda: queue.same_file(video),
    ]


class Line:
    """A way to a server on which everything stops when it is cut: nothing comes, nothing ends."""

    def __init__(self, port: int) -> None:
        self._target, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.flows = threading.Event()
        self.flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError), one, other:
            while data := one.recv(65536):
                self.flows.wait()
                other.sendall(data)

    def close(self) -> None:
        self.flows.set()
        self._listener.close()


@pytest.fixture
def through(postgres: str) -> Iterator[Callable[[str], tuple[str, Line]]]:
    """The address of a new database by a line of its own."""
    lines: list[Line] = []

    def make(name: str) -> tuple[str, Line]:
        address = make_database(postgres, name)
        port = postgres.rpartition(":")[2]
        lines.append(Line(int(port)))
        return address.replace(f":{port}/", f":{lines[-1].port}/"), lines[-1]

    yield make
    for line in lines:
        line.close()


def test_a_server_that_falls_silent_is_hung_up_on(
    through: Callable[[str], tuple[str, Line]],
) -> None:
    address, line = through("silent")
    with EventLog(address) as log:
        log.database.read_limit_s = 0.5
        reader = log.tail()
        log.append([Event("u1", video_id="v1")])
        assert len(reader.rows(0, LARGEST_SEQ, 10)) == 1
        line.flows.clear()
        with pytest.raises(LogError, match="did not answer in 0.5 s"):
            reader.rows(0, LARGEST_SEQ, 10)
        with pytest.raises(LogError, match="the event log cannot be written"):
            log.append([Event("u1", video_id="v2")])
        line.flows.set()
        assert len(reader.rows(0, LARGEST_SEQ, 10)) == 1
        assert log.append([Event("u1", video_id="v2")]).count("accepted") == 1
        reader.close()


def test_a_server_that_takes_connections_and_never_answers_is_no_log(
    postgres_binaries: object,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(InputError, match=r"cannot be used as an event log \(.*timeout"):
            EventLog(f"postgresql://nobody@127.0.0.1:{port}/live")


def test_a_file_that_is_locked_as_a_whole_is_waited_for_a_second(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setattr(database, "READ_BUSY_MS", 20)
    path = f"{tmp_path}/live.sqlite"
    EventLog(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="locked"):
            EventLog(path)
