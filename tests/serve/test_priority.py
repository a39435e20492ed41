"""Threads that give way; most tests have one of their own, which keeps what it was given."""

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from recsys.serve import priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux")


def in_a_thread(work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed, failed


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.parametrize(("before", "after"), [(0, 10), (5, 15), (15, 19)])
def test_lower_is_lower_than_before(before: int, after: int) -> None:
    """15 is that of Ray's workers: a fixed 10 would be above it, and not allowed to all."""

    def work() -> None:
        start = niceness()
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, start + before))
        priority.lower()
        assert niceness() == min(19, start + after)

    in_a_thread(work)


def test_the_interpreter_is_handed_over_before_an_answer_is_late() -> None:
    before = sys.getswitchinterval()
    try:
        priority.hand_over_soon()
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        sys.setswitchinterval(before)


class Circle:
    """Nothing but a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_stays_is_spared_until_nobody_uses_it() -> None:
    usual = gc.get_threshold()
    gc.disable()
    try:
        circle = Circle()
        priority.spare_what_stays()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == priority.SELDOM
        gone = weakref.ref(circle)
        del circle
        gc.collect()
        assert gone() is not None, "a collection did not look at it"
        priority.spare_what_stays()
        assert gone() is None
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
        gc.enable()


def test_lowest_is_for_the_thread_and_what_it_starts_alone() -> None:
    def work() -> None:
        priority.lowest()
        assert os.sched_getscheduler(0) == os.SCHED_IDLE
        in_a_thread(lambda: policies.append(os.sched_getscheduler(0)))

    policies: list[int] = []
    in_a_thread(work)
    assert policies == [os.SCHED_IDLE]
    assert os.sched_getscheduler(0) != os.SCHED_IDLE
