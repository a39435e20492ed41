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
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
    )
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextlib.contextmanager
def postgres_server(binaries: Path, *, fsync: bool) -> Iterator[str]:
    """Runs a server and gives the address of it, without a database: `postgresql://USER@HOST:PORT`.

    PostgreSQL refuses to run as root, so root hands it to an unprivileged user.
    """
    user = _unprivileged() if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    data = folder / "data"
    if user is not None:
        shutil.chown(folder, user)
    auth = ["-U", SUPERUSER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(
        [binaries / "initdb", "-D", data, *auth],
        check=True,
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
    port = _free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "on" if fsync else "off",
    }
    flags = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, *flags], user=user, cwd="/", stdout=log, stderr=log
        )
    try:
        address = f"postgresql://{SUPERUSER}@127.0.0.1:{port}"
        _wait_for(address, server, folder / "log")
        yield address
    finally:
        server.send_signal(signal.SIGQUIT)  # at once; nothing of it is kept
        server.wait(30)
        shutil.rmtree(folder)


def make_database(address: str, name: str) -> str:
    """Makes an empty database and gives its address."""
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    return f"{address}/{name}"


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
