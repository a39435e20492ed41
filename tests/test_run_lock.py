"""Two writers in one folder: the second is refused in one line, and a dead one does not block."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from recsys import run_lock
from recsys.cli import main
from recsys.data.storage import exists, join, list_files, write_text
from recsys.errors import InputError
from recsys.run_lock import LEASE, LOCK, Lease, only_writer
from tests.inputs import write_input

HOLD = """
import sys
from recsys.run_lock import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: str) -> Iterator[subprocess.Popen[str]]:
    """Holds the folder until it is killed or the block ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield holder
    finally:
        holder.communicate()


def refused(folder: str) -> str:
    with pytest.raises(InputError) as error, only_writer(folder):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_bucket')}/run [v1]"
    return str(tmp_path / "run [v1]")


def test_a_second_process_is_refused_and_told_who_the_first_is(folder: str) -> None:
    with another_process(folder) as holder:
        message = refused(folder)
        assert message.startswith(f"{folder}: this folder is in use by `recsys ")
        assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
        assert "; wait for it, or name another one" in message
    with only_writer(folder):
        refused(folder)
    assert list_files(folder, "") == []


def test_a_process_killed_outright_does_not_block_on_a_disk(tmp_path: Path) -> None:
    with another_process(str(tmp_path)) as holder:
        refused(str(tmp_path))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / LOCK).exists()
        with only_writer(str(tmp_path)):
            refused(str(tmp_path))
    assert not (tmp_path / LOCK).exists()


def test_what_an_owner_starts_does_not_hold_the_lock_after_it(tmp_path: Path) -> None:
    """As Ray's own processes outlive a driver that is killed."""
    with only_writer(str(tmp_path)):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with only_writer(str(tmp_path)):
        pass
    child.communicate(b"\n")


def test_a_lock_removed_while_one_waits_for_it_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner ends between our opening of its file and our locking of it."""
    taken, flock = [], fcntl.flock

    def lock(file: int, how: int) -> None:
        if not taken:
            os.unlink(tmp_path / LOCK)
        taken.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    with only_writer(str(tmp_path)):
        assert len(taken) == 2
        refused(str(tmp_path))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/run"):
        message = refused(str(tmp_path / name))
        assert re.search(r"cannot be written \((File exists|Not a directory)\); permit", message)
    with pytest.raises(InputError, match="cannot open this kind of address"):
        with only_writer("nope://bucket/run"):
            pass


def test_a_store_that_cannot_be_written_is_said(s3_bucket: str) -> None:
    assert "s3://no-such-bucket/run: cannot be written (" in refused("s3://no-such-bucket/run")


# --- the lease ---


@pytest.fixture
def leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder on a disk that knows no locks."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    return str(tmp_path)


def test_a_disk_without_locks_has_a_lease(leased: str) -> None:
    with only_writer(leased):
        assert re.search("if that one is dead, the folder is free in (60|5.) s", refused(leased))
    assert list_files(leased, "") == []


@pytest.fixture(params=["memory", "s3", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_bucket"))
    if request.param == "disk":
        return str(request.getfixturevalue("leased"))
    fsspec.filesystem("memory").store.clear()
    return f"memory://{tmp_path.name}"


def test_a_lease_that_is_not_renewed_is_taken_over(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Lease(store)
    dead.take()
    refused(store)
    monkeypatch.setattr(Lease, "_age", lambda _: timedelta(seconds=run_lock.EXPIRE_S))
    with only_writer(store):
        monkeypatch.undo()
        # It was not dead after all: at its next renewal it learns so, and leaves the file alone.
        dead.renew()
        assert dead.lost == "another process has taken this folder over"
        dead.give_back()
        assert exists(join(store, LEASE))
    assert list_files(store, "") == []


def test_the_age_of_a_lease_is_told_by_the_stores_clock(store: str) -> None:
    lease = Lease(store)
    lease.take()
    assert timedelta(0) <= lease._age() < timedelta(seconds=30)
    assert list_files(store, "") == [join(store, LEASE)], "the probe is gone"
    lease.give_back()
    assert lease._age() == timedelta.max, "given back meanwhile"


def test_one_of_two_at_once_gets_it(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have seen that there is no lease; the store creates one of them."""
    first, second = Lease(store), Lease(store)
    monkeypatch.setattr(run_lock, "exists", lambda _: False)
    assert first._create()
    assert not second._create()


def test_a_lease_is_renewed_until_it_is_over(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEW_S", 0)
    renewed, over = [], threading.Event()
    lease = Lease(store)
    lease.take()
    write = lease._write

    def count(*, mode: str) -> None:
        write(mode=mode)
        renewed.append(mode)
        if len(renewed) == 3:
            over.set()

    monkeypatch.setattr(lease, "_write", count)
    lease.keep(over)
    assert renewed == ["overwrite"] * 3 and not lease.lost


def test_a_store_that_is_away_for_a_moment_ends_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(store)
    lease.take()

    def away(*, mode: str) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(lease, "_write", away)
    lease.renew()
    assert not lease.lost


def test_who_loses_a_lease_stops(leased: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEW_S", 0.01)
    with pytest.raises(RuntimeError, match="has taken this folder over; stopped, so one alone wri"):
        with only_writer(leased):
            for _ in range(3000):  # a renewal that had just looked writes its own once more
                write_text('{"token": "another"}', join(leased, LEASE))
                threading.Event().wait(0.01)
    assert exists(join(leased, LEASE)), "it is the other one's"


# --- the commands ---


@pytest.mark.parametrize(
    "command", ["run", "prepare", "decode", "train", "evaluate", "publish", "tune"]
)
def test_every_command_that_writes_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, "--config", str(write_input(tmp_path))]
    if command == "tune":
        space = tmp_path / "space.yaml"
        space.write_text("train.lr: {loguniform: [0.0001, 0.01]}\n")
        arguments += ["--space", str(space)]
    with only_writer(str(tmp_path / "run")):
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"recsys: {tmp_path}/run: this folder is in use by `recsys")
    assert error.count("\n") == 1
    assert not list((tmp_path / "run").iterdir()), "nothing was written"


@pytest.mark.ray
def test_decode_into_a_folder_in_use_is_refused(
    ray_local: None, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "clips")
    with only_writer(out):
        assert main(["decode", "--videos", str(tiny_world / "videos"), "--out", out]) == 2
    assert f"{out}: this folder is in use by" in capsys.readouterr().err
