"""One quiet progress line a stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def progress(title: str, total: float | None) -> Iterator[Callable[..., None]]:
    """Shows a bar while the block runs.

    Yields a function `advance(steps, note="")`. Where the output is no terminal the bar is
    silent, so that log files stay short.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: float, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance
