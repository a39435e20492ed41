"""What waits is answered together, each with its own answer or error."""

import asyncio
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys.bundle.contents import Bundle
from recsys.config.run import ServeConfig
from recsys.live.log.events import EventLog
from recsys.serve.asks import Answer, Ask, NoAnswer
from recsys.serve.batches import MicroBatches
from recsys.serve.service import Service
from tests.bundles import TinyRun


class Model:
    """Doubles numbers; remembers its batches; can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self.working = threading.Event()

    def answer(self, asked: Sequence[int]) -> list[int | Exception]:
        self.working.set()
        assert self.go_on.wait(20)
        self.batches.append(list(asked))
        if 13 in asked:
            raise RuntimeError("all of them")
        return [ValueError(str(number)) if number < 0 else 2 * number for number in asked]


def test_what_waits_is_answered_together() -> None:
    model = Model()
    batches: MicroBatches[int, int] = MicroBatches(model.answer, most=4)

    async def ask() -> list[object]:
        first = asyncio.ensure_future(batches.ask(1))
        await asyncio.to_thread(model.working.wait, 20)
        rest = [asyncio.ensure_future(batches.ask(n)) for n in (2, -3, 4, 5, 6)]
        await asyncio.sleep(0)
        model.go_on.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    answers = asyncio.run(ask())
    batches.close()
    assert model.batches == [[1], [2, -3, 4, 5], [6]]
    assert [repr(one) for one in answers] == ["2", "4", "ValueError('-3')", "8", "10", "12"]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """A thread that may run does so at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_threads")
def test_what_those_ask_next_who_were_answered_is_answered_with_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that began with what is there would have batches of a part of them for ever."""
    monkeypatch.setattr("recsys.serve.batches.TURNS_S", 20)
    model = Model()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def client(number: int) -> None:
        for _ in range(100):
            assert await asyncio.ensure_future(batches.ask(number)) == 2 * number

    async def ask() -> None:
        first = asyncio.ensure_future(client(1))
        await asyncio.to_thread(model.working.wait, 20)
        rest = [asyncio.ensure_future(client(number)) for number in range(2, 9)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(first, *rest)

    asyncio.run(ask())
    batches.close()
    sizes = [len(batch) for batch in model.batches]
    # Who was answered alone may have asked again before the others were taken in, or after it.
    assert sizes in ([1, 7, *[8] * 99], [1, *[8] * 99, 7])


def test_who_asks_alone_waits_for_no_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.serve.batches.TURNS_S", 20)
    monkeypatch.setattr("recsys.serve.batches.TURNS", 10**9)
    model = Model()
    model.go_on.set()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def ask() -> list[int]:
        return [await asyncio.wait_for(batches.ask(number), 10) for number in (1, 2)]

    assert asyncio.run(ask()) == [2, 4]
    batches.close()


def test_a_loop_that_stands_still_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.serve.batches.TURNS_S", 0.01)
    model, asked, other_answered = Model(), threading.Event(), threading.Event()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def stands_still() -> None:
        ask = asyncio.gather(*(batches.ask(number) for number in (1, 2, 3)))
        await asyncio.sleep(0)
        asked.set()
        assert other_answered.wait(20), "another loop is answered meanwhile"
        assert await ask == [2, 4, 6]

    async def other() -> None:
        await asyncio.to_thread(asked.wait, 20)
        model.go_on.set()
        for number in (4, 5, 6):
            assert await batches.ask(number) == 2 * number
        other_answered.set()

    with ThreadPoolExecutor() as threads:
        still = threads.submit(asyncio.run, stands_still())
        asyncio.run(other())
        still.result()
    batches.close()


def test_where_all_fails_each_is_told() -> None:
    model = Model()
    model.go_on.set()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="all of them"):
            await batches.ask(13)
        assert await batches.ask(4) == 8, "the thread goes on"
        with pytest.raises(ZeroDivisionError):
            await batches.call(lambda: 1 // 0)
        assert await batches.call(lambda: threading.current_thread().name) == "model"

    asyncio.run(ask())
    batches.close()


def test_who_has_gone_holds_up_nobody() -> None:
    model = Model()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def ask() -> int:
        gone = asyncio.ensure_future(batches.ask(1))
        await asyncio.to_thread(model.working.wait, 20)
        gone.cancel()
        model.go_on.set()
        return await batches.ask(3)

    assert asyncio.run(ask()) == 6
    batches.close()


def test_a_loop_that_has_ended_ends_nobody_else() -> None:
    model, loop = Model(), asyncio.new_event_loop()
    batches: MicroBatches[int, int] = MicroBatches(model.answer)

    async def ask() -> None:
        for number in (1, 2):
            asyncio.ensure_future(batches.ask(number))
        await asyncio.sleep(0)

    loop.run_until_complete(ask())
    loop.close()
    model.go_on.set()
    assert asyncio.run(batches.ask(3)) == 6
    batches.close()


def test_an_idle_thread_does_what_it_is_told() -> None:
    model, idle = Model(), threading.Event()
    batches: MicroBatches[int, int] = MicroBatches(model.answer, idle=idle.set)
    assert idle.wait(20)
    batches.close()


def test_calls_for_many_users_are_refused_where_many_wait(tiny: TinyRun, log: EventLog) -> None:
    """One call alone may be as large as it likes."""
    service = Service(Bundle.load(str(tiny.run)).with_settings(ServeConfig(max_waiting=5)), log)
    many = [Ask(f"u{number}", 2) for number in range(5)]

    async def at_once(*calls: list[Ask]) -> list[list[Answer] | BaseException]:
        return await asyncio.gather(*map(service.answer_all, calls), return_exceptions=True)

    first, second, short, third = asyncio.run(at_once(many, many, many[:2], many))
    (alone,) = asyncio.run(at_once(3 * many))
    figures = service.metrics.text().decode()
    service.close()
    lengths = [len(answers) for answers in (first, short, alone) if isinstance(answers, list)]
    assert lengths == [5, 2, 15]
    for refused in (second, third):
        assert isinstance(refused, NoAnswer) and "serve.max_waiting" in str(refused)
    assert re.search(r'recsys_refused_total{.*reason="overload".*} 2.0', figures)
