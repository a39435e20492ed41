"""The copy of an event log's showings that a run is made of: whose it is, and how much it holds.

The log grows while a run is made of it. So the run keeps a copy, RUN/prepare/live.parquet, which
`recsys prepare` renews (`live/export/snapshot.py`); all stages see the log as it was then.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from recsys.data.storage import exists, open_input
from recsys.errors import InputError

METADATA = "recsys.showings"
"""The key of what a file says of itself, beside its schema."""
LIVE_VIDEOS = "recsys.live_videos"
"""The same of the copy of the videos that came live, RUN/prepare/live_videos.parquet."""


@dataclass
class Showings:
    """What a file of showings holds; it stands in the file itself."""

    log: str
    """The log's address, without a password."""
    latest_seq: int
    """The place in the log up to which its events are in the file."""
    columns: str
    """The names that the file's columns have: `data.columns` as JSON."""
    rows: int = 0
    users: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """What the columns have no place for: labels and context by name, events without a video."""
    log_id: str | None = None
    """Of the log itself, whatever its address."""

    def to_metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return {METADATA: json.dumps(vars(self))}

    @classmethod
    def read(cls, path: str) -> Showings | None:
        """What a file holds; None where there is no such file.

        Raises:
            InputError: It is a file of something else.
        """
        if not exists(path):
            return None
        with open_input(path) as file:
            metadata = pq.read_metadata(file).metadata or {}
        if METADATA.encode() not in metadata:
            raise InputError(f"{path}: not a copy of an event log; move it elsewhere")
        values: dict[str, Any] = json.loads(metadata[METADATA.encode()])
        return cls(**{**values, "left_out": Counter(values["left_out"])})

    def report(self) -> dict[str, Any]:
        """Its entry in the report of prepare."""
        return {
            "log": self.log_id,
            "seq": self.latest_seq,
            "showings": self.rows,
            "users": self.users,
            "left_out": dict(self.left_out),
        }


def live_videos(path: str) -> dict[str, int]:
    """How many live videos of each state there were when a copy was made."""
    with open_input(path) as file:
        metadata = pq.read_metadata(file).metadata or {}
    states: dict[str, int] = json.loads(metadata[LIVE_VIDEOS.encode()])
    return states
