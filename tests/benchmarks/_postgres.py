"""A PostgreSQL server of one's own: on a free loopback port, in a folder that is removed again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SUPERUSER = "recsys"


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: of the newest version under Debian's folder."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
    )
    if folders:
        return folders[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class PostgresServer:
    """A server on a free loopback port; its data folder outlives its processes.

    PostgreSQL refuses to run as root, so root hands it to an unprivileged user.

    Args:
        binaries: The folder of `find_binaries`.
        folder: An empty one, for the data and the server's log.
        fsync: Whether commits wait for the disk.
    """

    def __init__(self, binaries: Path, folder: Path, *, fsync: bool) -> None:
        self._binaries, self._folder = binaries, folder
        self._user = _unprivileged() if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        port = free_port()
        self.address = f"postgresql://{SUPERUSER}@127.0.0.1:{port}"
        """Without a database: `postgresql://USER@HOST:PORT`."""
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "on" if fsync else "off",
        }
        auth = ["-U", SUPERUSER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", *auth],
            check=True,
            user=self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Returns when it answers; after `kill` it has repaired its data by then."""
        flags = [
            text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")
        ]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *flags],
                user=self._user,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        _wait_for(self.address, self._process, self._folder / "log")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ends it in order: it drops its connections and writes what it has."""
        self._process.send_signal(number)
        self._process.wait(30)

    def kill(self) -> None:
        """Kills all its processes with SIGKILL, as the kernel would for want of memory."""
        main = self._process.pid
        helpers = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        self._process.kill()
        self._process.wait(30)
        for pid in helpers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        # It refuses to start while one of them still has its memory.
        while any(_runs(pid) for pid in helpers):
            time.sleep(0.01)


@contextlib.contextmanager
def postgres_server(binaries: Path, *, fsync: bool) -> Iterator[PostgresServer]:
    """Runs a server in a folder that is removed again."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    try:
        server = PostgresServer(binaries, folder, fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # at once; nothing of it is kept
    finally:
        shutil.rmtree(folder)


def make_database(address: str, name: str) -> str:
    """Makes an empty database and gives its address."""
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    return f"{address}/{name}"


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    for _ in range(300):
        try:
            psycopg.connect(f"{address}/postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.1)
    raise RuntimeError(log.read_text())
