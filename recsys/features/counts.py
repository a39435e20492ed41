"""How videos have been received so far: hourly counts, and what they say of one video at one time.

A video's ID embedding learns its reception by heart and is out of date the next day; counts carry
it up to the hour. They are those of all finished hours: what happened in the hour of an event is
not known to it, in training as in serving.

Shapes: N rows of a table, A = 1 + T actions (positive and the ranking tasks), F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.catalog import Catalog
from recsys.data.ragged import FloatArray, IntArray, expand_ranges
from recsys.data.storage import join, open_input
from recsys.features.timelines import LOG_SCALE, MS_PER_HOUR, Timelines
from recsys.schema import UNKNOWN_ROW, trend_schema

RECENT_HOURS = 24
SMOOTHING = 10.0
"""Events of average reception that a rate is drawn to."""
EVERYTHING, VIDEO, CREATOR, CATEGORY = THINGS = ("everything", "video", "creator", "category")
_HOURS_A_ROW = 1 << 24


def hour_of(time_ms: npt.ArrayLike) -> IntArray:
    """Number of the hour since 1970; times before it count as its start."""
    hour = np.asarray(time_ms, dtype=np.int64) // MS_PER_HOUR
    return np.clip(hour, 0, _HOURS_A_ROW - 1)


class HourlyCounts:
    """Events and actions of each row in each hour, as running totals; none of the unknown row.

    Args:
        rows: (n,) int64.
        hours: (n,) hours since 1970; pairs of row and hour may repeat.
        counts: (n, 1 + A) events and actions.
    """

    def __init__(self, rows: IntArray, hours: IntArray, counts: IntArray) -> None:
        known = rows != UNKNOWN_ROW
        counts, keys = counts[known], (rows * _HOURS_A_ROW + hours)[known]
        order = np.argsort(keys, kind="stable")
        self._keys, starts = np.unique(keys[order], return_index=True)
        summed = np.add.reduceat(counts[order], starts) if len(starts) else counts[:0]
        self._totals = np.pad(summed.cumsum(0), ((1, 0), (0, 0)))
        self._live: dict[int, dict[int, IntArray]] = {}

    def before(self, rows: IntArray, hours: IntArray) -> IntArray:
        """Totals (R, 1 + A) of the hours before one (R,), for rows (R,)."""
        first = np.searchsorted(self._keys, rows * _HOURS_A_ROW)
        last = np.searchsorted(self._keys, rows * _HOURS_A_ROW + np.maximum(hours, 0))
        found: IntArray = self._totals[last] - self._totals[first]
        touched: Sequence[int] | IntArray = range(len(rows))
        if len(rows) > len(self._live):  # as when all videos are asked for
            touched = np.flatnonzero(np.isin(rows, list(self._live)))
        for place in touched:
            for then, counts in self._live.get(int(rows[place]), {}).items():
                if then < hours[place]:
                    found[place] += counts
        return found

    def add(self, row: int, hour: int, counts: IntArray) -> None:
        """Counts a live event; readers may go on meanwhile, other writers may not."""
        if row != UNKNOWN_ROW:
            known = self._live.get(row, {})
            self._live[row] = {**known, hour: known.get(hour, 0) + counts}

    def entries(self) -> tuple[IntArray, IntArray, IntArray]:
        """Rows (n,), hours (n,) and counts (n, 1 + A), sorted, without live events."""
        counts = np.diff(self._totals, axis=0)
        return self._keys // _HOURS_A_ROW, self._keys % _HOURS_A_ROW, counts

    def mapped(self, rows: IntArray, starts: IntArray, lengths: IntArray) -> HourlyCounts:
        """Counts of what rows belong to: row i to `lengths[i]` of `rows` from `starts[i]` on."""
        own, hours, counts = self.entries()
        entry = np.repeat(np.arange(len(own)), lengths[own])
        targets = rows[expand_ranges(starts[own], lengths[own])]
        return HourlyCounts(targets, hours[entry], counts[entry])

    def to_table(self) -> pa.Table:
        """A table of `trend_schema`."""
        rows, hours, counts = self.entries()
        lists = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), counts.shape[1])
        return pa.table([rows, hours, lists.cast(pa.list_(pa.int64()))], schema=trend_schema())

    @classmethod
    def from_table(cls, table: pa.Table, *, num_actions: int) -> HourlyCounts:
        """Reads a table of `trend_schema`."""
        counts = np.asarray(table.column("counts").combine_chunks().flatten(), np.int64)
        return cls(
            np.asarray(table.column("row"), np.int64),
            np.asarray(table.column("hour"), np.int64),
            counts.reshape(-1, 1 + num_actions),
        )


@dataclass(frozen=True)
class Trends:
    """The reception of everything that an event is about."""

    counts: Mapping[str, HourlyCounts]
    """Of each of `THINGS`, then of each context column."""
    catalog: Catalog
    num_actions: int

    @classmethod
    def of(
        cls, catalog: Catalog, counts: Mapping[str, HourlyCounts], *, num_actions: int
    ) -> Trends:
        """From the counts of the videos and of each context column: the others follow."""
        videos = counts[VIDEO]
        ones, starts = np.ones(len(catalog), np.int64), np.arange(len(catalog))
        offsets = catalog.category_offsets
        found = {
            # Row 1 stands for everything.
            EVERYTHING: videos.mapped(ones, starts, ones),
            VIDEO: videos,
            CREATOR: videos.mapped(catalog.creator_rows, starts, ones),
            CATEGORY: videos.mapped(catalog.category_rows, offsets[:-1], np.diff(offsets)),
        }
        found |= {name: counts[name] for name in counts if name != VIDEO}
        return cls(found, catalog, num_actions)

    def count(
        self, video_row: int, context_rows: Sequence[int], time_ms: int, actions: Sequence[int]
    ) -> None:
        """Counts a live event; one writer at a time.

        Args:
            video_row: What was shown.
            context_rows: (C,).
            time_ms: When.
            actions: (A,) positive and labels, 0 or 1.
        """
        hour, counts = int(hour_of(time_ms)), np.array([1, *actions], dtype=np.int64)
        categories, _ = self.catalog.categories_of(np.array([video_row]))
        touched = [
            (EVERYTHING, 1),
            (VIDEO, video_row),
            (CREATOR, int(self.catalog.creator_rows[video_row])),
            *((CATEGORY, int(row)) for row in categories),
            *zip(list(self.counts)[len(THINGS) :], context_rows, strict=True),
        ]
        for name, row in touched:
            self.counts[name].add(row, hour, counts)

    def to_tables(self) -> dict[str, pa.Table]:
        """Tables of `trend_schema` of what the rest follows from: videos and contexts."""
        names = (VIDEO, *list(self.counts)[len(THINGS) :])
        return {name: self.counts[name].to_table() for name in names}

    @classmethod
    def from_tables(
        cls, catalog: Catalog, tables: Mapping[str, pa.Table], *, num_actions: int
    ) -> Trends:
        """From tables of `trend_schema`: the videos' first."""
        counts = {
            name: HourlyCounts.from_table(table, num_actions=num_actions)
            for name, table in tables.items()
        }
        return cls.of(catalog, counts, num_actions=num_actions)

    def on(self, timelines: Timelines) -> Timelines:
        """The same timelines with what was known at each event."""
        found = self.features(timelines.video_rows, timelines.context_rows, timelines.time_ms)
        return replace(timelines, trends=found)

    def features(
        self, video_rows: IntArray, context_rows: IntArray, time_ms: npt.ArrayLike
    ) -> FloatArray:
        """What was known when some videos were shown.

        Args:
            video_rows: (E,).
            context_rows: (E, C).
            time_ms: (E,) or one time for all.

        Returns:
            (E, F): of everything, the log-odds of its rates and how they differ recently; of the
            rest the log of the count, log-odds of the rates less those of everything, and the
            same of the last 24 hours, less those so far. Rates are drawn to what they are
            compared with by 10 events; without events all is zero.
        """
        hours = np.broadcast_to(hour_of(time_ms), video_rows.shape)
        every, lately = self._totals(EVERYTHING, np.ones_like(video_rows), hours)
        even = np.full((len(video_rows), self.num_actions), 0.5)
        base = rates(every, even)
        parts = [log_odds(base), log_odds(rates(lately, base)) - log_odds(base)]
        for total, recent in self._by_thing(video_rows, context_rows, hours):
            rate = rates(total, base)
            parts += [np.log1p(total[:, :1]) * LOG_SCALE, log_odds(rate) - log_odds(base)]
            parts += [np.log1p(recent[:, :1]) * LOG_SCALE]
            parts += [log_odds(rates(recent, rate)) - log_odds(rate)]
        return np.concatenate(parts, -1).astype(np.float32)

    def shown(self, time_ms: int) -> IntArray:
        """How often all videos had been shown by a time, and in the 24 hours before: (N, 2)."""
        rows, hour = np.arange(len(self.catalog)), hour_of(time_ms)
        total, old = (
            self.counts[VIDEO].before(rows, np.broadcast_to(hour - less, rows.shape))[:, 0]
            for less in (0, RECENT_HOURS)
        )
        return np.stack([total, total - old], 1)

    def _by_thing(
        self, video_rows: IntArray, context_rows: IntArray, hours: IntArray
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Totals so far and recently of the video, its creator, its categories and contexts."""
        yield self._totals(VIDEO, video_rows, hours)
        yield self._totals(CREATOR, self.catalog.creator_rows[video_rows], hours)
        yield self._of_categories(video_rows, hours)
        for place, name in enumerate(list(self.counts)[len(THINGS) :]):
            yield self._totals(name, context_rows[:, place], hours)

    def _totals(self, name: str, rows: IntArray, hours: IntArray) -> tuple[FloatArray, FloatArray]:
        """(R, 1 + A) events and actions so far, and in the last `RECENT_HOURS` of it."""
        total = self.counts[name].before(rows, hours)
        old = self.counts[name].before(rows, hours - RECENT_HOURS)
        return total.astype(np.float32), (total - old).astype(np.float32)

    def _of_categories(
        self, video_rows: IntArray, hours: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """The mean over a video's categories; zeros for a video without any."""
        rows, lengths = self.catalog.categories_of(video_rows)
        event = np.repeat(np.arange(len(video_rows)), lengths)
        found: list[FloatArray] = []
        for part in self._totals(CATEGORY, rows, hours[event]):
            summed = np.zeros((len(video_rows), part.shape[1]), np.float32)
            np.add.at(summed, event, part)
            found.append((summed / np.maximum(lengths, 1)[:, None]).astype(np.float32))
        return found[0], found[1]


def trending(shown_N2: IntArray) -> FloatArray:
    """How much more than others videos are shown these days: (N,), of `Trends.shown`.

    The log of the last 24 hours' events, less its mean over these events; drawn to zero by 10
    events so far, and so zero for a video that was never shown, and for all where nothing happened.

    >>> [f"{x:.2f}" for x in trending(np.array([[5, 0], [990, 0], [30, 3], [10, 1]]))]
    ['-0.10', '-0.30', '0.03', '-0.06']
    """
    total, recent = shown_N2[:, 0], shown_N2[:, 1]
    logs = np.log1p(recent) * LOG_SCALE
    mean = (recent * logs).sum() / max(recent.sum(), 1)
    found: FloatArray = ((logs - mean) * total / (total + SMOOTHING)).astype(np.float32)
    return found


def rates(totals: FloatArray, prior: FloatArray) -> FloatArray:
    """Rates of the actions (R, A) among events (R, 1 + A), drawn to a prior by 10 events.

    >>> rates(np.array([[10.0, 10.0, 0.0]]), np.array([[0.5, 0.5]])).tolist()
    [[0.75, 0.25]]
    """
    found: FloatArray = (totals[:, 1:] + SMOOTHING * prior) / (totals[:, :1] + SMOOTHING)
    return found


def log_odds(rate: FloatArray) -> FloatArray:
    """log(p / (1 - p)), of rates from 0.25 % to 99.75 %.

    >>> log_odds(np.array([0.5, 1.0])).round(2).tolist()
    [0.0, 5.99]
    """
    p = np.clip(rate, 0.0025, 0.9975)
    found: FloatArray = np.log(p / (1 - p))
    return found


def trend_places(
    task_places: Sequence[int | None], context_places: Sequence[int | None], *, num_tasks: int
) -> list[int | None]:
    """Where another model's trends lie among ours.

    Args:
        task_places: For each task of theirs the place of ours; None where we have none.
        context_places: The same of context columns.
        num_tasks: How many tasks we have.

    >>> trend_places([1], [], num_tasks=2)[:4]
    [0, 2, 3, 5]
    """
    actions = [0, *(None if place is None else 1 + place for place in task_places)]
    ours = 1 + num_tasks
    places = [None if a is None else part * ours + a for part in (0, 1) for a in actions]
    for thing in (0, 1, 2, *(None if place is None else 3 + place for place in context_places)):
        for part in (0, 1):
            for value in (-1, *actions):  # the count, then the rates
                if thing is None or value is None:
                    places.append(None)
                else:
                    places.append(2 * ours + (2 * thing + part) * (1 + ours) + 1 + value)
    return places


def count_names(contexts: Sequence[str]) -> tuple[str, ...]:
    """What is counted by itself; creators and categories follow from the videos."""
    return (VIDEO, *(f"context_{column}" for column in contexts))


def read_trends(
    folder: str, catalog: Catalog, *, contexts: Sequence[str], num_tasks: int
) -> Trends:
    """Reads RUN/prepare/trends."""
    tables = {}
    for name in count_names(contexts):
        with open_input(join(folder, f"{name}.parquet")) as file:
            tables[name] = pq.read_table(file)
    return Trends.from_tables(catalog, tables, num_actions=1 + num_tasks)
