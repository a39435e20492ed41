"""Processes of one torch process group, as tests start them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240


def run_processes(script: Path, arguments: Sequence[str], world: int, folder: Path) -> None:
    """Runs `script ARGUMENTS RANK WORLD FOLDER`; one that hangs ends the test alone."""
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments, str(rank), str(world), str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=PATIENCE_S)
            assert worker.returncode == 0, output[-4000:]
    finally:
        for worker in workers:
            worker.kill()
