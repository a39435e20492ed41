"""The log's showings as one Parquet file, in the columns that `data.columns` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.data import EventColumns
from recsys.data.storage import replace_file
from recsys.errors import InputError
from recsys.live.attribution.outcomes import Outcome, outcome
from recsys.live.attribution.showings import Showing, showings
from recsys.live.log.event import Event
from recsys.live.log.events import EventLog
from recsys.live.log.explored import ExploredVideos, Shown
from recsys.prepare.showings import Showings

USERS_A_PAGE = 500
OTHERS = (
    "event_type",
    "not_interested",
    "creator_id",
    "impression_id",
    "version",
    "place",
    "propensity",
)
"""Columns beside those that a run's config names."""
NOT_POSITIVE = "not positive, and there is no data.columns.positive"
PER_MS = {"s": 1e-3, "us": 1_000, "ns": 1_000_000}
"""Of time units other than a millisecond."""


def default_columns(tasks: Sequence[str] = (), context: Sequence[str] = ()) -> EventColumns:
    """Columns for a log without a run's config."""
    return EventColumns(
        time="time_ms",
        positive="positive",
        watched="watched",
        tasks=tuple(tasks),
        context=tuple(context),
    )


def export_training(
    log: EventLog, out: str, columns: EventColumns, *, time_unit: str = "auto"
) -> Showings:
    """Writes one row a showing, exposures that came to nothing included, user by user.

    The file takes its place only when it is whole. What is committed meanwhile is not in it.

    Args:
        log: Open.
        out: The file, a path or URI.
        columns: The names that the file's columns get; `tasks` and `context` are also the names of
            the labels and contexts that are written.
        time_unit: Of the time column, a number; `auto` is milliseconds. `timestamp` makes it a
            timestamp, which says its unit itself.

    Raises:
        InputError: A name stands for two columns.
    """
    schema = _schema(columns, pa.timestamp("ms") if time_unit == "timestamp" else pa.int64())
    last = log.latest_seq()
    database, names = log.database, columns.model_dump_json()
    counted = Showings(database.shown, last, names, log_id=database.id)
    per_ms, explored = PER_MS.get(time_unit, 1), ExploredVideos(database)
    with (
        replace_file(out) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for page in _user_pages(log):
            rows: list[dict[str, object]] = []
            by_user = log.of_users(page, up_to_seq=last)
            likely = explored.propensities(
                {one.event.impression_id for events in by_user.values() for one in events}
            )
            counted.users += len(by_user)
            for user_id in sorted(by_user):
                events = by_user[user_id]
                for logged in events:
                    _count_left_out(logged.event, columns, counted.left_out)
                for showing in showings(events):
                    came_of_it = outcome(showing, columns)
                    if came_of_it is None:
                        counted.left_out[NOT_POSITIVE] += 1
                    else:
                        rows.append(_row(showing, came_of_it, columns, per_ms, likely))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            counted.rows += len(rows)
        writer.add_key_value_metadata(counted.to_metadata())
    return counted


def _user_pages(log: EventLog) -> Iterator[list[str]]:
    after = ""
    while page := log.user_ids(after, USERS_A_PAGE):
        yield page
        after = page[-1]


def _schema(columns: EventColumns, time: pa.DataType) -> pa.Schema:
    fields: list[tuple[str, pa.DataType]] = [
        (columns.user, pa.string()),
        (columns.video, pa.string()),
        (columns.time, time),
    ]
    if columns.positive is not None and columns.positive not in columns.tasks:
        fields.append((columns.positive, pa.int8()))
    fields += [(name, pa.int8()) for name in columns.tasks]
    if columns.watched is not None:
        fields.append((columns.watched, pa.float64()))
    fields += [(name, pa.string()) for name in columns.context]
    taken = {name for name, _ in fields}
    kinds = {"not_interested": pa.int8(), "place": pa.int32(), "propensity": pa.float64()}
    fields += [(name, kinds.get(name, pa.string())) for name in OTHERS if name not in taken]
    if len(taken) < len([name for name, _ in fields if name in taken]):
        raise InputError(f"{', '.join(name for name, _ in fields)}: a name stands for two columns")
    return pa.schema(fields)


def _row(
    showing: Showing,
    came_of_it: Outcome,
    columns: EventColumns,
    per_ms: float,
    likely: Mapping[Shown, float],
) -> dict[str, object]:
    """A showing by the names of the columns; what the user did not do is 0."""
    first = showing.first
    row: dict[str, object] = {
        "event_type": first.type,
        "not_interested": int(showing.not_interested),
        "creator_id": first.creator_id,
        "impression_id": first.impression_id,
        "version": first.version,
        "place": first.place,
        "propensity": likely.get((first.impression_id, first.video_id)),
    }
    row.update({name: showing.context.get(name) for name in columns.context})
    if columns.watched is not None:
        row[columns.watched] = showing.watched
    if columns.positive is not None:
        row[columns.positive] = int(came_of_it.positive)
    row.update(zip(columns.tasks, map(int, came_of_it.labels), strict=True))
    row[columns.user], row[columns.video] = first.user_id, first.video_id
    row[columns.time] = int((first.time_ms or 0) * per_ms)
    return row


def _count_left_out(event: Event, columns: EventColumns, left_out: Counter[str]) -> None:
    if event.video_id is None:
        left_out[f"{event.type} without a video"] += 1
    if event.watched is not None and columns.watched is None:
        left_out["watched, of which data.columns names no column"] += 1
    left_out.update(f"label {name}" for name in event.labels if name not in columns.tasks)
    left_out.update(f"context {name}" for name in event.context if name not in columns.context)
