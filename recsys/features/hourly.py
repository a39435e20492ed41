"""Events and flags of many rows, counted by the hour.

Shapes: R rows of a counted thing, T tasks, n pairs of a row and an hour. Counted are the event
itself and its 1 + T flags: the positive flag and the tasks' labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.ragged import IntArray, Ragged
from recsys.features.live_counts import LiveCounts
from recsys.features.timelines import MS_PER_HOUR
from recsys.schema import UNKNOWN_ROW, count_schema

_HOURS_A_ROW = 1 << 24
LAST_HOUR = _HOURS_A_ROW - 1


def hour_of(time_ms: npt.ArrayLike) -> IntArray:
    """Number of the hour since 1970; times before it count as its start."""
    hour = np.asarray(time_ms, dtype=np.int64) // MS_PER_HOUR
    return np.clip(hour, 0, LAST_HOUR)


def _sort_keys(rows: npt.NDArray[np.integer], hours: npt.ArrayLike) -> IntArray:
    """One number for each pair of row and hour, sorted by row first."""
    return rows.astype(np.int64) * _HOURS_A_ROW + np.asarray(hours, np.int64)


class HourlyCounts:
    """Events and flags of each row in each hour, as running totals; none of the unknown row.

    What it is made of stays as it is; live events are counted beside it.

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
        # Row r has the keys of places [r] to [r + 1]; the last row stands for all that have none.
        num_rows = int(self._keys[-1]) // _HOURS_A_ROW + 2 if len(self._keys) else 1
        self._starts = np.searchsorted(self._keys, _sort_keys(np.arange(num_rows + 1), 0))
        self._end = int((self._keys % _HOURS_A_ROW).max(initial=-1)) + 1
        self._live: LiveCounts | None = None

    @property
    def exact_from(self) -> int:
        """The hour from which on `before` is exact; see `LiveCounts.before` for those before it."""
        return 0 if self._live is None else self._live.exact_from

    @property
    def live_bytes(self) -> int:
        """Bytes that live events take."""
        return 0 if self._live is None else self._live.nbytes

    def before(self, rows: npt.NDArray[np.integer], hours: IntArray) -> IntArray:
        """Totals (R, 2 + T) of the hours before one (R,), for rows (R,)."""
        place = np.minimum(rows, len(self._starts) - 2)
        first, last = self._starts[place], self._starts[place + 1]
        within = np.flatnonzero(hours < self._end)
        asked = _sort_keys(place[within], np.maximum(hours[within], 0))
        last[within] = np.searchsorted(self._keys, asked)
        totals: IntArray = self._totals.take(last, axis=0) - self._totals.take(first, axis=0)
        if self._live is not None:
            totals += self._live.before(rows, hours)
        return totals

    def add(self, rows: npt.NDArray[np.integer], hours: IntArray, counts: IntArray) -> None:
        """Counts live events; see `LiveCounts`. Many threads may read meanwhile, one may write.

        Args:
            rows: (n,), which may repeat.
            hours: (n,) since 1970.
            counts: (n, 2 + T).
        """
        if self._live is None:
            self._live = LiveCounts(self._totals.shape[1], self._end)
        self._live.add(rows, hours, counts)

    def forget_live(self) -> None:
        """Drops all live events."""
        self._live = None

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
