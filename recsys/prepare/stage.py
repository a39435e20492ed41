"""prepare: the user's Parquet in, a catalogue, vocabularies and per-user timelines out.

Two streaming passes by Ray Data, so that the events never need to fit in memory: the first checks
the events and spills them into partitions by a hash of the user, the second makes the timelines of
one partition at a time. The catalogue and its vocabulary are held by the driver.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys import cluster
from recsys.config.data import DataConfig
from recsys.config.run import RunConfig
from recsys.data.storage import join, open_input, remove, write_table
from recsys.data.users import UserRows
from recsys.data.vectors import write_vectors
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.prepare import partitions, tables
from recsys.prepare.catalogs import UserDraft, build_catalog, read_users
from recsys.progress import progress

SPILL_ROWS = 1 << 17
SPILL, VECTORS = ".spill", "vectors.npy"
TABLES = ("timelines", "vocab", "videos.parquet", VECTORS, "users.parquet", "counts")
PARTS = ("report.json", *TABLES, SPILL)
"""What prepare writes into its folder, and all that it ever removes from it."""


@dataclass(frozen=True)
class SpillEvents:
    """Checks a batch of events and writes it in pieces, one a partition of users.

    A piece is named by its content, so that a task that Ray runs twice writes it once.
    """

    data: DataConfig
    unit: str
    num_partitions: int
    spill: str

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row that sums the batch up: counts, ids seen, and what is wrong, if anything."""
        columns = self.data.columns
        try:
            events, dropped = self._normal(batch)
        except InputError as error:
            return _summary(problem=f"data.events={self.data.events}: {error}")
        part = _partition_of(events.column("user_id"), self.num_partitions)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(self.num_partitions + 1))
        for number in np.flatnonzero(np.diff(bounds)):
            piece = events.take(pa.array(order[bounds[number] : bounds[number + 1]]))
            name = hashlib.sha256(
                b"".join(bytes(b) for c in piece.columns for b in c.combine_chunks().buffers() if b)
            ).hexdigest()[:32]
            write_table(piece, join(self.spill, f"{number:05d}", f"{name}.parquet"))
        contexts = [pc.unique(events.column(f"context_{name}")) for name in columns.context]
        return _summary(
            rows=len(batch),
            dropped=dropped,
            videos=pc.unique(events.column("video_id")).to_pylist(),
            contexts=[[value for value in c.to_pylist() if value is not None] for c in contexts],
        )

    def _normal(self, batch: pa.Table) -> tuple[pa.Table, int]:
        """The batch with our column names and types, without rows that lack an id or a time."""
        columns = self.data.columns
        there = pa.array(np.ones(len(batch), dtype=bool))
        for name in (columns.user, columns.video, columns.time):
            there = pc.and_(there, pc.is_valid(batch.column(name)))
        whole = batch.filter(there)
        out: dict[str, Any] = {
            "user_id": tables.as_ids(whole.column(columns.user)),
            "video_id": tables.as_ids(whole.column(columns.video)),
            "time_ms": tables.as_time_ms(whole.column(columns.time), self.unit),
            "positive": np.ones(len(whole), dtype=np.int8),
        }
        if columns.positive is not None:
            out["positive"] = tables.as_flags(whole.column(columns.positive), columns.positive)
        for name in columns.tasks:
            out[f"label_{name}"] = tables.as_flags(whole.column(name), name)
        if columns.watched is not None:
            watched = whole.column(columns.watched)
            out["watched"] = tables.as_durations(watched, columns.watched)
        for name in columns.context:
            out[f"context_{name}"] = tables.as_ids(whole.column(name))
        return pa.table(out), len(batch) - len(whole)


def _summary(
    *,
    rows: int = 0,
    dropped: int = 0,
    videos: list[str] | None = None,
    contexts: list[list[str]] | None = None,
    problem: str | None = None,
) -> pa.Table:
    schema = pa.schema(
        [
            ("rows", pa.int64()),
            ("dropped", pa.int64()),
            ("videos", pa.list_(pa.string())),
            ("contexts", pa.list_(pa.list_(pa.string()))),
            ("problem", pa.string()),
        ]
    )
    row = {"rows": rows, "dropped": dropped, "videos": videos or [], "contexts": contexts or []}
    return pa.Table.from_pylist([{**row, "problem": problem}], schema=schema)


def _partition_of(user_ids: pa.ChunkedArray, num_partitions: int) -> npt.NDArray[np.int64]:
    """Partition of each user: a hash that is the same on every machine and in every run."""
    coded = user_ids.combine_chunks().dictionary_encode()
    hashes = [zlib.crc32(user.encode()) % num_partitions for user in coded.dictionary.to_pylist()]
    return np.asarray(hashes, dtype=np.int64)[np.asarray(coded.indices)]


@dataclass
class Spilled:
    """What the first pass found."""

    rows: int
    dropped: int
    videos: set[str]
    contexts: list[set[str]]


def prepare(config: RunConfig, out: str) -> dict[str, Any]:
    """Runs the stage into the folder `out` and returns its report.

    Raises:
        InputError: A file, column, type or value is wrong, or nothing is left to learn from.
    """
    data = config.data
    files, unit = tables.check_events(data, tables.parquet_files(data.events, "data.events"))
    users = read_users(data)
    build_catalog(data, ())  # its mistakes show before the long part
    cuts = tables.cuts_ms(config.split, unit)
    cluster.connect()
    for part in PARTS:
        remove(join(out, part))
    try:
        return _prepare(config, out, files=files, unit=unit, cuts=cuts, users=users)
    finally:
        remove(join(out, SPILL))


def _prepare(
    config: RunConfig,
    out: str,
    *,
    files: list[str],
    unit: str,
    cuts: tuple[float, float] | None,
    users: UserDraft,
) -> dict[str, Any]:
    data, spill = config.data, join(out, SPILL)
    spilled = _spill(config, files, unit, spill)
    if spilled.rows == spilled.dropped:
        raise InputError(
            f"data.events={data.events}: in all {spilled.rows} rows the user, the video or the "
            "time is missing; check data.columns"
        )
    catalog = build_catalog(data, spilled.videos)
    catalog.vocabs.update(
        {
            f"context_{name}": Vocab(sorted(seen))
            for name, seen in zip(data.columns.context, spilled.contexts, strict=True)
        }
    )
    known = UserRows.from_table(users.table)
    counts = partitions.write_timelines(
        config,
        out=out,
        spill=spill,
        vocabs=catalog.vocabs,
        durations=catalog.durations,
        cuts_ms=cuts,
        users=known,
    )
    require_events(counts, config)
    partitions.write_counts(config, out=out, spill=spill)
    if known is not None:
        catalog.vocabs["user"] = users.values
    for name, vocab in catalog.vocabs.items():
        vocab.write(join(out, "vocab", f"{name}.parquet"))
    write_table(catalog.with_counts(counts), join(out, "videos.parquet"))
    if catalog.vectors is not None:
        write_vectors(catalog.vectors, join(out, VECTORS))
    write_table(users.table, join(out, "users.parquet"))
    return {"time_unit": unit, **_event_report(spilled, counts), **catalog.report(counts)}


def _event_report(spilled: Spilled, counts: partitions.SplitCounts) -> dict[str, Any]:
    """What became of the events."""
    duplicates = spilled.rows - spilled.dropped - sum(counts.splits)
    return {
        "rows": spilled.rows,
        "dropped": {"missing id or time": spilled.dropped, "duplicate": duplicates},
        "events": dict(zip(("train", "valid", "test"), counts.splits, strict=True)),
        "users": counts.users,
        "users_with_one_event": counts.single_event_users,
        "partitions": counts.timelines,
    }


def _spill(config: RunConfig, files: list[str], unit: str, spill: str) -> Spilled:
    import ray

    columns = list(tables.event_columns(config.data))
    worker = SpillEvents(config.data, unit, config.prepare.partitions, spill)
    dataset = ray.data.read_parquet(files, columns=columns).map_batches(
        worker, batch_format="pyarrow", batch_size=SPILL_ROWS, zero_copy_batch=True
    )
    found = Spilled(0, 0, set(), [set() for _ in config.data.columns.context])
    total = sum(_num_rows(path) for path in files)
    with progress("prepare: reading events", total=total) as advance:
        for row in dataset.iter_rows():
            if row["problem"]:
                raise InputError(row["problem"])
            found.rows += row["rows"]
            found.dropped += row["dropped"]
            found.videos.update(row["videos"])
            for seen, values in zip(found.contexts, row["contexts"], strict=False):
                seen.update(values)
            advance(row["rows"])
    return found


def _num_rows(path: str) -> int:
    with open_input(path) as file:
        return int(pq.read_metadata(file).num_rows)


def require_events(counts: partitions.SplitCounts, config: RunConfig) -> None:
    """Refuses a split that leaves nothing to learn from, to choose by or to measure on.

    Raises:
        InputError: A part of the split has no events, or no positive ones.
    """
    names = ("train", "valid", "test")
    positives: list[int] = counts.positives_SN.sum(1).tolist()
    for kind, numbers in (("events", counts.splits), ("positive events", positives)):
        for name, number in zip(names, numbers, strict=True):
            if not number:
                there = ", ".join(f"{n} {i}" for n, i in zip(names, numbers, strict=True))
                raise InputError(
                    f"data.events={config.data.events}: no {name} {kind} ({kind}: {there}); "
                    f"{_remedy(counts, config)}"
                )


def _remedy(counts: partitions.SplitCounts, config: RunConfig) -> str:
    split = config.split
    if split.kind == "leave_one_out":
        return (
            "split.kind=leave_one_out tests users with 2 positive events and validates with 3; "
            "check data.columns.positive or take split.kind=time"
        )
    return (
        f"split.valid_from={split.valid_from} and split.test_from={split.test_from}, and events "
        f"lie from {counts.first_time_ms} to {counts.last_time_ms} ms; move the cuts or check "
        "data.columns.positive"
    )
