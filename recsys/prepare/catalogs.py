"""Making the catalogue and the user table out of the user's own tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.config.data import DataConfig, VideoColumns
from recsys.data.catalog import Catalog, duration_buckets
from recsys.data.lessons import Lesson, Lessons
from recsys.data.ragged import IntArray, Ragged
from recsys.data.storage import open_input
from recsys.data.users import row_lists
from recsys.data.values import as_ids, as_labels, as_numbers, as_tags, rows_of_lists
from recsys.data.vectors import read_vectors
from recsys.data.vocab import Vocab, sorted_ids
from recsys.errors import InputError
from recsys.features.counts import rows_of_things
from recsys.prepare import tables
from recsys.prepare.partitions import NO_TIME, SplitCounts
from recsys.schema import details_schema, user_schema, video_schema

FloatArray = npt.NDArray[np.float32]
MOST_USER_VALUES = 10_000
AT_ONCE = 1 << 20
"""Addresses that are Python texts at a time."""


class LessonDraft(NamedTuple):
    """Courses, and what must be finished before what."""

    lessons: Lessons
    unknown: int
    """Required ids that are of no video."""

    def report(self) -> dict[str, int]:
        """Its part of the stage's report."""
        courses = {course for course in self.lessons.courses if course is not None}
        return {
            "courses": len(courses),
            "lessons": len(self.lessons),
            "unknown_required_videos": self.unknown,
        }


@dataclass
class CatalogDraft:
    """The catalogue before anything was counted; N videos, row 0 (unknown) among them."""

    vocabs: dict[str, Vocab]
    """video, creator, category."""
    uris: pa.Array
    """(N,) null where a video has no file."""
    details: pa.Table
    """(N,) of `details_schema`."""
    creator_rows: IntArray
    category_rows: pa.ListArray
    """(N,) lists."""
    durations: npt.NDArray[np.float64]
    """(N,) in the user's unit; NaN where it is unknown or cannot be."""
    impossible_durations: int
    """How many are not above 0, or have no end: numbers that a writer put for a missing one."""
    vectors: FloatArray | None
    """(N, E), NaN where a video has none."""
    dropped: dict[str, int]
    """Rows of the video table that were left out, by reason."""
    only_in_events: int
    lessons: LessonDraft | None = None
    """None where nothing is said of courses."""

    def things(self) -> dict[str, Ragged]:
        """The rows of each counted thing that each of the N videos belongs to."""
        table = self.with_counts(SplitCounts.empty(len(self.vocabs["video"])))
        return rows_of_things(Catalog.from_table(table))

    def with_counts(self, counts: SplitCounts) -> pa.Table:
        """Makes videos.parquet of it: `video_schema`, N rows, row 0 for unknown videos."""
        first = np.where(counts.first_time_N == NO_TIME, 0, counts.first_time_N)
        columns = [
            pa.concat_arrays([pa.nulls(1, pa.string()), self.vocabs["video"].ids]),
            self.uris,
            self.creator_rows,
            self.category_rows,
            pa.array(self.durations, mask=np.isnan(self.durations)),
            duration_buckets(self.durations),
            pa.array(first, pa.int64(), mask=counts.first_time_N == NO_TIME),
            counts.events_SN[0],
            counts.positives_SN[0],
            counts.events_SN[1],
            counts.positives_SN[1],
        ]
        schema = video_schema()
        arrays = [
            (c if isinstance(c, pa.Array) else pa.array(c)).cast(kind)
            for c, kind in zip(columns, schema.types, strict=True)
        ]
        return pa.table(arrays, schema=schema)

    def report(self, counts: SplitCounts) -> dict[str, object]:
        """Its part of the stage's report: numbers of what it holds, and of what was left out."""
        known = counts.events_SN[:2, 1:].sum(0) > 0
        of_some: dict[str, int] = {}
        if self.impossible_durations:
            of_some["videos_of_impossible_duration"] = self.impossible_durations
        if self.vectors is not None:
            of_some["videos_without_vector"] = int(np.isnan(self.vectors[1:, 0]).sum())
        if self.lessons is not None:
            of_some |= self.lessons.report()
        return {
            "videos": len(self.vocabs["video"]) - 1,
            "videos_without_events": int((counts.events_SN[:, 1:].sum(0) == 0).sum()),
            "videos_first_seen_in_test": int((~known & (counts.events_SN[2, 1:] > 0)).sum()),
            "videos_without_file": self.uris[1:].null_count,
            **of_some,
            "videos_only_in_events": self.only_in_events,
            "dropped_video_rows": self.dropped,
            "creators": len(self.vocabs["creator"]) - 1,
            "categories": len(self.vocabs["category"]) - 1,
        }


def build_catalog(
    data: DataConfig, seen: Collection[str] | pa.Array, live: str | None = None
) -> CatalogDraft:
    """The catalogue of the video table, of the videos that came live and of those in the events.

    Args:
        data: Names the table and its columns.
        seen: Videos of the events, each once.
        live: The copy of the live videos, a table like the user's own; of a video that is in both,
            the user's row counts.

    Raises:
        InputError: The table, a column or a type is wrong.
    """
    table = _read_videos(data, live)
    columns = data.video_columns
    listed = table.ids if table else pa.array([], pa.string())
    occur = Vocab(seen).ids
    extra = sorted_ids(occur.filter(pc.invert(pc.is_in(occur, value_set=listed))))
    if table and len(occur) and len(extra) == len(occur):
        raise InputError(
            f"data.videos={data.videos}: none of the {len(occur)} videos of the events is in it, "
            f"e.g. {extra[0].as_py()!r} (its own are like {listed[0].as_py()!r}); check "
            "data.columns.video and data.video_columns.video"
        )
    num_extra = len(extra)
    creators = _labels(table, columns.creator)
    tagged, tags = _tags(table, columns.categories)
    vocabs = {
        "video": Vocab(pa.concat_arrays([listed, extra])),
        "creator": Vocab(sorted_ids(creators)),
        "category": Vocab(sorted_ids(tags)),
    }
    padding = np.zeros(num_extra, dtype=np.int64)
    durations, num_impossible = _durations(table, columns.duration, num_extra=num_extra)
    return CatalogDraft(
        vocabs=vocabs,
        uris=_padded(_uris(table, columns.uri), num_extra),
        details=_details(table, columns, num_extra=num_extra),
        creator_rows=np.concatenate([[0], vocabs["creator"].rows(creators), padding]),
        category_rows=_lists_of_rows(
            tagged + 1, vocabs["category"].rows(tags), 1 + len(listed) + num_extra
        ),
        durations=durations,
        impossible_durations=num_impossible,
        vectors=_vectors(table, columns.vector, num_extra=num_extra),
        dropped=table.dropped if table else {},
        only_in_events=num_extra if data.videos else 0,
        lessons=_lessons(table, columns, vocabs["video"]),
    )


def _read_videos(data: DataConfig, live: str | None) -> _Table | None:
    if live is not None:
        with open_input(live) as file:
            if not pq.read_metadata(file).num_rows:
                live = None
    if data.videos is None and live is None:
        return None
    columns = data.video_columns
    wanted = [
        ("video", columns.video, tables.ID),
        ("uri", columns.uri, tables.TEXT),
        ("title", columns.title, tables.LABEL),
        ("poster", columns.poster, tables.TEXT),
        ("creator", columns.creator, tables.LABEL),
        *(("categories", name, tables.TAGS) for name in columns.categories),
        ("duration", columns.duration, tables.NUMBER),
        ("course", columns.course, tables.LABEL),
        ("lesson", columns.lesson, tables.NUMBER),
        ("requires", columns.requires, tables.TAGS),
        ("vector", columns.vector, tables.VECTOR),
    ]
    return _read(data.videos, "data.videos", wanted, more=live)


@dataclass(frozen=True)
class _Table:
    """A table of one or several files, whose types may differ, without what repeats an id."""

    files: list[tuple[str, pa.Table]]
    """Each file's path and columns as they are in it."""
    ids: pa.Array
    """Of the rows that are kept."""
    kept: pa.Array
    """Their places among all files' rows."""
    dropped: dict[str, int]
    """Rows that were left out, by reason."""

    def column(
        self, name: str, convert: Callable[[pa.ChunkedArray, str, str], pa.Array]
    ) -> pa.Array:
        """Reads a column's kept rows; `convert(column, name, path)` gives those of one file."""
        return _of_files(self.files, name, convert).take(self.kept)


def _of_files(
    files: Iterable[tuple[str, pa.Table]],
    name: str,
    convert: Callable[[pa.ChunkedArray, str, str], pa.Array],
) -> pa.Array:
    parts = []
    for path, table in files:
        try:
            parts.append(convert(table.column(name), name, path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return pa.concat_arrays(parts)


def _read(
    spec: str | None,
    setting: str,
    wanted: Iterable[tuple[str, str | None, tables.Kind]],
    *,
    more: str | None = None,
) -> _Table:
    """The columns of a table; `wanted` are (setting, column, kind), of rows' ids the first.

    The rows of another file may follow, whose kinds of values may be others.
    """
    prefix = f"{setting.removesuffix('s')}_columns"
    roles = [tables.Role(name, f"{prefix}.{key}", kind) for key, name, kind in wanted if name]
    checked = []
    if spec is not None:
        checked += tables.check_table(tables.parquet_files(spec, setting), setting, roles)
    if more is not None:
        checked += tables.check_table([more], setting, roles)
    files = []
    for path, _ in checked:
        with tables.open_table(path, setting) as table:
            files.append((path, table.read(columns=tables.column_names(roles))))
    nobody = InputError(f"{setting}={spec}: there are no {setting.removeprefix('data.')} in it")
    if not files:
        raise nobody
    ids = _of_files(files, roles[0].column, lambda column, name, _: as_ids(column, name))
    if ids.null_count == len(ids):
        raise nobody
    there = np.flatnonzero(np.asarray(ids.is_valid()))
    codes = np.asarray(ids.drop_null().dictionary_encode().indices)
    kept = pa.array(there[np.sort(np.unique(codes, return_index=True)[1])])
    dropped = {"missing id": len(ids) - len(there), "duplicate": len(there) - len(kept)}
    dropped = {reason: count for reason, count in dropped.items() if count}
    return _Table(files, ids.take(kept), kept, dropped)


def _labels(table: _Table | None, column: str | None) -> pa.Array:
    if table is None or column is None:
        return pa.nulls(len(table.ids) if table else 0, pa.string())
    return table.column(column, lambda values, name, _: as_labels(values, name))


def _uris(table: _Table | None, column: str | None) -> pa.Array:
    """Addresses, null where a video has none."""
    if table is None or column is None:
        return _labels(table, None)

    def addresses(values: pa.ChunkedArray, name: str, path: str) -> pa.Array:
        labels = as_labels(values, name)
        parts = [pa.array([], pa.string())]
        for start in range(0, len(labels), AT_ONCE):
            uris = labels.slice(start, AT_ONCE).to_pylist()
            parts.append(pa.array([tables.absolute_uri(uri, path) for uri in uris], pa.string()))
        return pa.concat_arrays(parts)

    return table.column(column, addresses)


def _details(table: _Table | None, columns: VideoColumns, *, num_extra: int) -> pa.Table:
    """What people are shown: `details_schema`, with the row 0 and those without a row of theirs."""
    shown = [_labels(table, columns.title), _uris(table, columns.poster)]
    return pa.table([_padded(values, num_extra) for values in shown], schema=details_schema())


def _padded(texts: pa.Array, num_extra: int) -> pa.Array:
    """Texts of the table's videos, nulls before them for row 0 and after them for the others."""
    return pa.concat_arrays([pa.nulls(1, texts.type), texts, pa.nulls(num_extra, texts.type)])


def _lessons(table: _Table | None, columns: VideoColumns, videos: Vocab) -> LessonDraft | None:
    if table is None or not columns.has_lessons:
        return None
    courses, numbers = _labels(table, columns.course), _numbers(table, columns.lesson)
    required: dict[int, list[int]] = {}
    unknown = 0
    if columns.requires is not None:
        lists = table.column(columns.requires, lambda values, name, _: as_tags(values, name))
        rows = videos.rows(pc.list_flatten(lists))
        unknown = int((rows == 0).sum())
        places, rows = rows_of_lists(lists)[rows > 0], rows[rows > 0]
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            required.setdefault(place, []).append(row)
    in_course = np.flatnonzero(np.asarray(pc.is_valid(courses)))
    lessons = Lessons.of(
        {
            place + 1: Lesson(
                courses[place].as_py(),
                None if np.isnan(numbers[place]) else float(numbers[place]),
                tuple(required.get(place, ())),
            )
            for place in sorted({*in_course.tolist(), *required})
        }
    )
    _require_reachable(lessons, columns, videos)
    return LessonDraft(lessons, unknown)


def _require_reachable(lessons: Lessons, columns: VideoColumns, videos: Vocab) -> None:
    never = lessons.unreachable().tolist()
    if never:
        raise InputError(
            f"data.video_columns.requires={columns.requires}: nobody can ever come to "
            f"{', '.join(repr(videos.id(row)) for row in never[:3])}{', …' * (len(never) > 3)}: "
            "what is required there requires it in turn; take one of the requirements out"
        )


def _tags(table: _Table | None, columns: tuple[str, ...]) -> tuple[IntArray, pa.Array]:
    """Each tag's video and each tag, as `column=value`, so that two columns never share a row."""
    rows, tags = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for column in columns:
        assert table is not None
        lists = table.column(column, lambda values, name, _: as_tags(values, name))
        rows.append(rows_of_lists(lists))
        tags.append(pc.binary_join_element_wise(column, pc.list_flatten(lists), "="))
    return np.concatenate(rows), pa.concat_arrays(tags)


def _lists_of_rows(rows: IntArray, values: IntArray, num_rows: int) -> pa.ListArray:
    """Each row's values, in their order and each once.

    >>> _lists_of_rows(np.array([0, 2, 0, 0]), np.array([5, 7, 3, 5]), 3).to_pylist()
    [[5, 3], [], [7]]
    """
    first = np.sort(np.unique(rows << 32 | values, return_index=True)[1])
    order = first[np.argsort(rows[first], kind="stable")]
    offsets = np.searchsorted(rows[order], np.arange(num_rows + 1))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(values[order], pa.int32())
    )


def _numbers(table: _Table | None, column: str | None) -> npt.NDArray[np.float64]:
    if table is None or column is None:
        return np.full(len(table.ids) if table else 0, np.nan)
    numbers = table.column(column, lambda values, name, _: pa.array(as_numbers(values, name)))
    return np.array(numbers)


def _durations(
    table: _Table | None, column: str | None, *, num_extra: int
) -> tuple[npt.NDArray[np.float64], int]:
    """Lengths of all N videos, NaN where there is none, and how many of the table cannot be."""
    numbers = _numbers(table, column)
    impossible = (numbers <= 0) | np.isinf(numbers)
    numbers[impossible] = np.nan
    return np.pad(numbers, (1, num_extra), constant_values=np.nan), int(impossible.sum())


def _vectors(table: _Table | None, column: str | None, *, num_extra: int) -> FloatArray | None:
    if table is None or column is None:
        return None
    kind = pa.large_list(pa.float32())
    lists = table.column(column, lambda values, *_: values.combine_chunks().cast(kind))
    vectors = read_vectors(lists, f"{table.files[0][0]}: column {column!r}")
    return np.pad(vectors, ((1, num_extra), (0, 0)), constant_values=np.nan)


class UserDraft(NamedTuple):
    """The users as prepare writes them, and the vocabulary of their features."""

    table: pa.Table
    """Of `user_schema`."""
    values: Vocab
    """The values of the feature columns, as `column=value`."""
    dropped: dict[str, int]
    """Rows of the user table that were left out, by reason."""


def read_users(data: DataConfig) -> UserDraft:
    """Group columns as text, feature columns as rows of a vocabulary.

    Raises:
        InputError: The table or a column is wrong, or a feature has too many values.
    """
    groups, features = data.user_columns.groups, data.user_columns.features
    if data.users is None:
        return UserDraft(user_schema(groups).empty_table(), Vocab([]), {})
    user = data.user_columns.user
    wanted = [
        ("user", user, tables.ID),
        *(("groups", name, tables.LABEL) for name in groups),
        *(("features", name, tables.LABEL) for name in features),
    ]
    table = _read(data.users, "data.users", wanted)
    columns = [table.ids, *(_labels(table, name) for name in groups)]
    named = [_user_values(table, name, data.users) for name in features]
    values = Vocab(sorted({v for column in named for v in column.unique().to_pylist() if v}))
    if features:
        rows = np.stack([values.rows(column) for column in named], 1)
        columns.append(row_lists(rows))
    schema = user_schema(groups, features=bool(features))
    return UserDraft(pa.table(columns, schema=schema), values, table.dropped)


def _user_values(table: _Table, column: str, path: str) -> pa.Array:
    """A feature column as `column=value`, null where it is missing."""
    values = _labels(table, column)
    num_values = pc.count_distinct(values).as_py()
    if num_values > MOST_USER_VALUES:
        raise InputError(
            f"{path}: column {column!r} has {num_values:,} different values; a user feature may "
            f"have {MOST_USER_VALUES:,}; put them into ranges"
        )
    return pc.binary_join_element_wise(column, values, "=")
