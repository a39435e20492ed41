"""Micro-batches: one thread runs the model, and what waits meanwhile is answered together.

Many threads through PyTorch and the interpreter's lock cost more than they bring; one pass of the
model for thirty requests costs little more than one for one. A lone request waits for nobody.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Result = TypeVar("Result")

MOST_AT_ONCE = 64
IDLE_S, WAIT_S = 0.1, 1.0
"""After so long without a request the thread does what it does when idle."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    future: asyncio.Future[Any] | None
    """Nobody waits for it where there is none."""
    asked: Any
    """A request, or a call to make between two batches."""


class MicroBatches(Generic[Asked, Answered]):
    """Hands requests to one thread, as many together as wait.

    Args:
        answer: Answers requests in one go; an exception among the answers is raised to its caller,
            one that it raises is raised to all of them.
        idle: Called when nobody has asked for a while.
        most: Requests that are answered together.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answered | Exception]],
        *,
        idle: Callable[[], None] = lambda: None,
        most: int = MOST_AT_ONCE,
    ) -> None:
        self._answer, self._idle, self._most = answer, idle, most
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    async def ask(self, asked: Asked) -> Answered:
        """The answer to one request.

        Raises:
            Exception: What the answer is, if it is one.
        """
        return await self._hand_in(asked)  # type: ignore[no-any-return]

    async def call(self, make: Callable[[], Result]) -> Result:
        """What a call gives that is made in the thread, between two batches."""
        return await self._hand_in(_Call(make))  # type: ignore[no-any-return]

    def wait_through(self) -> None:
        """Waits, in another thread, until all is answered that had been asked for before."""
        through = threading.Event()
        self._waiting.put(_Waiting(None, _Call(through.set)))
        while not through.wait(WAIT_S) and self._thread.is_alive():
            pass

    def close(self) -> None:
        """Answers what waits and ends the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _hand_in(self, asked: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._waiting.put(_Waiting(future, asked))
        return future

    def _run(self) -> None:
        running = True
        while running:
            batch: list[_Waiting] = []
            try:
                entry = self._waiting.get(timeout=IDLE_S)
            except queue.Empty:
                self._idle()
                continue
            while entry is not None:
                batch.append(entry)
                if len(batch) == self._most or self._waiting.empty():
                    break
                entry = self._waiting.get()
            running = entry is not None
            # Whoever has gone, or was answered otherwise since, holds up nobody.
            batch = [one for one in batch if one.future is None or not one.future.cancelled()]
            calls = [one for one in batch if isinstance(one.asked, _Call)]
            asks = [one for one in batch if not isinstance(one.asked, _Call)]
            for one in calls:
                _tell([one], [one.asked.result()])
            if asks:
                _tell(asks, self._answers([one.asked for one in asks]))

    def _answers(self, asked: list[Any]) -> Sequence[Any]:
        try:
            return self._answer(asked)
        except Exception as error:
            return [error] * len(asked)


class _Call:
    """A call that is made in the thread."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def result(self) -> Any:
        """What it gives or raises."""
        try:
            return self._make()
        except Exception as error:
            return error


def _tell(waiting: Sequence[_Waiting], answers: Sequence[Any]) -> None:
    """Hands answers to those who wait, one wake-up for each of their loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for one, answer in zip(waiting, answers, strict=True):
        if one.future is not None:
            by_loop.setdefault(one.future.get_loop(), []).append((one.future, answer))
    for loop, pairs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set, pairs)


def _set(pairs: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in pairs:
        if future.done():  # its caller has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
