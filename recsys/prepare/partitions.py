"""The second pass of prepare: the timelines of one partition of users at a time.

Shapes: S splits (training, validation, test), R videos of the partition, N video rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.data import EventColumns
from recsys.config.run import RunConfig
from recsys.data.ragged import IntArray, Ragged
from recsys.data.run_folder import RunFolder
from recsys.data.storage import join, list_files, open_input, write_table
from recsys.data.users import UserRows, row_lists
from recsys.data.vocab import Vocab
from recsys.features.timelines import share_watched
from recsys.prepare.hourly_parts import CountedEvents, write_part
from recsys.prepare.spill import PIECE
from recsys.progress import progress
from recsys.schema import TEST, TRAIN, USER_ROWS, VALID, timeline_schema

if TYPE_CHECKING:
    import ray

NO_TIME = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PartitionCounts:
    """What the timelines of one partition hold; R videos, those that occur in it."""

    number: int
    """The partition's."""
    users: int
    single_event_users: int
    last_time_ms: int
    """0 where there is no event."""
    video_rows_R: IntArray
    first_time_R: IntArray
    """Time of each video's first event."""
    events_SR: IntArray
    """(3, R) events of each split."""
    positives_SR: IntArray
    """(3, R)."""

    @classmethod
    def empty(cls, number: int) -> PartitionCounts:
        """Makes the counts of a partition without events: no user and no video (R = 0)."""
        nothing, by_split = np.zeros(0, dtype=np.int64), np.zeros((3, 0), dtype=np.int64)
        return cls(number, 0, 0, 0, nothing, nothing, by_split, by_split)

    @classmethod
    def of(
        cls,
        number: int,
        offsets: IntArray,
        rows: IntArray,
        time: IntArray,
        split: npt.NDArray[np.int8],
        positive: npt.NDArray[np.int8],
    ) -> PartitionCounts:
        """Counts E events; `offsets` (U + 1,) say where each user's begin."""
        videos, code = np.unique(rows.astype(np.int64), return_inverse=True)
        first = np.full(len(videos), NO_TIME)
        np.minimum.at(first, code, time.astype(np.int64))
        events = np.zeros((3, len(videos)), dtype=np.int64)
        positives = np.zeros_like(events)
        np.add.at(events, (split, code), 1)
        np.add.at(positives, (split, code), positive)
        lengths, last = np.diff(offsets), int(time.max(initial=0))
        single = int((lengths == 1).sum())
        return cls(number, len(lengths), single, last, videos, first, events, positives)

    def to_row(self) -> dict[str, list[object]]:
        """Makes one row of a Ray dataset of it: a list of one value a column, arrays flattened."""
        flat = {name: np.ravel(value) for name, value in vars(self).items() if np.ndim(value)}
        return {name: [value] for name, value in {**vars(self), **flat}.items()}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> PartitionCounts:
        """Makes the counts again of a row of the dataset that `to_row` began."""
        numbers: dict[str, Any] = {
            name: np.asarray(row[name], dtype=np.int64) if name.endswith("R") else row[name]
            for name in (each.name for each in fields(cls))
        }
        by_split = {name: numbers[name].reshape(3, -1) for name in numbers if name.endswith("_SR")}
        return cls(**{**numbers, **by_split})


@dataclass
class SplitCounts:
    """What the timelines hold, summed over partitions; N videos, row 0 among them."""

    first_time_N: IntArray
    """Time of a video's first event, `NO_TIME` where it has none."""
    events_SN: IntArray
    """(3, N) events of each split."""
    positives_SN: IntArray
    """(3, N)."""
    users: int = 0
    single_event_users: int = 0
    timelines: list[int] = field(default_factory=list)
    """Users in each partition."""
    first_time_ms: int = NO_TIME
    last_time_ms: int = 0

    @classmethod
    def empty(cls, num_videos: int) -> SplitCounts:
        """Makes counts of N videos to which no partition was added yet."""
        zeros = np.zeros((3, num_videos), dtype=np.int64)
        return cls(np.full(num_videos, NO_TIME), zeros, zeros.copy())

    def add(self, part: PartitionCounts) -> None:
        """Adds the counts of one partition; each is added once."""
        self.users += part.users
        self.single_event_users += part.single_event_users
        videos = part.video_rows_R
        if len(videos):
            self.first_time_N[videos] = np.minimum(self.first_time_N[videos], part.first_time_R)
            self.events_SN[:, videos] += part.events_SR
            self.positives_SN[:, videos] += part.positives_SR
            self.first_time_ms = min(self.first_time_ms, int(part.first_time_R.min()))
            self.last_time_ms = max(self.last_time_ms, part.last_time_ms)

    @property
    def splits(self) -> tuple[int, int, int]:
        """Events in training, validation and test."""
        train, valid, test = self.events_SN.sum(1).tolist()
        return train, valid, test


@dataclass(frozen=True)
class BuildTimelines:
    """Makes the timelines of one partition: deduplicated, ordered, split, ids mapped."""

    spill: str
    timelines: str
    """The folder that they are written into."""
    columns: EventColumns
    cuts_ms: tuple[float, float] | None
    vocabs: ray.ObjectRef[dict[str, Vocab]]
    """By name."""
    durations: ray.ObjectRef[npt.NDArray[np.float64]]
    """Of the videos (N,), in the user's unit; NaN where unknown."""
    users: ray.ObjectRef[UserRows | None]
    things: ray.ObjectRef[dict[str, Ragged]]
    """The rows of each counted thing that each video belongs to."""

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, list[object]]:
        """Takes the number of the partition, gives the row of its `PartitionCounts`."""
        import ray

        (number,) = batch["id"].tolist()
        pieces = list_files(join(self.spill, f"{number:05d}"), PIECE)
        vocabs: dict[str, Vocab] = ray.get(self.vocabs)
        events = sort_events(_read(pieces)) if pieces else None
        path = join(self.timelines, f"part-{number:05d}.parquet")
        if events is None:
            write_table(timeline_schema().empty_table(), path)
            return PartitionCounts.empty(number).to_row()
        unique = events.filter(pa.array(first_of_each(events)))
        users, offsets = users_of(unique.column("user_id").combine_chunks())
        time = np.asarray(unique.column("time_ms"))
        positive = np.asarray(unique.column("positive"))
        split = (
            split_by_time(time, self.cuts_ms)
            if self.cuts_ms
            else split_leave_one_out(positive, offsets)
        )
        rows = vocabs["video"].rows(unique.column("video_id"))
        labels = [np.asarray(unique.column(f"label_{name}")) for name in self.columns.tasks]
        watched = []
        if self.columns.watched is not None:
            times = np.asarray(unique.column("watched"))
            watched = [times, share_watched(times, ray.get(self.durations)[rows])]
        context = [
            vocabs[f"context_{name}"].rows(unique.column(f"context_{name}"))
            for name in self.columns.context
        ]
        table = pa.table(
            [
                users,
                _lists(offsets, rows, pa.int32()),
                _lists(offsets, time, pa.int64()),
                _lists(offsets, positive, pa.int8()),
                _wide_lists(offsets, labels, pa.int8()),
                _wide_lists(offsets, watched, pa.float32()),
                _wide_lists(offsets, context, pa.int32()),
                _lists(offsets, split, pa.int8()),
            ],
            schema=timeline_schema(),
        )
        known: UserRows | None = ray.get(self.users)
        if known is not None:
            table = table.append_column(USER_ROWS, row_lists(known.of(users)))
        write_table(table, path)
        self._write_counts(number, CountedEvents(rows, context, time, [positive, *labels]), split)
        return PartitionCounts.of(number, offsets, rows, time, split, positive).to_row()

    def _write_counts(
        self, number: int, events: CountedEvents, split: npt.NDArray[np.int8]
    ) -> None:
        """The partition's part of the hourly counts.

        Without one cut for everybody, what is tested of one user may lie before what another one
        learns from: only training events are counted then.
        """
        import ray

        if self.cuts_ms is None:
            events = events.take(np.flatnonzero(split == TRAIN))
        write_part(events, self.columns, ray.get(self.things), self.spill, number)


def _read(pieces: list[str]) -> pa.Table:
    tables = []
    for path in pieces:
        with open_input(path) as file:
            tables.append(pa.ipc.open_file(file).read_all())
    return pa.concat_tables(tables)


def sort_events(events: pa.Table) -> pa.Table:
    """By user, time and video; of events that are told apart by nothing else, positives first."""
    keys = [("user_id", "ascending"), ("time_ms", "ascending"), ("video_id", "ascending")]
    rest = [name for name in events.column_names if name not in dict(keys)]
    ranked = events
    for name in ("user_id", "video_id"):
        ranks = pa.array(_ranks(events.column(name)))
        ranked = ranked.set_column(events.column_names.index(name), name, ranks)
    order = pc.sort_indices(ranked, [*keys, *((name, "descending") for name in rest)])
    return events.take(order).combine_chunks()


def _ranks(ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """The place of each id among all different ones in order: numbers are sorted faster."""
    coded = ids.combine_chunks().dictionary_encode()
    order = np.asarray(pc.sort_indices(coded.dictionary))
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order))
    return ranks[np.asarray(coded.indices)]


def first_of_each(events: pa.Table) -> npt.NDArray[np.bool_]:
    """True for the first of the sorted events with the same user, time and video."""
    new = np.zeros(len(events), dtype=bool)
    for name in ("user_id", "time_ms", "video_id"):
        new |= _differs(events.column(name).combine_chunks())
    return new


def users_of(user_ids: pa.Array) -> tuple[pa.Array, IntArray]:
    """The users of sorted events, and where each one's events start (U + 1,)."""
    starts = np.flatnonzero(_differs(user_ids))
    return user_ids.take(pa.array(starts)), np.append(starts, len(user_ids)).astype(np.int64)


def _differs(values: pa.Array) -> npt.NDArray[np.bool_]:
    """True where a value is not that before it; the first has none before it."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return new


def split_by_time(
    time_ms: npt.NDArray[np.int64], cuts_ms: tuple[float, float]
) -> npt.NDArray[np.int8]:
    """Splits by one cut for everybody.

    >>> split_by_time(np.array([1, 5, 9]), (5, 9)).tolist()
    [0, 1, 2]
    """
    valid, test = cuts_ms
    return np.where(time_ms < valid, TRAIN, np.where(time_ms < test, VALID, TEST)).astype(np.int8)


def split_leave_one_out(positive: npt.NDArray[np.int8], offsets: IntArray) -> npt.NDArray[np.int8]:
    """A user's last positive event is the test, the one before the validation.

    What follows them belongs to them. Of two positives one is learnt from and one tested; of one,
    none is tested.

    >>> split_leave_one_out(np.array([1, 1, 0, 1, 1]), np.array([0, 5])).tolist()
    [0, 0, 0, 1, 2]
    """
    liked = np.flatnonzero(positive)
    ends = np.searchsorted(liked, offsets)
    counts, last = np.diff(ends), ends[1:]
    valid_from, test_from = offsets[1:].copy(), offsets[1:].copy()
    valid_from[counts >= 3] = liked[last[counts >= 3] - 2]
    test_from[counts >= 2] = liked[last[counts >= 2] - 1]
    event, lengths = np.arange(len(positive)), np.diff(offsets)
    valid_from, test_from = np.repeat(valid_from, lengths), np.repeat(test_from, lengths)
    return np.where(event >= test_from, TEST, np.where(event >= valid_from, VALID, TRAIN)).astype(
        np.int8
    )


def _lists(offsets: IntArray, values: npt.NDArray[np.number], kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(values).cast(kind), type=pa.list_(kind)
    )


def _wide_lists(
    offsets: IntArray, columns: Sequence[npt.NDArray[np.number]], kind: pa.DataType
) -> pa.Array:
    """Lists of len(columns) values an event, event by event."""
    values = np.stack(columns, 1).ravel() if columns else np.zeros(0, dtype=np.int64)
    return _lists(offsets * len(columns), values, kind)


def write_timelines(
    config: RunConfig,
    *,
    spill: str,
    total: int,
    vocabs: dict[str, Vocab],
    durations: npt.NDArray[np.float64],
    things: dict[str, Ragged],
    cuts_ms: tuple[float, float] | None,
    users: UserRows | None = None,
) -> SplitCounts:
    """Writes the timelines of all `total` partitions, as Ray tasks, and sums up what they hold."""
    import ray

    build = BuildTimelines(
        spill=spill,
        timelines=RunFolder(config.run).timelines,
        columns=config.data.columns,
        cuts_ms=cuts_ms,
        vocabs=ray.put(vocabs),
        durations=ray.put(durations),
        users=ray.put(users),
        things=ray.put(things),
    )
    dataset = ray.data.range(total, override_num_blocks=total).map_batches(build, batch_size=1)
    counts = SplitCounts.empty(len(vocabs["video"]))
    sizes = [0] * total
    with progress("prepare: writing timelines", total=total) as advance:
        for row in dataset.iter_rows():
            part = PartitionCounts.from_row(row)
            sizes[part.number] = part.users
            counts.add(part)
            advance(1)
    counts.timelines = sizes
    return counts
