"""One line that says how far a long stage is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_REDRAW_S = 0.5
_REPORT_S = 30.0


def progress_text(done: int, total: int, *, broken: int, seconds: float) -> str:
    """What the line says.

    >>> progress_text(120, 500, broken=3, seconds=60.0)
    'decode 120/500, 2.0 videos/s, 3 broken, 3:10 left'
    >>> progress_text(0, 500, broken=0, seconds=1.0)
    'decode 0/500'
    """
    text = f"decode {done}/{total}"
    if not done:
        return text
    rate = done / max(seconds, 1e-9)
    left = int((total - done) / rate)
    hours, minutes = divmod(left // 60, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{text}, {rate:.1f} videos/s, {broken} broken, {clock}:{left % 60:02d} left"


class ProgressLine:
    """Redraws one line on a terminal; elsewhere says a line now and then.

    Args:
        total: Videos to decode.
        report: Takes the lines where there is no terminal.
        stream: The terminal; standard error without it.
    """

    def __init__(
        self, total: int, *, report: Callable[[str], None], stream: TextIO | None = None
    ) -> None:
        self._total = total
        self._report = report
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self.done = 0
        self.broken = 0

    def add(self, done: int, broken: int) -> None:
        """Counts videos that came back, `broken` of which gave no clip."""
        self.done += done
        self.broken += broken
        now = time.monotonic()
        if now - self._shown < (_REDRAW_S if self._is_terminal else _REPORT_S):
            return
        self._shown = now
        if self._is_terminal:
            self._stream.write(f"\r\x1b[2K{self._text(now)}")
            self._stream.flush()
        else:
            self._report(self._text(now))

    def close(self) -> None:
        """Wipes the line."""
        if self._is_terminal:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _text(self, now: float) -> str:
        return progress_text(self.done, self._total, broken=self.broken, seconds=now - self._start)
