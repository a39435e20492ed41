"""Making the catalogue and the user table out of the user's own tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.config import DataConfig
from recsys.data import tables
from recsys.data.catalog import duration_buckets
from recsys.data.partitions import NO_TIME, Counts
from recsys.data.storage import open_input
from recsys.data.timelines import IntArray
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.schema import user_schema, video_schema


@dataclass
class CatalogDraft:
    """The catalogue before anything was counted; N videos, row 0 (unknown) among them."""

    vocabs: dict[str, Vocab]
    """video, creator, category."""
    uris: list[str | None]
    creator_rows: IntArray
    category_rows: list[list[int]]
    durations: IntArray
    duplicates: int
    """Rows of the video table whose id stood there before."""
    only_in_events: int

    def with_counts(self, counts: Counts) -> pa.Table:
        """The table of `video_schema`."""
        first = np.where(counts.first_time_N == NO_TIME, 0, counts.first_time_N)
        columns = [
            pa.concat_arrays([pa.nulls(1, pa.string()), self.vocabs["video"].ids]),
            pa.array(self.uris, pa.string()),
            self.creator_rows,
            pa.array(self.category_rows, pa.list_(pa.int32())),
            self.durations,
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

    def report(self, counts: Counts) -> dict[str, Any]:
        """What is worth knowing of it."""
        known = counts.events_SN[:2, 1:].sum(0) > 0
        return {
            "videos": len(self.vocabs["video"]) - 1,
            "videos_without_events": int((counts.events_SN[:, 1:].sum(0) == 0).sum()),
            "videos_first_seen_in_test": int((~known & (counts.events_SN[2, 1:] > 0)).sum()),
            "videos_without_file": sum(uri is None for uri in self.uris[1:]),
            "videos_only_in_events": self.only_in_events,
            "duplicate_video_rows": self.duplicates,
            "creators": len(self.vocabs["creator"]) - 1,
            "categories": len(self.vocabs["category"]) - 1,
        }


def build_catalog(data: DataConfig, met: Collection[str]) -> CatalogDraft:
    """The catalogue of the video table and of the videos met in the events.

    Raises:
        InputError: The table, a column or a type is wrong.
    """
    table, path, duplicates = _read_videos(data)
    columns = data.video_columns
    listed = tables.as_ids(table.column(columns.video)) if table else pa.array([], pa.string())
    extra = sorted(set(met) - set(listed.to_pylist()))
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
    durations = duration_buckets(_numbers(table, columns.duration, path))
    padding = np.zeros(num_extra, dtype=np.int64)
    return CatalogDraft(
        vocabs=vocabs,
        uris=[None, *uris, *([None] * num_extra)],
        creator_rows=np.concatenate([[0], creator_rows, padding]),
        category_rows=[[], *([row_of[c] for c in row] for row in categories), *([[]] * num_extra)],
        durations=np.concatenate([[0], durations, padding]),
        duplicates=duplicates,
        only_in_events=num_extra if data.videos else 0,
    )


def _read_videos(data: DataConfig) -> tuple[pa.Table | None, str, int]:
    """The video table without repeated ids, where it lies, and how many were repeated."""
    if data.videos is None:
        return None, "", 0
    columns = data.video_columns
    wanted = {columns.video: "data.video_columns.video"}
    for name, setting in ((columns.uri, "uri"), (columns.creator, "creator")):
        if name:
            wanted.setdefault(name, f"data.video_columns.{setting}")
    for name in columns.categories:
        wanted.setdefault(name, "data.video_columns.categories")
    if columns.duration:
        wanted.setdefault(columns.duration, "data.video_columns.duration")
    table, path = _read(data.videos, "data.videos", wanted)
    table = table.filter(pc.is_valid(table.column(columns.video)))
    if not len(table):
        raise InputError(f"data.videos={data.videos}: there are no videos in it")
    ids = tables.as_ids(table.column(columns.video))
    first = np.unique(np.asarray(ids.dictionary_encode().indices), return_index=True)[1]
    return table.take(pa.array(np.sort(first))), path, len(table) - len(first)


def _read(spec: str, setting: str, wanted: dict[str, str]) -> tuple[pa.Table, str]:
    files = tables.parquet_files(spec, setting)
    found = []
    for path in files:
        tables.require_columns(tables.read_schema(path, setting), wanted, path)
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


def _numbers(table: pa.Table | None, column: str | None, path: str) -> Any:
    if table is None or column is None:
        return np.full(len(table) if table else 0, np.nan)
    kind = table.schema.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(f"{path}: column {column!r} is {kind}; allowed is a number; convert it")
    return np.asarray(table.column(column).combine_chunks().cast(pa.float64()).fill_null(np.nan))


def read_users(data: DataConfig) -> pa.Table:
    """The table of `user_schema`: group columns as text.

    Raises:
        InputError: The table or a column is wrong.
    """
    groups = data.user_columns.groups
    if data.users is None:
        return user_schema(groups).empty_table()
    wanted = {data.user_columns.user: "data.user_columns.user"}
    for group in groups:
        wanted.setdefault(group, "data.user_columns.groups")
    table, _ = _read(data.users, "data.users", wanted)
    columns = [
        tables.as_ids(table.column(name))
        if not pa.types.is_floating(table.schema.field(name).type)
        else table.column(name).combine_chunks().cast(pa.string())
        for name in (data.user_columns.user, *groups)
    ]
    return pa.table(columns, schema=user_schema(groups))
