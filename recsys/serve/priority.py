"""Who waits for whom inside a process that answers requests."""

from __future__ import annotations

import os
import sys
import threading

LOWER = 10
"""By how much, as of `nice`."""
LOWEST = 19
HAND_OVER_S = 0.001


def hand_over_soon() -> None:
    """A thread that computes gives the interpreter to one that waits within a millisecond.

    Python's own 5 ms (`sys.setswitchinterval`) are more than a whole answer takes, and a request
    goes through two threads: it would wait twice where a third one reads the log or a new video.
    With 32 clients, half a millisecond costs 7 % of what a server can answer, this 1 %.
    It counts for the whole process, so that only a process that is a server's own calls it.
    """
    sys.setswitchinterval(HAND_OVER_S)


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
