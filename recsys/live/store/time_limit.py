"""A limit of time on what a database is asked, whatever the database does.

Who waits for a database waits in the driver, which knows no limit: not for a lock that somebody
holds, and not for a server that takes connections and never answers. So another thread looks at
what is running. What takes too long it asks the database to stop, and a second later it hangs up.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

TICK_S = 0.2
GRACE_S = 1.0
"""From asking the database to stop until the connection is ended."""


@dataclass(slots=True, eq=False)
class Running:
    """Something that a database is asked."""

    driver: Any
    """The driver's own connection."""
    due_s: float
    is_late: bool = False
    """Whether the database was asked to stop."""


class TimeLimits:
    """Watches what databases are asked; any thread may ask. Its own thread begins with the first.

    Args:
        tick_s: How often it looks.
        grace_s: Seconds from asking a database to stop until its connection is ended.
    """

    def __init__(self, *, tick_s: float = TICK_S, grace_s: float = GRACE_S) -> None:
        self._tick_s, self._grace_s = tick_s, grace_s
        self._lock = threading.Lock()
        self._running: set[Running] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def within(self, connection: Connection, seconds: float) -> Iterator[Running]:
        """Limits what is asked through a connection meanwhile; the driver raises when it is over.

        Args:
            connection: An open one.
            seconds: After which the database is asked to stop.
        """
        running = Running(connection.connection.driver_connection, time.monotonic() + seconds)
        with self._lock:
            self._running.add(running)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="time-limit", daemon=True)
                self._thread.start()
        try:
            yield running
        finally:
            # Not while it is being ended: the connection's file may be another's by then.
            with self._lock:
                self._running.discard(running)

    def close(self) -> None:
        """Watches nothing any more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._tick_s):
            with self._lock:
                for running in self._running:
                    self._end(running, time.monotonic() - running.due_s)

    def _end(self, running: Running, late_s: float) -> None:
        if late_s >= 0 and not running.is_late:
            running.is_late = True
            # Asking may hang as the database does.
            threading.Thread(target=_ask_to_stop, args=(running.driver,), daemon=True).start()
        elif late_s >= self._grace_s and hasattr(running.driver, "pgconn"):
            _hang_up(running.driver)


def _ask_to_stop(driver: Any) -> None:
    # If it cannot be asked, its connection is ended a second later.
    with contextlib.suppress(Exception):
        if hasattr(driver, "interrupt"):
            driver.interrupt()
        else:
            driver.cancel_safe(timeout=GRACE_S)


def _hang_up(driver: Any) -> None:
    """Ends a connection to PostgreSQL under the thread that waits at it."""
    with contextlib.suppress(OSError, AttributeError):
        other = socket.socket(fileno=os.dup(driver.pgconn.socket))
        with other:
            other.shutdown(socket.SHUT_RDWR)
