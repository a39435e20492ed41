"""A little input of a user's own: events, videos and a run config, without video files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys.config.data import DataConfig
from recsys.prepare.spill import Spilled, SpillEvents, plan_tasks
from recsys.prepare.tables import check_events, check_showings

DAY_MS = 24 * 3600 * 1000
START_MS = 1_714_521_600_000  # 2024-05-01
NUM_USERS, NUM_DAYS, NUM_VIDEOS = 6, 8, 10

Rows = dict[str, Any]


def event_rows() -> Rows:
    """Every day every user is shown a video; clicked is every second one, liked every third,
    and user + day / 2 seconds were watched.

    Validation is day 6, test day 7; video 0 … 9 of the day and user (3 · user + day) mod 10.
    """
    numbers = [(user, day) for user in range(NUM_USERS) for day in range(NUM_DAYS)]
    return {
        "user_id": [f"u{user}" for user, _ in numbers],
        "video_id": [f"v{(3 * user + day) % NUM_VIDEOS}" for user, day in numbers],
        "time": [START_MS + day * DAY_MS + user for user, day in numbers],
        "clicked": [(user + day) % 2 for user, day in numbers],
        "liked": [int((user + day) % 3 == 0) for user, day in numbers],
        "seconds": [user + day / 2 for user, day in numbers],
        "tab": ["home" if day % 2 else "search" for _, day in numbers],
    }


def video_rows() -> Rows:
    """Ten videos of two creators."""
    return {
        "video_id": [f"v{i}" for i in range(NUM_VIDEOS)],
        "path": [f"v{i}.mp4" for i in range(NUM_VIDEOS)],
        "seconds": [None, *range(2, 2 + NUM_VIDEOS - 1)],
        "creator": [f"c{i % 2}" for i in range(NUM_VIDEOS)],
    }


def plus(rows: Rows, *more: Rows) -> Rows:
    """The rows with others after them."""
    return {name: [*rows[name], *(row[name] for row in more)] for name in rows}


def write_rows(rows: Rows, path: Path) -> None:
    """Writes a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)


def write_config(folder: Path, **sections: Any) -> Path:
    """Writes run.yaml; `sections` are laid over its own, e.g. `data={"time_unit": "ms"}`."""
    tree: dict[str, Any] = {
        "run": str(folder / "run"),
        "data": {
            "events": str(folder / "events.parquet"),
            "columns": {
                "positive": "clicked",
                "tasks": ["clicked", "liked"],
                "watched": "seconds",
                "context": ["tab"],
            },
        },
        "split": {"kind": "time", "valid_from": "2024-05-07", "test_from": "2024-05-08"},
        "prepare": {"partitions": 2},
        "model": {"content": {"encoder": "none"}, "dim": 8, "id_dim": 8, "state_dim": 8},
        "train": {"epochs": 1, "batch_timelines": 4},
    }
    for name, section in sections.items():
        merged = isinstance(section, dict) and name != "split"
        tree[name] = {**tree.get(name, {}), **section} if merged else section
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def write_input(folder: Path, events: Rows | None = None, **sections: Any) -> Path:
    """Writes events.parquet and run.yaml; returns the latter's path."""
    write_rows(events or event_rows(), folder / "events.parquet")
    return write_config(folder, **sections)


def first_pass(
    data: DataConfig, folder: Path, showings: str | None = None
) -> tuple[Spilled, list[Rows]]:
    """What the first pass of prepare finds, and the events that it keeps, without Ray.

    Args:
        data: The config's section.
        folder: Events are spilled into it.
        showings: The copy of an event log.
    """
    files, times = check_events(data)
    if showings is not None:
        files = [*files, *check_showings(showings, data)]
    worker = SpillEvents(data, times, plan_tasks(files), 1, str(folder / "spill"))
    spilled = Spilled()
    for number in range(len(worker.tasks)):
        for row in worker({"id": np.array([number])}):
            spilled.add(Spilled.from_row({name: value for name, (value,) in row.items()}))
    pieces = sorted((folder / "spill").rglob("*.arrow"))
    tables = [pa.ipc.open_file(piece).read_all().to_pylist() for piece in pieces]
    return spilled, [event for table in tables for event in table]
