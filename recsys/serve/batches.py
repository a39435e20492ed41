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
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Result = TypeVar("Result")

MOST_AT_ONCE = 64
IDLE_S, WAIT_S = 0.1, 1.0
"""After so long without a request the thread does what it does when idle."""
TURNS, TURNS_S = 4, 0.05
"""Turns of the event loop that the thread lets by after a batch of several, and the longest that it
waits for one loop: in them the answers go out, and what their callers ask next comes in and is
answered together. A thread that began with the first of it would have small batches, and the loop
would wait for the interpreter meanwhile. Of 32 callers two turns bring 25 together, four all."""


@dataclass(frozen=True, slots=True)
class _Request(Generic[Asked, Answered]):
    asked: Asked
    future: asyncio.Future[Answered]


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
        self._waiting: queue.SimpleQueue[_Request[Asked, Answered] | Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        """Requests and calls; None ends the thread."""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    async def ask(self, asked: Asked) -> Answered:
        """The answer to one request.

        Raises:
            Exception: What the answer is, if it is one.
        """
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Request(asked, future))
        return await future

    async def call(self, make: Callable[[], Result]) -> Result:
        """What a call gives that is made in the thread, between two batches."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def run() -> None:
            if not future.cancelled():
                _tell([(future, _result(make))])

        self._waiting.put(run)
        return await future

    @property
    def is_asked(self) -> bool:
        """Whether anything waits for the thread."""
        return not self._waiting.empty()

    def wait_through(self) -> None:
        """Waits, in another thread, until all is answered that had been asked for before."""
        through = threading.Event()
        self._waiting.put(through.set)
        while not through.wait(WAIT_S) and self._thread.is_alive():
            pass

    def close(self) -> None:
        """Answers what waits and ends the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            batch: list[_Request[Asked, Answered] | Callable[[], None]] = []
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
            requests = []
            for one in batch:
                if not isinstance(one, _Request):
                    one()
                elif not one.future.cancelled():
                    # Whoever has gone, or was answered otherwise since, holds up nobody.
                    requests.append(one)
            if requests:
                answers = self._answers([request.asked for request in requests])
                futures = [request.future for request in requests]
                turns = TURNS if len(requests) > 1 else 0
                for through in _tell(list(zip(futures, answers, strict=True)), turns):
                    through.wait(TURNS_S)

    def _answers(self, asked: Sequence[Asked]) -> Sequence[Answered | Exception]:
        try:
            return self._answer(asked)
        except Exception as error:
            return [error] * len(asked)


def _result(make: Callable[[], Result]) -> Result | Exception:
    """What a call gives or raises."""
    try:
        return make()
    except Exception as error:
        return error


def _tell(
    answers: Sequence[tuple[asyncio.Future[Result], Result | Exception]], turns: int = 0
) -> list[threading.Event]:
    """Hands answers to those who wait, one wake-up for each of their loops.

    Returns:
        Of each loop what is set when so many turns of it have gone by since; nothing for 0.
    """
    gone_by = []
    by_loop: dict[
        asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Result | Exception]]
    ] = {}
    for future, answer in answers:
        by_loop.setdefault(future.get_loop(), []).append((future, answer))
    for loop, pairs in by_loop.items():
        through = threading.Event()
        try:
            loop.call_soon_threadsafe(_set, pairs, turns, through)
        except RuntimeError:  # it was closed, perhaps this very moment: nobody waits there any more
            if not loop.is_closed():
                raise
        else:
            gone_by.append(through)
    return gone_by if turns else []


def _set(
    pairs: Sequence[tuple[asyncio.Future[Result], Result | Exception]],
    turns: int,
    through: threading.Event,
) -> None:
    for future, answer in pairs:
        if future.done():  # its caller has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
    if turns:
        _take_turns(turns, through)


def _take_turns(left: int, through: threading.Event) -> None:
    if left:
        asyncio.get_running_loop().call_soon(_take_turns, left - 1, through)
    else:
        through.set()
