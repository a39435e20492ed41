"""What turns events into model inputs: one piece of code, used by training and by serving.

Shapes: U users, E events of all of them one after the other, B windows of timelines, L positions, T
ranking tasks, W numbers of how long a video was watched (2 or 0), A = 1 + T + W actions, C context
columns, F count features, J columns of user features.

What a user did with a video are its 1 + T flags, the positive flag and the tasks' labels, and its A
actions, which are the flags and how long it was watched.

A position's inputs hold only what was known before it: two events of the same time do not see each
other (`num_prior`), in training as in serving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.data import EventColumns
from recsys.data.places import Ids
from recsys.data.ragged import FloatArray, IntArray, NumberT, flat_values
from recsys.schema import COUNT_FEATURES, USER_ROWS

MS_PER_S = 1000
MS_PER_HOUR = 3600 * MS_PER_S
NUM_GAP_BUCKETS = 64
NUM_HOURS = 24
LOG_SCALE = 0.25
"""Puts the log of a count or a time into the size of the other features."""
MOST_SHARE = 2.0
"""Of a video that counts as watched: who loops it says no more than who watched it twice."""
CountFeatures = Callable[[IntArray, IntArray, IntArray], FloatArray]
"""Video rows (E,), context rows (E, C), times in ms (E,) -> count features (E, F)."""


@dataclass(frozen=True)
class FeaturesOnDemand:
    """The count features of E events, made of those that are asked for: (E, F) of an array.

    A partition's would take more room than all else that is known of its events, and of many events
    nobody asks.
    """

    make: CountFeatures
    width: int
    """F."""
    video_rows: IntArray
    context_rows: IntArray
    time_ms: IntArray

    @property
    def shape(self) -> tuple[int, int]:
        """(E, F)."""
        return len(self.video_rows), self.width

    def __getitem__(self, events: IntArray | slice) -> FloatArray:
        """Those of some events (R, F)."""
        return self.make(self.video_rows[events], self.context_rows[events], self.time_ms[events])


EventFeatures = FloatArray | FeaturesOnDemand
"""Count features (E, F), there or made when they are asked for."""


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
    inputs = watched.copy()
    inputs[..., :1] = np.log1p(watched[..., :1]) * LOG_SCALE
    return inputs


@dataclass(frozen=True)
class EventArrays:
    """Padded windows of timelines; positions from `lengths` on are padding (zeros)."""

    lengths: IntArray
    """(B,) events in each window."""
    video_rows: IntArray
    """(B, L)."""
    actions: npt.NDArray[np.float32]
    """(B, L, A): what the user did: the positive flag, the task labels, how long they watched."""
    num_prior: IntArray
    """(B, L): how many of the window's events are strictly earlier: the state to predict from."""
    gaps: IntArray
    """(B, L) bucket of the time since the last strictly earlier event."""
    hours: IntArray
    """(B, L) hour of the day."""
    tallies: npt.NDArray[np.float32]
    """(B, L, A): how often the user did each action in the strictly earlier events."""
    context_rows: IntArray
    """(B, L, C)."""
    count_features: FloatArray
    """(B, L, F) what was known of each video's counts when it was shown."""
    user_rows: IntArray
    """(B, J) what is known of the users."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Where there is an event and no padding: (B, L) bool."""
        return np.arange(self.video_rows.shape[1]) < self.lengths[:, None]


EVENT_FIELDS = (
    *("video_rows", "time_ms", "positive", "labels", "watched", "context_rows", "split"),
    "count_features",
)
"""The fields of `Timelines` with one entry an event."""


@dataclass(frozen=True)
class Timelines:
    """Timelines of some users, one after the other; `offsets` (U + 1,) says where each lies."""

    user_ids: Sequence[str]
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
    count_features: EventFeatures
    """(E, F) of `recsys.features.counts`, in the order of its `CountLayout`."""
    user_rows: IntArray
    """(U, J) rows of the vocabulary of user values; J is 0 without user features."""

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        columns: EventColumns,
        count_features: Callable[[IntArray, IntArray, IntArray], EventFeatures],
    ) -> Timelines:
        """Reads a table of `timeline_schema`.

        Args:
            table: With a column `USER_ROWS` it says what is known of the users.
            columns: Of the run.
            count_features: Makes the events' count features, as `EventCounts.features` and
                `EventCounts.on_demand` do.
        """
        events = _Columns(table)
        video_rows, time_ms = events.flat("video_row", np.int64), events.flat("time_ms", np.int64)
        num_events = len(video_rows)
        num_contexts = len(columns.context)
        context_rows = events.flat("context_rows", np.int64).reshape(num_events, num_contexts)
        return cls(
            user_ids=Ids(table.column("user_id")),
            offsets=events.offsets(),
            video_rows=video_rows,
            time_ms=time_ms,
            positive=events.flat("positive", np.int8),
            labels=events.flat("labels", np.int8).reshape(num_events, len(columns.tasks)),
            watched=events.flat("watched", np.float32).reshape(num_events, columns.watch_dim),
            context_rows=context_rows,
            split=events.flat("split", np.int8),
            count_features=count_features(video_rows, context_rows, time_ms),
            user_rows=_user_rows(table),
        )

    @classmethod
    def from_histories(
        cls, table: pa.Table, columns: EventColumns, *, num_count_features: int
    ) -> Timelines:
        """Reads a table of `history_schema`, which holds the count features."""
        stored = _Columns(table).flat(COUNT_FEATURES, np.float32)
        shape = (-1, num_count_features)
        return cls.from_table(table, columns, lambda *_: stored.reshape(shape))

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

        def take(values: npt.NDArray[NumberT]) -> npt.NDArray[NumberT]:
            if not len(values):
                return np.zeros((len(lengths), width, *values.shape[1:]), values.dtype)
            picked = values[event]
            picked[~present] = 0
            return picked

        time = take(self.time_ms)
        num_prior = _strictly_earlier(time)
        last = np.take_along_axis(time, np.maximum(num_prior - 1, 0), axis=1)
        gaps = gap_buckets(np.where(num_prior > 0, time - last, -1))
        flags, watched = [take(self.positive)[..., None], take(self.labels)], take(self.watched)
        actions = np.concatenate([*flags, watch_inputs(watched)], axis=-1).astype(np.float32)
        totals = np.pad(actions.cumsum(1), ((0, 0), (1, 0), (0, 0)))
        return EventArrays(
            lengths=lengths,
            video_rows=take(self.video_rows),
            actions=actions,
            num_prior=np.where(present, num_prior, 0),
            gaps=np.where(present, gaps, 0),
            hours=np.where(present, hours(time), 0),
            tallies=np.take_along_axis(totals, num_prior[..., None], axis=1) * present[..., None],
            context_rows=take(self.context_rows),
            count_features=_padded(self.count_features, event, present),
            user_rows=self._user_rows(first),
        )

    def _user_rows(self, starts: IntArray) -> IntArray:
        """What is known of the users whose events begin here or go on here (B, J)."""
        if not len(self):
            return np.zeros((len(starts), self.user_rows.shape[1]), np.int64)
        return self.user_rows[np.searchsorted(self.offsets[1:-1], starts, side="right")]


def join(timelines: Sequence[Timelines]) -> Timelines:
    """Timelines of several users, one after the other."""
    lengths = np.concatenate([np.diff(one.offsets) for one in timelines])
    fields = {
        name: np.concatenate([getattr(one, name) for one in timelines])
        for name in (*EVENT_FIELDS, "user_rows")
    }
    return Timelines(
        user_ids=[user_id for one in timelines for user_id in one.user_ids],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        **fields,
    )


def _padded(
    features: EventFeatures, event_BL: IntArray, present_BL: npt.NDArray[np.bool_]
) -> FloatArray:
    """The count features of some events (B, L, F), zeros where none is present."""
    padded = np.zeros((*event_BL.shape, features.shape[1]), np.float32)
    if present_BL.any():
        padded[present_BL] = features[event_BL[present_BL]]
    return padded


@dataclass(frozen=True)
class _Columns:
    """A table with a list of events in each row, read as flat arrays."""

    table: pa.Table

    def flat(self, name: str, dtype: type[NumberT]) -> npt.NDArray[NumberT]:
        """The values of all rows, one after the other."""
        return flat_values(self.table.column(name), dtype)

    def offsets(self) -> IntArray:
        """(U + 1,) where the events of each row begin."""
        lengths = np.asarray(pc.list_value_length(self.table.column("video_row")))
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _user_rows(table: pa.Table) -> IntArray:
    """What the table says of its users (U, J); without the column J is 0."""
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
    first, last = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
    pieces = -(-(last - first) // longest)
    span = np.repeat(np.arange(len(first)), pieces)
    still_to_come = np.cumsum(pieces)[span] - 1 - np.arange(len(span))
    ends = last[span] - still_to_come * longest
    return np.maximum(ends - longest, first[span]), ends
