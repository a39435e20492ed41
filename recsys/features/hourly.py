"""Events and flags of many rows, counted by the hour.

Shapes: R rows of a counted thing, T tasks, n pairs of a row and an hour. Counted are the event
itself and its 1 + T flags: the positive flag and the tasks' labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.ragged import IntArray, Ragged
from recsys.features.timelines import MS_PER_HOUR
from recsys.schema import UNKNOWN_ROW, count_schema

_HOURS_A_ROW = 1 << 24


def hour_of(time_ms: npt.ArrayLike) -> IntArray:
    """Number of the hour since 1970; times before it count as its start."""
    hour = np.asarray(time_ms, dtype=np.int64) // MS_PER_HOUR
    return np.clip(hour, 0, _HOURS_A_ROW - 1)


def _sort_keys(rows: npt.NDArray[np.integer], hours: npt.ArrayLike) -> IntArray:
    """One number for each pair of row and hour, sorted by row first."""
    return rows.astype(np.int64) * _HOURS_A_ROW + np.asarray(hours, np.int64)


class HourlyCounts:
    """Events and flags of each row in each hour, as running totals; none of the unknown row.

    Args:
        rows: (n,) int64.
        hours: (n,) hours since 1970; pairs of row and hour may repeat.
        counts: (n, 2 + T) events and flags.
    """

    def __init__(self, rows: npt.NDArray[np.integer], hours: IntArray, counts: IntArray) -> None:
        known = rows != UNKNOWN_ROW
        counts, keys = counts[known], _sort_keys(rows, hours)[known]
        order = np.argsort(keys, kind="stable")
        self._keys, starts = np.unique(keys[order], return_index=True)
        summed = np.add.reduceat(counts[order], starts) if len(starts) else counts[:0]
        self._totals = np.pad(summed.cumsum(0), ((1, 0), (0, 0)))
        self._live: dict[int, dict[int, IntArray]] = {}

    def before(self, rows: npt.NDArray[np.integer], hours: IntArray) -> IntArray:
        """Totals (R, 2 + T) of the hours before one (R,), for rows (R,)."""
        first = np.searchsorted(self._keys, _sort_keys(rows, 0))
        last = np.searchsorted(self._keys, _sort_keys(rows, np.maximum(hours, 0)))
        totals: IntArray = self._totals[last] - self._totals[first]
        touched: Sequence[int] | IntArray = range(len(rows))
        if len(rows) > len(self._live):  # as when all videos are asked for
            touched = np.flatnonzero(np.isin(rows, list(self._live)))
        for place in touched:
            for then, counts in self._live.get(int(rows[place]), {}).items():
                if then < hours[place]:
                    totals[place] += counts
        return totals

    def add(self, row: int, hour: int, counts: IntArray) -> None:
        """Counts a live event; readers may go on meanwhile, other writers may not."""
        if row != UNKNOWN_ROW:
            known = self._live.get(row, {})
            self._live[row] = {**known, hour: known.get(hour, 0) + counts}

    def entries(self) -> tuple[IntArray, IntArray, IntArray]:
        """Rows (n,), hours (n,) and counts (n, 2 + T), sorted, without live events."""
        counts = np.diff(self._totals, axis=0)
        return self._keys // _HOURS_A_ROW, self._keys % _HOURS_A_ROW, counts

    def mapped(self, rows: Ragged) -> HourlyCounts:
        """The counts of what our rows belong to: row i to those of list i."""
        own, hours, counts = self.entries()
        targets = rows.select(own)
        entry = targets.list_of_value
        return HourlyCounts(targets.values, hours[entry], counts[entry])

    def to_table(self) -> pa.Table:
        """Writes the counts as a table of `count_schema`, without live events."""
        rows, hours, counts = self.entries()
        lists = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), counts.shape[1])
        return pa.table([rows, hours, lists.cast(pa.list_(pa.int64()))], schema=count_schema())

    @classmethod
    def from_table(cls, table: pa.Table, *, num_flags: int) -> HourlyCounts:
        """Reads a table of `count_schema`."""
        counts = np.asarray(table.column("counts").combine_chunks().flatten(), np.int64)
        return cls(
            np.asarray(table.column("row"), np.int64),
            np.asarray(table.column("hour"), np.int64),
            counts.reshape(-1, 1 + num_flags),
        )
