"""Making the catalogue and the user table out of the user's own tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.config.data import DataConfig
from recsys.data.catalog import duration_buckets
from recsys.data.ragged import IntArray
from recsys.data.storage import open_input
from recsys.data.users import row_lists
from recsys.data.vectors import is_vector, read_vectors
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.prepare import tables
from recsys.prepare.partitions import NO_TIME, SplitCounts
from recsys.schema import user_schema, video_schema

FloatArray = npt.NDArray[np.float32]
MOST_USER_VALUES = 10_000


@dataclass
class CatalogDraft:
    """The catalogue before anything was counted; N videos, row 0 (unknown) among them."""

    vocabs: dict[str, Vocab]
    """video, creator, category."""
    uris: list[str | None]
    creator_rows: IntArray
    category_rows: list[list[int]]
    durations: npt.NDArray[np.float64]
    """(N,) in the user's unit; NaN where it is unknown."""
    vectors: FloatArray | None
    """(N, E), NaN where a video has none."""
    duplicates: int
    """Rows of the video table whose id stood there before."""
    only_in_events: int

    def with_counts(self, counts: SplitCounts) -> pa.Table:
        """The table of `video_schema`."""
        first = np.where(counts.first_time_N == NO_TIME, 0, counts.first_time_N)
        columns = [
            pa.concat_arrays([pa.nulls(1, pa.string()), self.vocabs["video"].ids]),
            pa.array(self.uris, pa.string()),
            self.creator_rows,
            pa.array(self.category_rows, pa.list_(pa.int32())),
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

    def report(self, counts: SplitCounts) -> dict[str, Any]:
        """What is worth knowing of it."""
        known = counts.events_SN[:2, 1:].sum(0) > 0
        without = {}
        if self.vectors is not None:
            without = {"videos_without_vector": int(np.isnan(self.vectors[1:, 0]).sum())}
        return {
            "videos": len(self.vocabs["video"]) - 1,
            "videos_without_events": int((counts.events_SN[:, 1:].sum(0) == 0).sum()),
            "videos_first_seen_in_test": int((~known & (counts.events_SN[2, 1:] > 0)).sum()),
            "videos_without_file": sum(uri is None for uri in self.uris[1:]),
            **without,
            "videos_only_in_events": self.only_in_events,
            "duplicate_video_rows": self.duplicates,
            "creators": len(self.vocabs["creator"]) - 1,
            "categories": len(self.vocabs["category"]) - 1,
        }


def build_catalog(data: DataConfig, seen: Collection[str]) -> CatalogDraft:
    """The catalogue of the video table and of the videos seen in the events.

    Raises:
        InputError: The table, a column or a type is wrong.
    """
    table, path, duplicates = _read_videos(data)
    columns = data.video_columns
    listed = tables.as_ids(table.column(columns.video)) if table else pa.array([], pa.string())
    extra = sorted(set(seen) - set(listed.to_pylist()))
    if table and seen and len(extra) == len(seen):
        raise InputError(
            f"data.videos={data.videos}: none of the {len(seen)} videos of the events is in it, "
            f"e.g. {extra[0]!r} (its own are like {listed[0].as_py()!r}); check "
            "data.columns.video and data.video_columns.video"
        )
    ids = pa.concat_arrays([listed, pa.array(extra, pa.string())])
    num_extra = len(extra)
    creators = _text(table, columns.creator)
    categories = _categories(table, columns.categories)
    vocabs = {
        "video": Vocab(ids),
        "creator": Vocab(sorted({c for c in creators if c is not None})),
        "category": Vocab(sorted({c for row in categories for c in row})),
    }
    uris = [tables.absolute_uri(uri, path) for uri in _text(table, columns.uri)]
    creator_rows = vocabs["creator"].rows(creators)
    row_of = {name: row for row, name in enumerate(vocabs["category"].ids.to_pylist(), start=1)}
    durations = _numbers(table, columns.duration)
    padding = np.zeros(num_extra, dtype=np.int64)
    return CatalogDraft(
        vocabs=vocabs,
        uris=[None, *uris, *([None] * num_extra)],
        creator_rows=np.concatenate([[0], creator_rows, padding]),
        category_rows=[[], *([row_of[c] for c in row] for row in categories), *([[]] * num_extra)],
        durations=np.pad(durations, (1, num_extra), constant_values=np.nan),
        vectors=_vectors(table, columns.vector, path, num_extra=num_extra),
        duplicates=duplicates,
        only_in_events=num_extra if data.videos else 0,
    )


def _read_videos(data: DataConfig) -> tuple[pa.Table | None, str, int]:
    """The video table without repeated ids, where it lies, and how many were repeated."""
    if data.videos is None:
        return None, "", 0
    columns = data.video_columns
    roles = [
        _Role(columns.video, "video", tables.is_id, tables.ID),
        _Role(columns.uri, "uri", tables.is_text, "text"),
        _Role(columns.creator, "creator", tables.is_label, "text or a number"),
        *(_Role(name, "categories", _is_category, "text or a list") for name in columns.categories),
        _Role(columns.duration, "duration", tables.is_number, "a number"),
        _Role(columns.vector, "vector", is_vector, "a list of numbers"),
    ]
    table, path = _read(data.videos, "data.videos", roles)
    unique, duplicates = _first_of_each(table, columns.video)
    if not len(unique):
        raise InputError(f"data.videos={data.videos}: there are no videos in it")
    return unique, path, duplicates


def _first_of_each(table: pa.Table, column: str) -> tuple[pa.Table, int]:
    """The first row of each id, rows without one left out, and how many were repeated."""
    table = table.filter(pc.is_valid(table.column(column)))
    ids = tables.as_ids(table.column(column))
    first = np.unique(np.asarray(ids.dictionary_encode().indices), return_index=True)[1]
    return table.take(pa.array(np.sort(first))), len(table) - len(first)


class _Role(NamedTuple):
    """A column that a setting names, and what it may hold."""

    column: str | None
    setting: str
    check: Callable[[pa.DataType], bool]
    allowed: str


def _is_category(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return tables.is_label(kind.value_type if lists else kind)


def _read(spec: str, setting: str, roles: Iterable[_Role]) -> tuple[pa.Table, str]:
    """The columns of a table in one or several files, and the first file's path."""
    prefix = f"{setting.removesuffix('s')}_columns"
    wanted: dict[str, str] = {}
    given = [role for role in roles if role.column is not None]
    for role in given:
        wanted.setdefault(str(role.column), f"{prefix}.{role.setting}")
    files = tables.parquet_files(spec, setting)
    found = []
    for path in files:
        schema = tables.read_schema(path, setting)
        tables.require_columns(schema, wanted, path)
        for role in given:
            tables.require_type(schema, str(role.column), role.check, role.allowed, path)
        with open_input(path) as file:
            found.append(pq.read_table(file, columns=list(wanted)))
    return pa.concat_tables(found, promote_options="permissive"), files[0]


def _text(table: pa.Table | None, column: str | None) -> list[str | None]:
    if table is None:
        return []
    if column is None:
        return [None] * len(table)
    return list(tables.as_ids(table.column(column)).to_pylist())


def _categories(table: pa.Table | None, columns: tuple[str, ...]) -> list[list[str]]:
    """Each video's categories as `column=value`, so that two columns never share a row."""
    rows: list[list[str]] = [[] for _ in range(len(table) if table else 0)]
    for column in columns:
        assert table is not None
        values = table.column(column)
        for row, value in zip(rows, values.to_pylist(), strict=True):
            if value is None:
                continue
            tags = value if isinstance(value, list) else str(value).split(",")
            row.extend(f"{column}={str(tag).strip()}" for tag in tags if str(tag).strip())
    return [list(dict.fromkeys(row)) for row in rows]


def _numbers(table: pa.Table | None, column: str | None) -> Any:
    if table is None or column is None:
        return np.full(len(table) if table else 0, np.nan)
    return np.asarray(table.column(column).combine_chunks().cast(pa.float64()).fill_null(np.nan))


def _vectors(
    table: pa.Table | None, column: str | None, path: str, *, num_extra: int
) -> FloatArray | None:
    if table is None or column is None:
        return None
    vectors = read_vectors(table.column(column), f"{path}: column {column!r}")
    return np.pad(vectors, ((1, num_extra), (0, 0)), constant_values=np.nan)


class UserDraft(NamedTuple):
    """What the user table says."""

    table: pa.Table
    """Of `user_schema`."""
    values: Vocab
    """The values of the feature columns, as `column=value`."""


def read_users(data: DataConfig) -> UserDraft:
    """Group columns as text, feature columns as rows of a vocabulary.

    Raises:
        InputError: The table or a column is wrong, or a feature has too many values.
    """
    groups, features = data.user_columns.groups, data.user_columns.features
    if data.users is None:
        return UserDraft(user_schema(groups).empty_table(), Vocab([]))
    user = data.user_columns.user
    roles = [
        _Role(user, "user", tables.is_id, tables.ID),
        *(_Role(group, "groups", tables.is_label, "text or a number") for group in groups),
        *(_Role(name, "features", tables.is_label, "text or a number") for name in features),
    ]
    table, path = _read(data.users, "data.users", roles)
    table, _ = _first_of_each(table, user)
    columns = [tables.as_ids(table.column(name)) for name in (user, *groups)]
    named = [_user_values(table, name, path) for name in features]
    values = Vocab(sorted({v for column in named for v in column.unique().to_pylist() if v}))
    if features:
        rows = np.stack([values.rows(column) for column in named], 1)
        columns.append(row_lists(rows))
    return UserDraft(pa.table(columns, schema=user_schema(groups, features=bool(features))), values)


def _user_values(table: pa.Table, column: str, path: str) -> pa.Array:
    """A feature column as `column=value`, null where it is missing."""
    values = tables.as_ids(table.column(column))
    found = pc.count_distinct(values).as_py()
    if found > MOST_USER_VALUES:
        raise InputError(
            f"{path}: column {column!r} has {found:,} different values; a user feature may have "
            f"{MOST_USER_VALUES:,}; put them into ranges"
        )
    return pc.binary_join_element_wise(column, values, "=")
