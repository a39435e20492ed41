"""What turns events into model inputs: one piece of code, used by training and by serving.

Shapes: B windows of timelines, L positions, T ranking tasks, W numbers of how long a video was
watched (2 or 0), A = 1 + T + W actions, C context columns, F trends, K user features, E events of
all users one after the other.

A position's inputs hold only what was known before it: two events of the same moment do not see
each other (`prior`), in training as in serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.config.data import EventColumns
from recsys.data.ragged import IntArray
from recsys.schema import USER_ROWS

MS_PER_S = 1000
MS_PER_HOUR = 3600 * MS_PER_S
NUM_GAP_BUCKETS = 64
NUM_HOURS = 24
LOG_SCALE = 0.25
"""Puts the log of a count or a time into the size of the other features."""
MOST_SHARE = 2.0
"""Of a video that counts as watched: who loops it says no more than who watched it twice."""
TRENDS = "trends"
"""Column of a bundle's histories: L × F flattened, event by event."""


def gap_buckets(gap_ms: npt.ArrayLike) -> IntArray:
    """Buckets of the time since the last event: two a doubling of the seconds, from 1.

    A negative gap stands for "no event before" and gives bucket 0.

    >>> gap_buckets([-1, 0, 1000, 3000, 10**15]).tolist()
    [0, 1, 3, 5, 63]
    """
    gap = np.asarray(gap_ms, dtype=np.int64)
    seconds = np.maximum(gap, 0) / MS_PER_S
    bucket = 1 + np.floor(2 * np.log2(1 + seconds)).astype(np.int64)
    return np.where(gap < 0, 0, np.minimum(bucket, NUM_GAP_BUCKETS - 1))


def hours(time_ms: npt.ArrayLike) -> IntArray:
    """Hour of the day (UTC, 0 to 23).

    >>> hours([0, 25 * 3600 * 1000]).tolist()
    [0, 1]
    """
    return np.asarray(time_ms, dtype=np.int64) // MS_PER_HOUR % NUM_HOURS


def share_watched(watched: npt.ArrayLike, durations: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The share of a video that was watched; 0 where its duration is not known (0, NaN).

    >>> share_watched([30, 30, 500, 30], [60, np.nan, 100, 0]).tolist()
    [0.5, 0.0, 2.0, 0.0]
    """
    time, length = np.asarray(watched, np.float32), np.asarray(durations, np.float32)
    known, most = length > 0, MOST_SHARE * length
    share = np.where(known, np.minimum(time, most) / np.where(known, length, 1), 0)
    return share.astype(np.float32)


def watch_inputs(watched: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the model sees of (…, W) times and shares: the log of the time, in any unit.

    >>> watch_inputs(np.array([[6.389056, 0.25]], np.float32)).tolist()
    [[0.5, 0.25]]
    """
    found = watched.copy()
    found[..., :1] = np.log1p(watched[..., :1]) * LOG_SCALE
    return found


def trend_dim(*, num_contexts: int, num_tasks: int) -> int:
    """F: rates of everything, and counts and rates of the rest, each so far and recently.

    >>> trend_dim(num_contexts=1, num_tasks=2)
    38
    """
    actions = 1 + num_tasks
    return 2 * actions + 2 * (1 + actions) * (3 + num_contexts)


@dataclass(frozen=True)
class EventArrays:
    """Padded windows of timelines; positions from `lengths` on are padding (zeros)."""

    lengths: IntArray
    """(B,) events in each window."""
    video_rows: IntArray
    """(B, L)."""
    actions: npt.NDArray[np.float32]
    """(B, L, A): what the user did: the positive flag, the task labels, how long they watched."""
    prior: IntArray
    """(B, L): how many of the window's events are strictly earlier: the state to predict from."""
    gaps: IntArray
    """(B, L) bucket of the time since the last strictly earlier event."""
    hours: IntArray
    """(B, L) hour of the day."""
    tallies: npt.NDArray[np.float32]
    """(B, L, A): how often the user did each action in the strictly earlier events."""
    context_rows: IntArray
    """(B, L, C)."""
    trends: npt.NDArray[np.float32]
    """(B, L, F) how each video had been received when it was shown."""
    user_rows: IntArray
    """(B, K) what is known of the users."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(B, L): true where there is an event."""
        return np.arange(self.video_rows.shape[1]) < self.lengths[:, None]


@dataclass(frozen=True)
class Timelines:
    """Timelines of some users, one after the other; `offsets` (U + 1,) says where each lies."""

    user_ids: list[str]
    offsets: IntArray
    video_rows: IntArray
    """(E,)."""
    time_ms: IntArray
    """(E,) not decreasing within a user."""
    positive: npt.NDArray[np.int8]
    """(E,)."""
    labels: npt.NDArray[np.int8]
    """(E, T)."""
    watched: npt.NDArray[np.float32]
    """(E, W) how long, and what share of the video; W is 0 where no column says so."""
    context_rows: IntArray
    """(E, C)."""
    split: npt.NDArray[np.int8]
    """(E,) TRAIN, VALID or TEST of recsys.schema."""
    trends: npt.NDArray[np.float32]
    """(E, F) of `recsys.features.counts`."""
    user_rows: IntArray
    """(U, K) rows of the vocabulary of user values; K is 0 without user features."""

    @classmethod
    def from_table(cls, table: pa.Table, columns: EventColumns) -> Timelines:
        """Reads a table of `timeline_schema`, with a column of trends (zeros without it).

        A column `USER_ROWS` says what is known of the users.
        """
        num_tasks, num_contexts = len(columns.tasks), len(columns.context)
        table = table.combine_chunks()

        def flat(name: str, dtype: Any) -> npt.NDArray[Any]:
            lists = table.column(name).combine_chunks()
            return np.asarray(lists.flatten()).astype(dtype, copy=False)

        lengths = np.asarray(table.column("video_row").combine_chunks().value_lengths())
        num_events = int(lengths.sum())
        width = trend_dim(num_contexts=num_contexts, num_tasks=num_tasks)
        trends = np.zeros((num_events, width), dtype=np.float32)
        if TRENDS in table.column_names:
            trends = flat(TRENDS, np.float32).reshape(num_events, width)
        return cls(
            user_ids=table.column("user_id").to_pylist(),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            video_rows=flat("video_row", np.int64),
            time_ms=flat("time_ms", np.int64),
            positive=flat("positive", np.int8),
            labels=flat("labels", np.int8).reshape(num_events, num_tasks),
            watched=flat("watched", np.float32).reshape(num_events, columns.watch_dim),
            context_rows=flat("context_rows", np.int64).reshape(num_events, num_contexts),
            split=flat("split", np.int8),
            trends=trends,
            user_rows=_user_rows(table),
        )

    def __len__(self) -> int:
        return len(self.user_ids)

    def count_before(self, split: int) -> IntArray:
        """(U,) how many of each user's events belong to an earlier split than `split`.

        A user's splits do not decrease along its timeline, so these are its first events.
        """
        earlier = np.concatenate([[0], np.cumsum(self.split < split)])
        return earlier[self.offsets[1:]] - earlier[self.offsets[:-1]]

    def windows(self, starts: npt.ArrayLike, stops: npt.ArrayLike) -> EventArrays:
        """Padded model inputs of the events [start, stop); a window never crosses users."""
        first = np.asarray(starts, dtype=np.int64)
        lengths = np.asarray(stops, dtype=np.int64) - first
        width = max(int(lengths.max(initial=0)), 1)
        position = np.arange(width)
        present = position < lengths[:, None]
        event = np.where(present, first[:, None] + position, 0)

        def take(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if not len(values):
                return np.zeros((len(lengths), width, *values.shape[1:]), values.dtype)
            picked = values[event]
            picked[~present] = 0
            return picked

        time = take(self.time_ms)
        prior = _strictly_earlier(time)
        last = np.take_along_axis(time, np.maximum(prior - 1, 0), axis=1)
        gaps = gap_buckets(np.where(prior > 0, time - last, -1))
        flags, watched = [take(self.positive)[..., None], take(self.labels)], take(self.watched)
        actions = np.concatenate([*flags, watch_inputs(watched)], axis=-1).astype(np.float32)
        totals = np.pad(actions.cumsum(1), ((0, 0), (1, 0), (0, 0)))
        return EventArrays(
            lengths=lengths,
            video_rows=take(self.video_rows),
            actions=actions,
            prior=np.where(present, prior, 0),
            gaps=np.where(present, gaps, 0),
            hours=np.where(present, hours(time), 0),
            tallies=np.take_along_axis(totals, prior[..., None], axis=1) * present[..., None],
            context_rows=take(self.context_rows),
            trends=take(self.trends),
            user_rows=self._user_rows(first),
        )

    def _user_rows(self, starts: IntArray) -> IntArray:
        """What is known of the users whose events begin here or go on here (B, K)."""
        if not len(self):
            return np.zeros((len(starts), self.user_rows.shape[1]), np.int64)
        return self.user_rows[np.searchsorted(self.offsets[1:-1], starts, side="right")]


def _user_rows(table: pa.Table) -> IntArray:
    """(U, K); without the column K is 0."""
    if USER_ROWS not in table.column_names or not len(table):
        return np.zeros((len(table), 0), dtype=np.int64)
    lists = table.column(USER_ROWS).combine_chunks()
    return np.asarray(lists.flatten()).astype(np.int64).reshape(len(table), -1)


def _strictly_earlier(time_BL: IntArray) -> IntArray:
    """(B, L) how many entries of a sorted row are smaller than each.

    >>> _strictly_earlier(np.array([[5, 7, 7, 9]])).tolist()
    [[0, 1, 1, 3]]
    """
    new = np.ones(time_BL.shape, dtype=bool)
    new[:, 1:] = time_BL[:, 1:] != time_BL[:, :-1]
    return np.maximum.accumulate(np.where(new, np.arange(time_BL.shape[1]), 0), axis=1)


def cut_windows(
    starts: Sequence[int] | IntArray, stops: Sequence[int] | IntArray, longest: int
) -> tuple[IntArray, IntArray]:
    """Cuts spans of events into spans of at most `longest`, the last of each span whole.

    >>> [ends.tolist() for ends in cut_windows([0, 10], [7, 12], 3)]
    [[0, 1, 4, 10], [1, 4, 7, 12]]
    """
    first, last = [], []
    for start, stop in zip(starts, stops, strict=True):
        ends = np.arange(stop, start, -longest)[::-1]
        first.append(np.maximum(ends - longest, start))
        last.append(ends)
    if not first:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty
    return np.concatenate(first).astype(np.int64), np.concatenate(last).astype(np.int64)
