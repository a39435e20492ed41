"""What benchmarks share: their bars, in one form in file and terminal, and where they work."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any


def bar(
    results: dict[str, Any], name: str, value: float | None, limit: float, *, least: bool
) -> None:
    """Adds a bar to what was found, and prints whether it holds.

    Args:
        results: What the benchmark will write.
        name: What is measured.
        value: The figure; None where it was not reached, which never holds.
        limit: The bar.
        least: Whether the figure must be at least that; else it must be at most that.
    """
    holds = value is not None and (value >= limit if least else value <= limit)
    results.setdefault("bars", {})[name] = {"value": value, "bar": limit, "holds": holds}
    shown = "not reached" if value is None else f"{value:,.4g}"
    print(f"  {'holds' if holds else 'MISSED'}: {name}: {shown} (bar {limit:,.4g})", flush=True)


def write(results: dict[str, Any], out: Path) -> None:
    """Writes what was found, with its bars, as the file that others read."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


def work_folder(folder: str | None = None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the disk that runs lie on: what is called temporary may be memory.

    Args:
        folder: Where it is made; else beside the figures of other benchmarks.
    """
    place = Path(folder or "runs/bench")
    place.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=place)
