"""One writer a folder: a second command in a run folder is refused while the first one writes.

On a disk the operating system holds the lock (flock) and lets go of it when the process ends,
however it ends. Where there is none (an object store, a disk that knows no locks) the folder holds
a lease that its owner renews every few seconds; one that has not been renewed for a minute, by the
store's own clock, is a dead run's and is taken over. What a lease guarantees is what the store
does: where it creates a file only if there is none (S3, GCS, Azure), one of two commands that start
at once gets the folder. An owner that could not renew for a minute, and one of two that take over
a dead run's lease in the same instant, learn it at their next renewal and stop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from recsys.data.storage import exists, filesystem, join, local_path, remove
from recsys.errors import InputError

LOCK, LEASE = ".lock", ".lease"
"""The files in a folder that say who holds it."""
RENEW_S = 10.0
EXPIRE_S = 60.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Holds a folder, a path or URI, against other writers for as long as the block runs.

    Raises:
        InputError: Another process writes there, or nobody can.
        RuntimeError: The lease was lost to another process while the block ran.
    """
    with contextlib.ExitStack() as stack:
        if not _locked_by_the_system(folder, stack):
            stack.enter_context(_lease(folder))
        yield


def _locked_by_the_system(folder: str, stack: contextlib.ExitStack) -> bool:
    """Takes the lock where there are such locks; the stack gives it back."""
    local = local_path(folder)
    if local is None:
        return False
    path = os.path.join(local, LOCK)
    try:
        os.makedirs(local, exist_ok=True)
        file = _newest(path, stack)
    except BlockingIOError:
        raise _in_use(folder, _read_owner(path)) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            _unlink(path)
            return False
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); permit it or name another run folder"
        ) from None
    os.write(file, json.dumps(_owner()).encode())
    stack.callback(_unlink, path)
    return True


def _newest(path: str, stack: contextlib.ExitStack) -> int:
    """Opens and locks the file that has this name now: its last owner may just have removed it."""
    while True:
        # Not inherited by programs that are started; forked children of ours end before us.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                os.ftruncate(file, 0)
                return file


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _owner() -> dict[str, object]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    command = " ".join(["recsys", *sys.argv[1:2]])
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "command": command}


def _read_owner(path: str) -> dict[str, object]:
    """Who a lock says it belongs to; nothing where it is just being written or removed."""
    fs, inner = filesystem(path)
    try:
        owner = json.loads(fs.cat_file(inner))
    except Exception:  # noqa: BLE001 - every store's library has its own
        return {}
    return owner if isinstance(owner, dict) else {}


def _in_use(folder: str, owner: dict[str, object], remedy: str = "") -> InputError:
    who = "by another process"
    if {"host", "pid", "since", "command"} <= owner.keys():
        who = (
            f"by `{owner['command']}`, process {owner['pid']} on {owner['host']} since "
            f"{owner['since']}"
        )
    remedy = remedy or "wait for it, or name another one"
    return InputError(f"{folder}: this folder is in use {who}; {remedy}")


@contextlib.contextmanager
def _lease(folder: str) -> Iterator[None]:
    """A lock that is renewed: where no operating system can hold one."""
    lease = Lease(folder)
    lease.take()
    over = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=[over], daemon=True)
    keeper.start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost:
            raise RuntimeError(f"{folder}: {lease.lost}; stopped, so one alone writes") from None
        raise
    finally:
        over.set()
        keeper.join()
        lease.give_back()


class Lease:
    """The file that says whose a folder is, and until when."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = join(folder, LEASE)
        self._fs, self._inner = filesystem(self._path)
        self._owner = {**_owner(), "token": uuid.uuid4().hex}
        self.lost = ""
        """Why it is not ours any more."""

    def take(self) -> None:
        """Takes the folder, if nobody has it or who had it is dead.

        Raises:
            InputError: Somebody has it, or the store cannot be written.
        """
        if self._create():
            return
        owner = _read_owner(self._path)
        left_s = EXPIRE_S - self._age().total_seconds()
        if left_s > 0:
            free = f"if that one is dead, the folder is free in {left_s:.0f} s"
            raise _in_use(self._folder, owner, f"wait for it, or name another one; {free}")
        remove(self._path)
        if not self._create():
            raise _in_use(self._folder, _read_owner(self._path))

    def _create(self) -> bool:
        """Writes the file if there is none; whether it did."""
        self._fs.invalidate_cache()
        if exists(self._path):
            return False
        try:
            self._write(mode="create")
        except FileExistsError:
            return False
        except Exception as error:  # every store's library has its own
            if exists(self._path):
                return False
            said = " ".join(str(error).split())[:200]
            raise InputError(f"{self._folder}: cannot be written ({said})") from None
        return True

    def _write(self, *, mode: str) -> None:
        self._fs.pipe_file(self._inner, json.dumps(self._owner).encode(), mode=mode)

    def _age(self) -> timedelta:
        """How long ago the file was written, by the store's own clock alone."""
        probe = f"{self._inner}-{uuid.uuid4().hex}"
        try:
            self._fs.pipe_file(probe, b"now")
            age: timedelta = self._fs.modified(probe) - self._fs.modified(self._inner)
        except FileNotFoundError:  # given back meanwhile
            return timedelta.max
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(probe)
        return age

    def keep(self, over: threading.Event) -> None:
        """Renews the lease until it is over; interrupts the main thread where it is lost."""
        while not over.wait(RENEW_S):
            self.renew()
            if self.lost:
                os.kill(os.getpid(), signal.SIGINT)
                return

    def renew(self) -> None:
        """Renews the lease, unless the file is somebody else's by now."""
        try:
            self._fs.invalidate_cache()
            owner = _read_owner(self._path)
            if owner.get("token", self._owner["token"]) != self._owner["token"]:
                self.lost = "another process has taken this folder over"
                return
            self._write(mode="overwrite")
        except Exception:  # noqa: BLE001 - the next renewal may reach the store again
            return

    def give_back(self) -> None:
        """Removes the file, if it is ours."""
        if not self.lost:
            remove(self._path)
