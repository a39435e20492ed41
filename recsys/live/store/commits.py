"""Grouped commits: what many threads hand in within a few milliseconds is committed together.

A commit waits for the disk, and the disk takes a thousand rows in the time of one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import Future
from typing import Generic, TypeVar

Call = TypeVar("Call", bound=Sized)
Result = TypeVar("Result")

MOST_ROWS = 5000
"""Rows after which no more calls join a commit, so that a transaction stays short."""


class GroupCommit(Generic[Call, Result]):
    """One thread that writes for all threads of a process.

    While one group is being committed the next gathers, so that a lone caller waits for nobody and
    many callers share a commit.

    Args:
        write: Writes calls in one transaction and gives each one's result. It may be asked again
            for the same calls after it raised, so it must do nothing twice. A call's length is its
            number of rows.
        fatal: What `write` raises where the database and not a call is at fault.
    """

    def __init__(
        self, write: Callable[[Sequence[Call]], Sequence[Result]], *, fatal: type[Exception]
    ) -> None:
        self._write, self._fatal = write, fatal
        self._waiting: queue.SimpleQueue[tuple[Call, Future[Result]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> Future[Result]:
        """Hands a call in; the future has its result, or what `write` raised for it alone.

        A call that is cancelled before its commit began is not written.

        Raises:
            RuntimeError: The log is closed.
        """
        done: Future[Result] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the event log is closed")
            self._waiting.put((call, done))
        return done

    def close(self) -> None:
        """Commits what waits and ends the thread."""
        with self._closing:
            if not self._closed:
                self._waiting.put(None)
            self._closed = True
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            entry, group, rows = self._waiting.get(), [], 0
            while entry is not None:
                call, done = entry
                if done.set_running_or_notify_cancel():  # its caller still waits
                    group.append(entry)
                    rows += len(call)
                if rows >= MOST_ROWS or self._waiting.empty():
                    break
                entry = self._waiting.get()
            running = entry is not None
            self._commit(group)

    def _commit(self, group: Sequence[tuple[Call, Future[Result]]]) -> None:
        try:
            results = self._write([call for call, _ in group]) if group else []
        except Exception:
            self._commit_each(group)
            return
        for (_, done), result in zip(group, results, strict=True):
            done.set_result(result)

    def _commit_each(self, group: Sequence[tuple[Call, Future[Result]]]) -> None:
        """Each call of a failed group alone, so that one's fault is its own.

        Where the database is at fault, the others need not wait for it one after the other.
        """
        failed: Exception | None = None
        for call, done in group:
            try:
                if failed is not None:
                    raise failed
                done.set_result(self._write([call])[0])
            except Exception as error:
                done.set_exception(error)
                failed = error if isinstance(error, self._fatal) else None
