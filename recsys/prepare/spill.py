"""The first pass of prepare: events are checked and spilled into partitions by a hash of the user.

The files are read in tasks of about `SPILL_ROWS` rows, so that many small files make few spilled
ones and a large file is read by many workers.
"""

from __future__ import annotations

import hashlib
import pickle
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.data import DataConfig
from recsys.config.run import RunConfig
from recsys.data.storage import join, replace_file
from recsys.data.values import MISSING_FLAG, as_durations, as_flags, as_ids
from recsys.data.vocab import DistinctIds
from recsys.errors import InputError
from recsys.prepare.tables import TableFile, column_names, event_roles, open_table
from recsys.prepare.times import EventTimes
from recsys.progress import progress

SPILL_ROWS = 1 << 17
MOST_TASKS = 1000
PIECE = ".arrow"
"""Ending of the files that events are spilled into."""
_CRC = np.array([zlib.crc32(bytes([0xFF ^ byte])) ^ 0xFF000000 for byte in range(256)], np.uint32)
"""What a byte does to a CRC-32."""
FEWEST_PARTITIONS = 16
PARTITION_ROWS = 1 << 20
"""Events of a partition that is chosen by size: about 0.3 GB while it is trained on."""
MOST_PARTITION_ROWS = 1 << 24
PIECES_AT_ONCE = 64
"""Partitions that `SPILL_ROWS` rows are spread over; more take more rows, for files of a few rows
would cost more than what they hold."""

Piece = tuple[str, tuple[int, ...]]
"""A file and some of its row groups."""


def plan_tasks(files: Iterable[TableFile]) -> list[list[Piece]]:
    """Cuts files at their row groups into tasks of at least `SPILL_ROWS` rows, but the last.

    >>> plan_tasks([TableFile("a", (1, SPILL_ROWS)), TableFile("b", (5,)), TableFile("c", (7,))])
    [[('a', (0, 1))], [('b', (0,)), ('c', (0,))]]
    """
    files = list(files)
    enough = max(SPILL_ROWS, sum(file.num_rows for file in files) // MOST_TASKS)
    tasks: list[dict[str, tuple[int, ...]]] = [{}]
    rows = 0
    for path, group_rows in files:
        for group, more in enumerate(group_rows):
            if rows >= enough:
                tasks.append({})
                rows = 0
            tasks[-1][path] = (*tasks[-1].get(path, ()), group)
            rows += more
    return [list(task.items()) for task in tasks]


class SpilledRow(TypedDict):
    """A row of the Ray dataset that the first pass gives."""

    spilled: bytes
    """A pickled `Spilled`; empty where there is a problem."""
    problem: str
    """What is wrong with the input; empty where nothing is."""


@dataclass
class Spilled:
    """What the first pass found, in one batch of events or in all."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by reason; the first of several counts."""
    read_otherwise: Counter[str] = field(default_factory=Counter)
    """Values taken for something that they do not say."""
    flags: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each flag column holds 1, 0 or nothing (`MISSING_FLAG`)."""
    newest_ms: int = 0
    """Time of the newest event that can be used, in milliseconds since 1970."""
    videos: DistinctIds = field(default_factory=DistinctIds)
    contexts: dict[str, set[str]] = field(default_factory=dict)
    """The values of each context column."""

    def to_row(self) -> dict[str, list[object]]:
        """Makes one row of a Ray dataset of it, a `SpilledRow` of lists of one value."""
        return {"spilled": [pickle.dumps(self)], "problem": [""]}

    @staticmethod
    def problem_row(error: InputError) -> dict[str, list[object]]:
        """Makes a row that has `from_row` raise the error in the driver."""
        return {"spilled": [b""], "problem": [str(error)]}

    @classmethod
    def from_row(cls, row: SpilledRow) -> Spilled:
        """Makes it again of what `to_row` gave.

        Raises:
            InputError: The row is a problem's.
        """
        if row["problem"]:
            raise InputError(row["problem"])
        spilled: Spilled = pickle.loads(row["spilled"])
        return spilled

    def add(self, other: Spilled) -> None:
        """Adds the counts and the ids of other events."""
        self.rows += other.rows
        self.dropped += other.dropped
        self.read_otherwise += other.read_otherwise
        self.flags += other.flags
        self.newest_ms = max(self.newest_ms, other.newest_ms)
        self.videos.add(other.videos.all())
        for name, values in other.contexts.items():
            self.contexts.setdefault(name, set()).update(values)


@dataclass(frozen=True)
class SpillEvents:
    """Checks events and writes them in pieces, one a partition of users.

    A piece is named by its content, so that a task that Ray runs twice writes it once.
    """

    data: DataConfig
    times: EventTimes
    tasks: Sequence[Sequence[Piece]]
    num_partitions: int
    spill: str

    def __call__(
        self, batch: dict[str, npt.NDArray[np.int64]]
    ) -> Iterator[dict[str, list[object]]]:
        """Takes the number of a task, gives what was found and what is wrong, if anything."""
        (number,) = batch["id"].tolist()
        try:
            for spilled in self._spill(self.tasks[number]):
                yield spilled.to_row()
        except InputError as error:
            yield Spilled.problem_row(error)

    def _spill(self, task: Sequence[Piece]) -> Iterator[Spilled]:
        spilled, waiting = Spilled(), []
        enough = SPILL_ROWS * -(-self.num_partitions // PIECES_AT_ONCE)
        for path, groups in task:
            for batch in self._batches(path, groups):
                try:
                    waiting.append(self.normal(batch, spilled))
                except InputError as error:
                    raise InputError(f"data.events={path}: {error}") from None
                if sum(map(len, waiting)) >= enough:
                    self._write(pa.concat_tables(waiting), spilled)
                    yield spilled
                    spilled, waiting = Spilled(), []
        if waiting:
            self._write(pa.concat_tables(waiting), spilled)
        yield spilled

    def _batches(self, path: str, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        names = column_names(event_roles(self.data))
        with open_table(path, "data.events") as table:
            yield from table.iter_batches(SPILL_ROWS, row_groups=list(groups), columns=names)

    def normal(self, batch: pa.RecordBatch, spilled: Spilled) -> pa.Table:
        """The events that can be used, with our column names and types; counts into `spilled`."""
        columns = self.data.columns
        ids = {
            "user_id": as_ids(batch.column(columns.user), columns.user),
            "video_id": as_ids(batch.column(columns.video), columns.video),
        }
        time_ms, no_time = self.times.read(batch.column(columns.time), columns.time)
        flags = {name: self._flags(batch, name, spilled) for name in flag_columns(self.data)}
        lacks = {
            "missing user": np.asarray(ids["user_id"].is_null()),
            "missing video": np.asarray(ids["video_id"].is_null()),
            "missing time": no_time,
            "impossible time": ~self.times.possible(time_ms),
            **{f"missing label {name}": flag < 0 for name, flag in flags.items()},
        }
        reason = np.select(list(lacks.values()), range(1, len(lacks) + 1), 0)
        counts = np.bincount(reason, minlength=len(lacks) + 1)
        spilled.rows += len(batch)
        spilled.dropped += Counter(dict(zip(lacks, counts[1:].tolist(), strict=True)))
        positive = np.ones(len(batch), np.int8)
        if columns.positive is not None:
            positive = flags[columns.positive]
        events: dict[str, object] = {**ids, "time_ms": time_ms, "positive": positive}
        events |= {f"label_{name}": flags[name] for name in columns.tasks}
        if columns.watched is not None:
            events["watched"] = as_durations(batch.column(columns.watched), columns.watched)
        for name in columns.context:
            events[f"context_{name}"] = as_ids(batch.column(name), name)
        table = pa.table(events)
        usable = table.filter(pa.array(reason == 0)) if reason.any() else table
        newest = pc.max(usable["time_ms"]).as_py() or 0
        spilled.newest_ms = max(spilled.newest_ms, newest)
        return self._with_watched(usable, spilled)

    def _flags(self, batch: pa.RecordBatch, name: str, spilled: Spilled) -> npt.NDArray[np.int8]:
        flags = as_flags(batch.column(name), name)
        counts = np.bincount(flags - MISSING_FLAG, minlength=3).tolist()
        spilled.flags += Counter(
            {(name, MISSING_FLAG + i): count for i, count in enumerate(counts)}
        )
        if self.data.missing_labels == "drop":
            return flags
        missing = flags == MISSING_FLAG
        spilled.read_otherwise[f"missing {name} as 0"] += int(missing.sum())
        return np.where(missing, 0, flags).astype(np.int8)

    def _with_watched(self, events: pa.Table, spilled: Spilled) -> pa.Table:
        """Where it is not known how long a video was watched, it counts as not at all."""
        if "watched" not in events.column_names:
            return events
        place = events.column_names.index("watched")
        watched = np.asarray(events.column(place))
        missing = np.isnan(watched)
        spilled.read_otherwise[f"missing {self.data.columns.watched} as 0"] += int(missing.sum())
        return events.set_column(place, "watched", pa.array(np.where(missing, 0, watched)))

    def _write(self, events: pa.Table, spilled: Spilled) -> None:
        part = _partition_of(events.column("user_id"), self.num_partitions)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(self.num_partitions + 1))
        for number in np.flatnonzero(np.diff(bounds)):
            piece = events.take(pa.array(order[bounds[number] : bounds[number + 1]]))
            name = hashlib.sha256(
                b"".join(bytes(b) for c in piece.columns for b in c.combine_chunks().buffers() if b)
            ).hexdigest()[:32]
            _write_piece(piece, join(self.spill, f"{number:05d}", f"{name}{PIECE}"))
        spilled.videos.add(pc.unique(events.column("video_id")))
        for name in self.data.columns.context:
            values = pc.unique(events.column(f"context_{name}")).drop_null()
            spilled.contexts[name] = set(values.to_pylist())


def flag_columns(data: DataConfig) -> list[str]:
    """The columns that say what came of an event: the positive one and the tasks, each once."""
    names = (data.columns.positive, *data.columns.tasks)
    return list(dict.fromkeys(name for name in names if name is not None))


def _write_piece(events: pa.Table, path: str) -> None:
    """Writes what is read once and then removed: as Arrow, which costs less than Parquet."""
    quick = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        replace_file(path, sync=False) as file,
        pa.ipc.new_file(file, events.schema, options=quick) as piece,
    ):
        piece.write_table(events)


def _partition_of(user_ids: pa.ChunkedArray, num_partitions: int) -> npt.NDArray[np.int64]:
    """Partition of each user: a hash that is the same on every machine and in every run."""
    coded = user_ids.combine_chunks().dictionary_encode()
    hashes = crc32s(coded.dictionary).astype(np.int64) % num_partitions
    return hashes[np.asarray(coded.indices)]


def crc32s(texts: pa.StringArray) -> npt.NDArray[np.uint32]:
    """`zlib.crc32` of each of many texts without nulls, in UTF-8.

    >>> crc32s(pa.array(["", "u1"])).tolist() == [zlib.crc32(b""), zlib.crc32(b"u1")]
    True
    """
    lists = texts.cast(pa.large_binary())
    _, offsets, data = lists.buffers()
    ends = np.frombuffer(offsets, np.int64)[lists.offset : lists.offset + len(lists) + 1]
    data = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    lengths = np.diff(ends)
    crc = np.full(len(lists), 0xFFFFFFFF, np.uint32)
    longest_first = np.argsort(-lengths, kind="stable")
    for place in range(int(lengths.max(initial=0))):
        # All texts that have a byte here, those that end before it no more.
        some = longest_first[: np.searchsorted(-lengths[longest_first], -place)]
        crc[some] = _CRC[(crc[some] ^ data[ends[some] + place]) & 0xFF] ^ (crc[some] >> 8)
    return ~crc


def num_partitions(wanted: int | None, num_rows: int) -> int:
    """How many partitions events of so many rows are spread over, where none are wanted.

    >>> num_partitions(None, 1000), num_partitions(None, 40 * PARTITION_ROWS + 1)
    (16, 41)

    Raises:
        InputError: With so few a partition would not fit into a worker's memory.
    """
    fewest = -(-num_rows // MOST_PARTITION_ROWS)
    if wanted is not None and wanted < fewest:
        raise InputError(
            f"prepare.partitions={wanted}: {num_rows:,} events need at least {fewest} partitions "
            f"of {MOST_PARTITION_ROWS:,}; leave the setting out or raise it"
        )
    return wanted or max(FEWEST_PARTITIONS, -(-num_rows // PARTITION_ROWS))


def spill_events(
    config: RunConfig,
    files: Sequence[TableFile],
    times: EventTimes,
    spill: str,
    *,
    num_partitions: int,
) -> Spilled:
    """Spills all events into so many partitions, as Ray tasks.

    Raises:
        InputError: A file or value is wrong, or no event can be used.
    """
    import ray

    tasks = plan_tasks(files)
    worker = SpillEvents(config.data, times, tasks, num_partitions, spill)
    dataset = ray.data.range(len(tasks), override_num_blocks=len(tasks))
    spilled = Spilled(contexts={name: set() for name in config.data.columns.context})
    total = sum(file.num_rows for file in files)
    with progress("prepare: reading events", total=total) as advance:
        for row in dataset.map_batches(worker, batch_size=1).iter_rows():
            part = Spilled.from_row(row)
            spilled.add(part)
            advance(part.rows)
    require_usable(spilled, config.data)
    return spilled


def require_usable(spilled: Spilled, data: DataConfig) -> None:
    """Refuses events of which none can be used, and labels that are never 0.

    Raises:
        InputError: With what to change.
    """
    for name in flag_columns(data):
        yes, no, missing = (spilled.flags[name, value] for value in (1, 0, MISSING_FLAG))
        if data.missing_labels == "drop" and yes and missing and not no:
            raise InputError(
                f"data.events={data.events}: column {name!r} holds 1 in {yes} rows, nothing in "
                f"{missing}, and never 0; if nothing means no, set data.missing_labels=zero"
            )
    if spilled.rows == spilled.dropped.total():
        reasons = ", ".join(f"{reason} {count}" for reason, count in spilled.dropped.items())
        raise InputError(
            f"data.events={data.events}: none of {spilled.rows} rows can be used ({reasons}); "
            "check data.columns"
        )
