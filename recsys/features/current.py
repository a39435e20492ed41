"""Count features of an hour, held while it lasts: what a server asks for again and again.

Counts are of finished hours, so the features of a video stay as they are until the hour turns or a
late event comes. All columns follow from the hour and one row (of the videos, or of a context), so
that a request takes them out of a table and joins them.

Shapes: E events, C context columns, F count features, K held rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import FloatArray, IntArray
from recsys.features.counts import VIDEO, EventCounts
from recsys.features.hourly import hour_of

HELD_ROWS = 1 << 17
"""Rows that a table holds; for 38 features and a row 152 bytes, 20 MB."""


class CurrentFeatures:
    """`EventCounts.features`, the same numbers, at a small part of the cost within one hour.

    Any thread may call it. An event that is counted meanwhile is in the next call's answer.

    Args:
        counts: May go on counting.
        held_rows: The most rows that each table holds; more make it start anew.
    """

    def __init__(self, counts: EventCounts, *, held_rows: int = HELD_ROWS) -> None:
        self._counts, self._held_rows = counts, held_rows
        self._lock = threading.Lock()
        self._made_of: tuple[int, int] | None = None
        self._tables: dict[str, _Table] = {}

    def features(
        self, video_rows: IntArray, context_rows: IntArray, time_ms: npt.ArrayLike
    ) -> FloatArray:
        """See `EventCounts.features`; events of more than one hour are not helped."""
        hours, layout = hour_of(time_ms), self._counts.layout
        hour = int(hours.flat[0]) if hours.size else 0
        if (hours != hour).any():
            return self._counts.features(video_rows, context_rows, time_ms)
        contexts = zip(layout.context_names, context_rows.T, strict=True)
        with self._lock:
            self._start_anew_if_changed(hour)
            parts = [
                self._tables[name].take(rows) for name, rows in ((VIDEO, video_rows), *contexts)
            ]
        return np.concatenate(parts, -1)

    def _start_anew_if_changed(self, hour: int) -> None:
        made_of = hour, self._counts.version(hour)
        if made_of != self._made_of:
            makes = {VIDEO: partial(_at_hour, self._counts.video_features, hour)}
            for name in self._counts.layout.context_names:
                of_context = partial(self._counts.context_features, name)
                makes[name] = partial(_at_hour, of_context, hour)
            self._tables = {name: _Table(make, self._held_rows) for name, make in makes.items()}
            self._made_of = made_of


def _at_hour(
    features: Callable[[IntArray, IntArray], FloatArray], hour: int, rows: IntArray
) -> FloatArray:
    return features(rows, np.full(len(rows), hour))


class _Table:
    """Numbers of rows, made when they are first asked for.

    Args:
        make: Gives the numbers of rows (E,).
        limit: The most rows that are held.
    """

    def __init__(self, make: Callable[[IntArray], FloatArray], limit: int) -> None:
        self._make, self._limit = make, limit
        self._place_of_row = np.full(0, -1, np.int32)
        self._values_KF = make(np.zeros(0, np.int64))

    def take(self, rows: IntArray) -> FloatArray:
        """The numbers of rows (E,)."""
        length = int(rows.max(initial=-1)) + 1
        if length > len(self._place_of_row):
            more = np.full(length - len(self._place_of_row), -1, np.int32)
            self._place_of_row = np.concatenate([self._place_of_row, more])
        missing = np.unique(rows[self._place_of_row[rows] < 0])
        if len(missing) + len(self._values_KF) > self._limit:
            self._place_of_row[:] = -1
            self._values_KF, missing = self._values_KF[:0], np.unique(rows)
        if len(missing) > self._limit:
            return self._make(rows)
        if len(missing):
            end = len(self._values_KF) + len(missing)
            self._place_of_row[missing] = np.arange(len(self._values_KF), end)
            self._values_KF = np.concatenate([self._values_KF, self._make(missing)])
        return self._values_KF.take(self._place_of_row[rows], axis=0)
