"""The catalogue: what is known of each video without anyone having seen it.

Row i of everything is video_row i; row 0 stands for an unknown video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.ragged import IntArray, Ragged, whole
from recsys.data.storage import open_input


@dataclass(frozen=True)
class Catalog:
    """A table of `video_schema` or `served_video_schema` as arrays; N videos, row 0 among them."""

    table: pa.Table
    creator_rows: IntArray
    """(N,)."""
    categories: Ragged
    """N lists of category rows."""
    durations: npt.NDArray[np.float64]
    """(N,) in the user's unit; NaN where it is unknown."""
    duration_buckets: IntArray
    """(N,)."""
    train_events: IntArray
    """(N,) events before the validation cut."""
    valid_events: IntArray
    """(N,) events between the two cuts."""
    train_positives: IntArray
    valid_positives: IntArray

    @classmethod
    def from_table(cls, table: pa.Table) -> Catalog:
        """Reads a table of either schema."""
        table = table.combine_chunks()

        def column(name: str) -> IntArray:
            return np.asarray(whole(table.column(name)), dtype=np.int64)

        return cls(
            table=table,
            creator_rows=column("creator_row"),
            categories=Ragged.from_arrow(whole(table.column("category_rows"))),
            durations=np.asarray(whole(table.column("duration")), np.float64),
            duration_buckets=column("duration_bucket"),
            train_events=column("num_train_events"),
            valid_events=column("num_valid_events"),
            train_positives=column("num_train_positives"),
            valid_positives=column("num_valid_positives"),
        )

    @classmethod
    def read(cls, path: str) -> Catalog:
        """Reads `RUN/prepare/videos.parquet`."""
        with open_input(path) as file:
            return cls.from_table(pq.read_table(file))

    def __len__(self) -> int:
        return self.table.num_rows

    def video_ids(self) -> pa.ChunkedArray:
        """(N,) the users' own ids; null for row 0."""
        return self.table.column("video_id")

    def uris(self) -> pa.ChunkedArray:
        """(N,) where each video's file lies; null where it has none."""
        return self.table.column("uri")

    def known_events(self, *, with_valid: bool) -> IntArray:
        """(N,) events that the model may learn from."""
        return self.train_events + self.valid_events if with_valid else self.train_events

    def known_positives(self, *, with_valid: bool) -> IntArray:
        """(N,) positive events that the model may learn from."""
        return self.train_positives + self.valid_positives if with_valid else self.train_positives

    def id_rows(self, *, with_valid: bool, min_events: int) -> IntArray:
        """(N,) each video's row in the ID table: 0 where too few events could teach it."""
        enough = self.known_events(with_valid=with_valid) >= max(min_events, 1)
        return np.where(enough, np.arange(len(self)), 0)


def duration_buckets(durations: npt.ArrayLike) -> IntArray:
    """Buckets of a duration in any unit: ranks of 31 quantiles among the known ones; 0 unknown."""
    return buckets_among(durations, durations)


def buckets_among(durations: npt.ArrayLike, catalog: npt.ArrayLike) -> IntArray:
    """`duration_buckets` of some durations by the quantiles of a catalogue's.

    >>> buckets_among([1.0, 2.5, np.nan], [2.0, 3.0]).tolist()
    [1, 16, 0]
    """
    values, others = (np.asarray(given, dtype=np.float64) for given in (durations, catalog))
    known, there = (np.isfinite(given) & (given > 0) for given in (values, others))
    if not there.any():
        return np.zeros(len(values), dtype=np.int64)
    edges = np.quantile(others[there], np.linspace(0, 1, 32)[1:-1])
    return np.where(known, 1 + np.searchsorted(edges, values, side="right"), 0)
