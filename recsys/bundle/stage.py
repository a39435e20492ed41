"""Makes a bundle of a trained model and what `prepare` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.bundle.contents import Asked, Contents, write_bundle
from recsys.config.data import EventColumns
from recsys.config.run import RunConfig
from recsys.data.clip_store import NO_CLIP, ClipRows, ClipStore
from recsys.data.details import unseen_files
from recsys.data.ragged import FloatArray, IntArray, expand_ranges
from recsys.data.run_folder import RunFolder
from recsys.data.storage import list_files, open_input
from recsys.errors import InputError
from recsys.features.counts import CountLayout, EventCounts, read_counts
from recsys.features.liked import liked_in_spans
from recsys.features.timelines import Timelines
from recsys.inference.rerank import VideoTraits
from recsys.schema import (
    COUNT_FEATURES,
    OLDER_LIKED,
    USER_ROWS,
    history_schema,
    timeline_schema,
)
from recsys.train.trained import Trained

USERS_A_PART = 1 << 18
"""Users whose features are in memory at once while a bundle is written."""
FILES_AT_ONCE = 1 << 12
"""Videos whose pictures and captions are in memory at a time."""


def publish(
    trained: Trained,
    bundles_dir: str,
    *,
    metrics: Mapping[str, Any] | None = None,
    traits: VideoTraits | None = None,
    training: str | None = None,
    asked: Asked | None = None,
) -> str:
    """Writes a new version of the bundle.

    Args:
        trained: A trained run, with its config and what `prepare` wrote.
        bundles_dir: Of the versions, `RUN/bundles` in a run; a path or URI.
        metrics: What the evaluation found, for the manifest.
        traits: What the re-ranking step looks at, where the config has a weight of `rerank`.
        training: Names the training that the model came out of.
        asked: Asks the written bundle for what is kept in it too.

    Returns:
        The version's name.

    Raises:
        InputError: A file of `prepare` is missing.
    """
    prepared, config = trained.prepared, trained.prepared.config
    folder = RunFolder(config.run)
    counts = read_counts(folder.counts, prepared.catalog, CountLayout.of(config.data.columns))
    contents = Contents(
        config=config,
        sizes=prepared.sizes,
        recommender=trained.model,
        vocabs={name: prepared.vocab(name) for name in vocab_names(config)},
        catalog=_catalog(prepared.catalog.table),
        details=_details(folder),
        files=_files(config, prepared.catalog.uris()),
        lessons=prepared.lessons,
        vectors=trained.vectors.numpy(),
        users=_users(folder) if config.data.user_columns.features else None,
        counts=counts,
        histories=_histories(config, folder, counts),
        metrics=metrics,
        traits=traits,
        trained=training,
        live_seq=prepared.live_seq or 0,
        live_log=prepared.live_log,
    )
    return write_bundle(bundles_dir, contents, asked)


def vocab_names(config: RunConfig) -> list[str]:
    """Names of the vocabularies that a run has."""
    contexts = [f"context_{column}" for column in config.data.columns.context]
    users = ["user"] if config.data.user_columns.features else []
    return ["video", "creator", "category", *users, *contexts]


def last_events(table: pa.Table, longest: int) -> pa.Table:
    """A table of `timeline_schema` with each user's last `longest` events only."""
    table = table.combine_chunks()
    lengths = np.asarray(table.column("video_row").combine_chunks().value_lengths(), np.int64)
    columns = [table.column("user_id")]
    for name in timeline_schema().names[1:]:
        columns.append(_last(table.column(name).combine_chunks(), lengths, longest))
    return pa.table(columns, schema=timeline_schema())


def _last(lists: pa.ListArray, events: IntArray, longest: int) -> pa.ListArray:
    """The ends of lists that hold the same number of values for each event (perhaps none)."""
    lengths = np.asarray(lists.value_lengths(), np.int64)
    ends = np.cumsum(lengths)
    width = int(lengths.sum() // max(events.sum(), 1))
    kept = np.minimum(events, longest) * width
    values = lists.flatten().take(pa.array(expand_ranges(ends - kept, kept)))
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _catalog(table: pa.Table) -> pa.Table:
    """The catalogue; a relative path becomes absolute, since a server runs in another folder."""
    place = table.schema.get_field_index("uri")
    return table.set_column(place, table.schema.field(place), _absolute(table.column("uri")))


def _details(folder: RunFolder) -> pa.Table:
    """What the user's table says people are to be shown."""
    with open_input(folder.details) as file:
        table = pq.read_table(file)
    place = table.schema.get_field_index("poster")
    return table.set_column(place, table.schema.field(place), _absolute(table.column("poster")))


def _files(config: RunConfig, uris: pa.ChunkedArray) -> Iterator[pa.Table]:
    """What decode saw of the videos' files, pictures and captions among it: some videos at a time.

    Args:
        config: Of the run.
        uris: (N,) addresses as prepare left them, by which clips are known.
    """
    store = ClipStore(RunFolder(config.run).clips) if config.decodes else None
    rows = np.full(len(uris), NO_CLIP) if store is None else store.rows_of(uris)
    for start in range(0, len(rows), FILES_AT_ONCE):
        part = rows[start : start + FILES_AT_ONCE]
        there = part != NO_CLIP
        if store is None or not there.any():
            yield unseen_files(len(part))
        else:
            places = pa.array(np.cumsum(there) - 1, mask=~there)  # null gives null
            yield store.files(ClipRows(part[there])).take(places)


def _absolute(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Addresses; those that are relative paths begin at the folder that this process runs in."""
    is_whole = pc.or_(pc.starts_with(uris, "/"), pc.match_substring(uris, "://"))
    if pc.all(is_whole).as_py():
        return uris
    here = os.path.join(os.getcwd(), "")
    return pc.if_else(is_whole, uris, pc.binary_join_element_wise(here, uris, ""))


def _users(folder: RunFolder) -> Iterator[pa.Table]:
    """What is known of all users, also of those without events."""
    with open_input(folder.users) as file:
        for part in pq.ParquetFile(file).iter_batches(USERS_A_PART, columns=["user_id", USER_ROWS]):
            yield pa.table(part)


def _histories(config: RunConfig, folder: RunFolder, counts: EventCounts) -> Iterator[pa.Table]:
    """Each user's last events, with what was known of their videos then."""
    columns = config.data.columns
    paths = list_files(folder.timelines, ".parquet")
    if not paths:
        raise InputError(f"{folder.timelines}: no timelines are there; run `recsys prepare` first")
    for path in paths:
        with open_input(path) as file:
            whole = pq.read_table(file)
        table = last_events(whole, config.model.max_history)
        known = Timelines.from_table(table, columns, counts.features)
        features = _lists(known.offsets, known.count_features[:])
        table = table.append_column(history_schema().field(COUNT_FEATURES), features)
        older = older_liked(whole, columns, config.model.max_history)
        yield table.append_column(history_schema().field(OLDER_LIKED), older)


def older_liked(table: pa.Table, columns: EventColumns, longest: int) -> pa.LargeListArray:
    """What each user of a table of `timeline_schema` liked before the last `longest` events."""
    events = Timelines.from_table(
        table, columns, lambda rows, *_: np.zeros((len(rows), 0), np.float32)
    )
    starts, stops = events.offsets[:-1], events.offsets[1:]
    older = liked_in_spans(events, starts, np.maximum(starts, stops - longest))
    ends = pa.array(older.offsets, pa.int64())
    return pa.LargeListArray.from_arrays(ends, pa.array(older.values))


def _lists(offsets: IntArray, values: FloatArray) -> pa.LargeListArray:
    """Lists of each user's (L, F) values, flattened."""
    ends = pa.array(offsets * values.shape[1], pa.int64())
    return pa.LargeListArray.from_arrays(ends, pa.array(values.ravel(), pa.float32()))
