"""Work that gives way to requests: threads of a lower priority than those that answer."""

from __future__ import annotations

import os
import threading

LOWER = 10
"""By how much, as of `nice`."""
LOWEST = 19


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
