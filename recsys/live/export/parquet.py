"""The log as Parquet: every column as it is, in parts by ranges of `seq`, and back again.

Notices of deletions travel along, so that who was forgotten stays forgotten where the parts of
before the deletion are imported again.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data.storage import join, list_files, open_input, replace_file
from recsys.errors import InputError
from recsys.live.log.entries import FORGET, NOTICES, user_mark
from recsys.live.log.event import EXPOSURE, VIEW, Event, check_time
from recsys.live.log.events import EventLog
from recsys.live.log.explored import Explored, ExploredVideos
from recsys.live.text import shown
from recsys.prepare.tables import parquet_files

ROWS_A_PART = 1_000_000
ROWS_A_PAGE = 10_000
ROWS_A_CALL = 1_000
PROPENSITY = "propensity"
PLAIN = (
    "user_id",
    "video_id",
    "creator_id",
    "event_id",
    "impression_id",
    "version",
    "place",
    "watched",
)
"""Columns whose values an event has as they are."""
MARK = re.compile("[0-9a-f]{32}")
PART = re.compile(r"events-(\d{12})-(\d{12})\.parquet")


def log_schema() -> pa.Schema:
    """The log's columns; `labels` and `context` are JSON texts."""
    texts = ("event_id", "user_id", "type", "video_id", "creator_id")
    times = ("time_ms", "given_ms", "received_ms")
    more = ("labels", "context", "impression_id", "version")
    return pa.schema(
        [("seq", pa.int64())]
        + [(name, pa.string()) for name in texts]
        + [(name, pa.int64()) for name in times]
        + [("positive", pa.int8()), ("watched", pa.float64())]
        + [(name, pa.string()) for name in more]
        + [("place", pa.int32())]
    )


def part_schema() -> pa.Schema:
    """Of a part: the log's columns, and of an exposure that was explored its propensity."""
    return log_schema().append(pa.field(PROPENSITY, pa.float64()))


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    rows: int
    parts: int
    latest_seq: int
    """Up to where the folder now holds the log."""


def export_log(
    log: EventLog, out: str, *, up_to_seq: int | None = None, rows_a_part: int = ROWS_A_PART
) -> Exported:
    """Writes the log into a folder, from where an earlier export into it ended.

    Each part is whole or not there, and is named by the range of `seq` that it covers.

    Args:
        log: Open.
        out: Folder, a path or URI.
        up_to_seq: The last row; the newest without it.
        rows_a_part: Most rows of a part.

    Raises:
        InputError: Parts of another log lie in the folder.
    """
    last = log.latest_seq() if up_to_seq is None else up_to_seq
    start = after = _exported_up_to(out)
    if start > log.latest_seq():
        raise InputError(
            f"{out}: has parts up to seq {start}, and the log ends at {log.latest_seq()}: they are "
            "of another log; export into another folder"
        )
    rows = parts = 0
    while first := log.rows_after(after, 1, up_to_seq=last):
        after = first[0].seq - 1  # what was deleted leaves gaps
        upper = min(after + rows_a_part, last)
        rows += _write_part(log, out, after, upper)
        parts, after = parts + 1, upper
    return Exported(rows, parts, after)


def _exported_up_to(out: str) -> int:
    names = (PART.fullmatch(path.rpartition("/")[2]) for path in list_files(out, ".parquet"))
    return max((int(match[2]) for match in names if match), default=0)


def _write_part(log: EventLog, out: str, after: int, upper: int) -> int:
    """Writes the rows of `seq` in (after, upper], a page at a time, and gives their number."""
    schema, written, explored = part_schema(), 0, ExploredVideos(log.database)
    of_log = log_schema().names
    path = join(out, f"events-{after + 1:012d}-{upper:012d}.parquet")
    with (
        replace_file(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while page := log.rows_after(after, ROWS_A_PAGE, up_to_seq=upper):
            columns = {name: [getattr(row, name) for row in page] for name in of_log}
            likely = explored.propensities({row.impression_id for row in page})
            columns[PROPENSITY] = [
                likely.get((row.impression_id, row.video_id)) if row.type == EXPOSURE else None
                for row in page
            ]
            writer.write_table(pa.table(columns, schema=schema))
            written, after = written + len(page), page[-1].seq
    return written


@dataclass
class Imported:
    """What became of the rows of an import."""

    files: int = 0
    ignored: list[str] = field(default_factory=list)
    """Columns that no event has."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Number of rows by `Status`."""
    forgotten_users: int = 0
    """Deletions that this log did not know of."""
    deleted: int = 0
    """Events that were deleted here because of them."""


def import_log(log: EventLog, spec: str) -> Imported:
    """Reads Parquet files into the log; what is there already is not taken twice.

    A file needs `user_id` and `video_id`; it may have the columns of `part_schema`. Notices come
    first, so that events of forgotten users are not taken from any of the files.

    Args:
        log: Open.
        spec: Path, glob, folder or URI.

    Raises:
        InputError: A file or a row is wrong; the rows before it are in the log, and the corrected
            file can be imported again.
    """
    files = parquet_files(spec, "import")
    imported, explored = Imported(files=len(files)), ExploredVideos(log.database)
    marks = _forgotten_in(files, log.clock())
    known = log.forgotten_marks() if marks else {}
    new = {mark: time_ms for mark, time_ms in marks.items() if known.get(mark, -1) < time_ms}
    if new:
        imported.forgotten_users = len(new)
        users = [user for user in all_users(log) if user_mark(user) in new]
        imported.deleted = log.forget_marks(new, users)
    for path in files:
        imported.ignored += sorted(
            set(_names(path)) - set(part_schema().names) - set(imported.ignored)
        )
        for batch, first in _batches(path, ROWS_A_CALL):
            try:
                events, received = _to_events(batch, log.clock())
                imported.statuses.update(log.append(events, received_ms=received).statuses)
                explored.add(_to_explored(batch))
            except InputError as error:
                rows = f"rows {first + 1} to {first + len(batch)}"
                raise InputError(f"{path}: {rows}: {error}") from None
    return imported


def all_users(log: EventLog) -> Iterator[str]:
    """Every user with events, read in pages."""
    after = ""
    while page := log.user_ids(after):
        yield from page
        after = page[-1]


def _forgotten_in(files: list[str], now_ms: int) -> dict[str, int]:
    """`user_mark` → time, of the notices in files.

    Raises:
        InputError: A notice holds no such mark, or a time that cannot be.
    """
    marks: dict[str, int] = {}
    wanted = ["type", "user_id", "time_ms"]
    for path in files:
        if not set(wanted) <= set(_names(path)):
            continue
        for batch, _ in _batches(path, ROWS_A_PAGE, only=wanted):
            for row in batch.filter(pc.equal(batch.column("type"), FORGET)).to_pylist():
                mark, time_ms = row["user_id"], row["time_ms"]
                if not MARK.fullmatch(mark or ""):
                    raise InputError(
                        f"{path}: user_id={shown(mark)}: no notice of a forgotten user"
                    )
                marks[mark] = max(check_time(time_ms, now_ms), marks.get(mark, 0))
    return marks


def _to_events(table: pa.Table, now_ms: int) -> tuple[list[Event], list[int]]:
    """The events of a table, and when each was received."""
    events, received = [], []
    for row in table.to_pylist():
        kind = row.pop("type", None) or VIEW
        if kind in NOTICES:
            continue
        time_ms = row.pop("time_ms", None)
        received_ms = row.pop("received_ms", None)
        if received_ms is None:
            received_ms, given_ms = now_ms, time_ms
        else:
            check_time(received_ms, now_ms, "received_ms")
            given_ms = row.pop("given_ms", time_ms)
        positive = row.pop("positive", None)
        events.append(
            Event(
                type=kind,
                time_ms=given_ms,
                positive=None if positive is None else bool(positive),
                labels=_from_json(row.pop("labels", None), "labels"),
                context=_from_json(row.pop("context", None), "context"),
                **{name: value for name, value in row.items() if name in PLAIN},
            )
        )
        received.append(received_ms)
    return events, received


def _to_explored(table: pa.Table) -> list[Explored]:
    """What a table says of how likely its exposures were.

    Raises:
        InputError: A value is no probability, or stands beside no impression.
    """
    if PROPENSITY not in table.column_names:
        return []
    explored = []
    for row in table.filter(pc.is_valid(table.column(PROPENSITY))).to_pylist():
        likely, impression_id = row[PROPENSITY], row.get("impression_id")
        if not isinstance(likely, float) or not 0 < likely <= 1:
            raise InputError(f"{PROPENSITY}={shown(likely)}: must be above 0 and at most 1")
        if impression_id is None or row.get("time_ms") is None:
            raise InputError(f"{PROPENSITY}: needs an impression_id and a time_ms; add them")
        ids = str(impression_id), str(row["video_id"]), str(row["user_id"])
        explored.append(Explored(*ids, row["time_ms"], likely))
    return explored


def _from_json(text: str | None, name: str) -> Any:
    """What a JSON text holds; whether an event can have it is checked with the event."""
    try:
        return json.loads(text) if text else {}
    except (TypeError, ValueError):
        raise InputError(f"{name}={shown(text)}: must be JSON, e.g. {{}}") from None


def _open(path: str, stack: contextlib.ExitStack) -> pq.ParquetFile:
    file = stack.enter_context(open_input(path))
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        message = str(error).splitlines()[0]
        raise InputError(f"{path}: not a Parquet file ({message})") from None


def _names(path: str) -> list[str]:
    """The columns of a file, which must have those that every event needs."""
    with contextlib.ExitStack() as stack:
        names: list[str] = _open(path, stack).schema_arrow.names
    for name in ("user_id", "video_id"):
        if name not in names:
            raise InputError(f"{path}: there is no column {name!r}; it has {', '.join(names)}")
    return names


def _batches(path: str, size: int, only: list[str] | None = None) -> Iterator[tuple[pa.Table, int]]:
    """Pieces of a file, with the number of rows before each."""
    with contextlib.ExitStack() as stack:
        first = 0
        for batch in _open(path, stack).iter_batches(size, columns=only):
            yield pa.Table.from_batches([batch]), first
            first += len(batch)
