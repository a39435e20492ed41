"""Who waits for whom inside a process that answers requests."""

from __future__ import annotations

import gc
import os
import sys
import threading

LOWER = 10
"""By how much, as of `nice`."""
LOWEST = 19
HAND_OVER_S = 0.001
SELDOM = (10_000, 20, 50)
"""After how many new objects the youngest are looked through, and after how many times of that the
older ones; Python's own are 700, 10 and 10."""


def hand_over_soon() -> None:
    """A thread that computes gives the interpreter to one that waits within a millisecond.

    Python's own 5 ms (`sys.setswitchinterval`) are more than a whole answer takes, and a request
    goes through two threads: it would wait twice where a third one reads the log or a new video.
    With 32 clients, half a millisecond costs 7 % of what a server can answer, this 1 %.
    It counts for the whole process, so that only a process that is a server's own calls it.
    """
    sys.setswitchinterval(HAND_OVER_S)


def spare_what_stays() -> None:
    """What is there now is not looked through any more for what nobody uses; what comes, seldom.

    A full collection of Python's garbage looks at every object, and nothing else of the process
    runs meanwhile: a quarter of a second for the half a million that PyTorch, Ray and a version
    bring with them, milliseconds for those of requests. What was spared before and is used no
    more, such as a version that was served, is collected first, at the price of one such pause.
    That young objects are looked through seldom takes 4 % off the CPU time of an answer.
    It counts for the whole process, so that only a process that is a server's own calls it.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


def lower() -> None:
    """The calling thread, and what it starts, has a lower priority than its process.

    Ray's workers have a niceness of their own, 15, and only root may go below it again.
    """
    if hasattr(os, "setpriority"):
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(LOWEST, niceness + LOWER))


def lowest() -> None:
    """The calling thread, and what it starts, gets the time that all others leave.

    On Linux it is interrupted at once when another one wakes, which a mere niceness does not do: a
    request would wait for milliseconds.
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        lower()
