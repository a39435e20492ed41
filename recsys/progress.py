"""How far a long stage is: a bar on a terminal; elsewhere, if asked for, a line now and then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
REPORT_S = 30.0
"""Seconds between two lines where there is no terminal."""


@contextlib.contextmanager
def progress(
    title: str,
    total: float,
    *,
    unit: str = "",
    report: Callable[[str], None] | None = None,
) -> Iterator[Callable[..., None]]:
    """Shows a bar while the block runs, and wipes it afterwards.

    Args:
        title: What is being done.
        total: Steps in all.
        unit: What the steps are; where it is given, the speed is shown too.
        report: Takes a line every `REPORT_S` where the output is no terminal. Without it nothing
            is said there, so that log files stay short.

    Yields:
        A function `advance(steps, note="")`.
    """
    with _bar() as bar:
        task = bar.add_task(title, total=total, note="")
        start = shown = monotonic()
        done = 0.0

        def advance(steps: float, note: str = "") -> None:
            nonlocal shown, done
            done, now = done + steps, monotonic()
            if unit:
                speed = f"{done / max(now - start, 1e-9):.1f} {unit}/s"
                note = ", ".join(filter(None, [speed, note]))
            bar.update(task, advance=steps, note=note)
            if report is not None and bar.disable and now - shown >= REPORT_S:
                shown = now
                report(progress_line(title, done, total, note=note, seconds=now - start))

        yield advance


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def progress_line(title: str, done: float, total: float, *, note: str, seconds: float) -> str:
    """What is said where there is no bar.

    >>> progress_line("decode", 120, 500, note="2.0 videos/s, 3 broken", seconds=60.0)
    'decode 120/500, 2.0 videos/s, 3 broken, 3:10 left'
    >>> progress_line("decode", 0, 500, note="", seconds=1.0)
    'decode 0/500'
    """
    left = ""
    if done:
        left_s = int((total - done) * seconds / done)
        hours, minutes = divmod(left_s // 60, 60)
        clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
        left = f"{clock}:{left_s % 60:02d} left"
    return ", ".join(filter(None, [f"{title} {int(done)}/{int(total)}", note, left]))
