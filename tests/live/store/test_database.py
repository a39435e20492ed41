"""Addresses, what is no log, and how the databases are set up."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.store.database import Database, parse_address, shown_address
from tests.benchmarks._postgres import make_database
from tests.live.conftest import NOW

ADDRESSES = "write a local path, sqlite:///PATH or postgresql://USER@HOST/NAME"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("mysql://host/name", f"mysql://host/name: no address of an event log; {ADDRESSES}"),
        ("s3://bucket/live.sqlite", "no address of an event log"),
        ("sqlite://", "no address of an event log"),
        ("://user:secret@host", "address cannot be read; "),
        ("postgresql://user:secret@127.0.0.1:1/x", "user:***@127.0.0.1:1/x: cannot be used as an "),
    ],
)
def test_wrong_addresses_are_one_line_without_the_password(address: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        Database(address)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_name_is_a_name(tmp_path: Path) -> None:
    for name in ("run #1", "a?mode=ro", "50%25", "data [v1]", "é"):
        path = tmp_path / name / "live.sqlite"
        with EventLog(str(path)) as log:
            log.append([Event("u", VIEW, "v")])
        assert path.is_file()
    with EventLog(f"sqlite:///{tmp_path}/url.sqlite"):
        assert (tmp_path / "url.sqlite").is_file()


def test_addresses() -> None:
    assert parse_address("postgres://u@h/n").drivername == "postgresql+psycopg"
    assert shown_address(parse_address("postgresql://u:p@h/n")) == "postgresql://u:***@h/n"
    assert parse_address("~/x.sqlite").database == str(Path.home() / "x.sqlite")


def test_what_is_no_log_is_refused_and_not_touched(tmp_path: Path) -> None:
    text, own = tmp_path / "notes.txt", tmp_path / "own.sqlite"
    text.write_text("not a database, but long enough to be read as the head of one" * 40)
    with sqlite3.connect(own) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for path, message in (
        (text, "cannot be used as an event log (file is not a database)"),
        (tmp_path / "none.sqlite", "there is no event log"),
        (own, "there is no event log in it"),
        (tmp_path, "cannot be used as an event log (unable to open database file)"),
        (text / "live.sqlite", "its folder cannot be made (File exists)"),
    ):
        with pytest.raises(InputError) as refused:
            Database(str(path), create=path.suffix == ".sqlite" and path.parent == text)
        assert message in str(refused.value) and str(path) in str(refused.value)
    assert not (tmp_path / "none.sqlite").exists()


def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    """What is acknowledged is on disk, and what is deleted is overwritten."""
    database = Database(str(tmp_path / "live.sqlite"))
    with database.writing() as connection:
        for name, value in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value
    database.close()


def test_nothing_of_a_forgotten_user_is_left_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlite"
    with EventLog(str(path)) as log:
        log.append([Event("someone-special", VIEW, f"v{n}", time_ms=NOW - n) for n in range(200)])
        log.forget("someone-special")
        files = list(tmp_path.iterdir())
        assert path in files
        assert not [f for f in files if b"someone-special" in f.read_bytes()]


def test_a_postgresql_that_cannot_keep_all_text_is_refused(postgres: str) -> None:
    import psycopg

    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(InputError, match="keeps its text in LATIN1; make a database with .* UTF8"):
        Database(f"{postgres}/latin")


@pytest.mark.parametrize(("setting", "used"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_waits_for_the_disk_whatever_the_server_does_otherwise(
    postgres: str, setting: str, used: str
) -> None:
    import psycopg

    address = make_database(postgres, f"commit_{setting}")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE commit_{setting} SET synchronous_commit = {setting}")
    database = Database(address)
    with database.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == used
    database.close()


def test_a_postgresql_that_was_started_anew_is_read_and_written_again(postgres: str) -> None:
    import psycopg

    with EventLog(make_database(postgres, "anew")) as log:
        for number in range(2):
            log.append([Event("u", VIEW, f"v{number}", time_ms=NOW)])
            assert len(log.of_user("u")) == number + 1
            with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'anew'"
                )
        assert len(log.of_user("u")) == 2


def _append(address: str, name: str) -> int:
    with EventLog(address) as log:
        events = [Event(name, VIEW, f"v{n}", time_ms=NOW - n) for n in range(50)]
        return sum(log.append([event]).count("accepted") for event in events + events)


def test_processes_that_open_a_new_log_at_once_all_write_into_it(address: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        accepted = pool.starmap(_append, [(address, f"u{n}") for n in range(3)])
    assert accepted == [50, 50, 50]
    with EventLog(address) as log:
        assert log.counts().events == 150
