"""What a process that answers requests keeps of the memory that it has freed."""

from __future__ import annotations

import ctypes

MAPPED, KEPT = 4 << 20, 8 << 20
"""Bytes from which on an array has pages of its own, and that are kept free for what comes next."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def give_back() -> None:
    """Large arrays go back to the system when they are freed; where malloc is not glibc's, no word.

    A request among a million videos makes arrays with a number for each. glibc takes such ones from
    its heap once it has seen one freed (mallopt(3), `M_MMAP_THRESHOLD`), and what lies behind them
    keeps their pages: 30 MB of 320. Given back, an answer takes no more time than before.
    It counts for the whole process, so that only a process that is a server's own calls it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
