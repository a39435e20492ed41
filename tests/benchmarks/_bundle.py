"""A bundle of KuaiRand-Pure's size with random weights: no data, no training.

7,583 videos of 5,000 creators, 24,000 users with 167,000 events in ten days, one context column,
two ranking tasks, watch time and 28 user features. Popularity is as skewed as there; what is
recommended means nothing.

Shapes: U users, E events, F count features, T = 2 tasks, W = 2 (watch time and its share).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from recsys.bundle.contents import Contents, write_bundle
from recsys.config.run import RunConfig, parse_config
from recsys.data.catalog import Catalog
from recsys.data.details import unseen_files
from recsys.data.lessons import NO_LESSONS
from recsys.data.ragged import FloatArray, IntArray
from recsys.data.users import row_lists
from recsys.data.vocab import Vocab
from recsys.features.batches import VideoInputs
from recsys.features.counts import CountLayout, EventCounts
from recsys.features.hourly import HourlyCounts, hour_of
from recsys.features.inputs import Sizes
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.schema import (
    TRAIN,
    details_schema,
    history_schema,
    user_schema,
    video_schema,
)
from recsys.serve.versions.known import ASKED

NUM_USERS, NUM_VIDEOS, NUM_CREATORS, NUM_CATEGORIES, NUM_EVENTS = 24_000, 7_583, 5_000, 60, 167_000
TASKS, TABS, DAYS = ("click", "long_view"), 10, 10
USER_FEATURES = tuple(f"feature{i}" for i in range(28))
VALUES = 8
"""Of each user feature."""
MS_PER_DAY = 24 * 3600 * 1000
USERS_A_PART = 250_000


def kuairand_config(run: str) -> RunConfig:
    """The example's settings of the model, on columns of these names."""
    columns = {"tasks": TASKS, "watched": "seconds", "context": ["tab"], "positive": "click"}
    data: dict[str, object] = {
        "events": "events.parquet",
        "columns": columns,
        "users": "users.parquet",
        "user_columns": {"features": USER_FEATURES},
    }
    model = {"content": {"encoder": "none"}, "feature_dim": 32}
    tree: dict[str, object] = {
        "run": run,
        "data": data,
        "split": {"kind": "leave_one_out"},
        "model": model,
    }
    return parse_config(tree, "benchmark config")


def make_bundle(run: str, *, end_ms: int, seed: int = 0) -> str:
    """Writes `RUN/bundles` and returns the version; the last event is at `end_ms`."""
    rng = np.random.default_rng(seed)
    config = kuairand_config(run)
    layout = CountLayout.of(config.data.columns)
    catalog_table = _catalog(rng)
    catalog = Catalog.from_table(catalog_table)
    events = _Events(rng, end_ms)
    counts = events.counts(catalog, layout)
    recommender, sizes, vectors = _model(config, catalog, len(layout), seed)
    contents = Contents(
        config=config,
        sizes=sizes,
        recommender=recommender,
        vocabs=_vocabs(),
        catalog=catalog_table,
        details=_details(),
        files=iter([unseen_files(NUM_VIDEOS + 1)]),
        lessons=NO_LESSONS,
        vectors=vectors,
        users=iter([_users(rng, 0, NUM_USERS)]),
        counts=counts,
        histories=events.histories(counts, config.model.max_history),
    )
    return write_bundle(f"{run}/bundles", contents, ASKED)


def make_large_bundle(run: str, *, num_users: int, per_user: int, end_ms: int) -> str:
    """Writes a bundle of many users with features, `per_user` events each, part by part."""
    rng = np.random.default_rng(0)
    config = kuairand_config(run)
    layout = CountLayout.of(config.data.columns)
    catalog_table = _catalog(rng)
    catalog = Catalog.from_table(catalog_table)
    recommender, sizes, vectors = _model(config, catalog, len(layout), 0)
    contents = Contents(
        config=config,
        sizes=sizes,
        recommender=recommender,
        vocabs=_vocabs(),
        catalog=catalog_table,
        details=_details(),
        files=iter([unseen_files(NUM_VIDEOS + 1)]),
        lessons=NO_LESSONS,
        vectors=vectors,
        users=(_users(rng, *part) for part in _parts_of(num_users)),
        counts=_Events(rng, end_ms).counts(catalog, layout),
        histories=(
            _many(rng, *part, per_user, len(layout), end_ms) for part in _parts_of(num_users)
        ),
    )
    return write_bundle(f"{run}/bundles", contents, ASKED)


def _parts_of(num_users: int) -> list[tuple[int, int]]:
    """The users [first, end) of each part."""
    firsts = range(0, num_users, USERS_A_PART)
    return [(first, min(first + USERS_A_PART, num_users)) for first in firsts]


def _many(
    rng: np.random.Generator, first: int, end: int, per_user: int, width: int, end_ms: int
) -> pa.Table:
    """The users [first, end) with random events, a part of `history_schema`."""
    num = (end - first) * per_user
    times = rng.integers(end_ms - DAYS * MS_PER_DAY, end_ms, (end - first, per_user))
    labels = (rng.random((num, len(TASKS)), np.float32) < 0.3).astype(np.int8)
    columns: list[FloatArray | IntArray] = [
        rng.integers(1, NUM_VIDEOS + 1, num),
        np.sort(times, axis=1).ravel(),
        labels[:, 0],
        labels,
        rng.random((num, len(TASKS)), np.float32),
        rng.integers(1, TABS + 1, (num, 1)),
        np.full(num, TRAIN),
        rng.standard_normal((num, width), np.float32),
    ]
    user_ids = pa.array([f"u{i}" for i in range(first, end)])
    lists = [_lists(np.arange(end - first + 1) * per_user, column) for column in columns]
    nothing = pa.array([[]] * (end - first), pa.list_(pa.int32()))
    schema = history_schema()
    return pa.table([user_ids, *lists, nothing], names=schema.names).cast(schema)


class _Events:
    """Who was shown what and when, user by user and in time order."""

    def __init__(self, rng: np.random.Generator, end_ms: int) -> None:
        share = rng.lognormal(sigma=1.0, size=NUM_USERS)
        self.lengths = 1 + rng.multinomial(NUM_EVENTS - NUM_USERS, share / share.sum())
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        popularity = 1 / np.arange(1, NUM_VIDEOS + 1) ** 0.8
        videos = rng.choice(NUM_VIDEOS, NUM_EVENTS, p=popularity / popularity.sum())
        self.video_rows = 1 + rng.permutation(NUM_VIDEOS)[videos]
        users = np.repeat(np.arange(NUM_USERS), self.lengths)
        time_ms = end_ms - rng.integers(0, DAYS * MS_PER_DAY, NUM_EVENTS)
        self.time_ms = time_ms[np.lexsort((time_ms, users))]
        self.contexts_E1 = rng.integers(1, TABS + 1, (NUM_EVENTS, 1))
        self.labels_ET = (rng.random((NUM_EVENTS, len(TASKS))) < [0.35, 0.25]).astype(np.int64)
        seconds = rng.exponential(15, NUM_EVENTS)
        self.watched_EW = np.stack([seconds, np.minimum(seconds / 30, 1)], 1).astype(np.float32)

    def counts(self, catalog: Catalog, layout: CountLayout) -> EventCounts:
        ones = np.ones((NUM_EVENTS, 1), np.int64)
        flags = np.concatenate([ones, self.labels_ET[:, :1], self.labels_ET], 1)
        hours = hour_of(self.time_ms)
        stored = {
            "video": HourlyCounts(self.video_rows, hours, flags),
            "context_tab": HourlyCounts(self.contexts_E1[:, 0], hours, flags),
        }
        return EventCounts.of(catalog, layout, stored)

    def histories(self, counts: EventCounts, longest: int) -> Iterator[pa.Table]:
        """Each user's last events, in one table of `history_schema`."""
        kept = np.arange(NUM_EVENTS) >= np.repeat(
            self.offsets[1:] - np.minimum(self.lengths, longest), self.lengths
        )
        offsets = np.concatenate([[0], np.cumsum(np.minimum(self.lengths, longest))])
        rows, contexts, time_ms = self.video_rows[kept], self.contexts_E1[kept], self.time_ms[kept]
        columns: list[FloatArray | IntArray] = [
            rows,
            time_ms,
            self.labels_ET[kept, 0],
            self.labels_ET[kept],
            self.watched_EW[kept],
            contexts,
            np.full(len(rows), TRAIN),
            counts.features(rows, contexts, time_ms),
        ]
        user_ids = pa.array([f"u{i}" for i in range(NUM_USERS)])
        schema = history_schema()
        lists = [_lists(offsets, column) for column in columns]
        nothing = pa.array([[]] * NUM_USERS, pa.list_(pa.int32()))
        yield pa.table([user_ids, *lists, nothing], names=schema.names).cast(schema)


def _lists(offsets: IntArray, values: FloatArray | IntArray) -> pa.ListArray:
    """Lists of each user's values, flattened event by event."""
    width = values.size // len(values)
    return pa.ListArray.from_arrays(pa.array(offsets * width, pa.int32()), pa.array(values.ravel()))


def _vocabs() -> dict[str, Vocab]:
    user_values = [f"{name}={value}" for name in USER_FEATURES for value in range(VALUES)]
    return {
        "video": Vocab([f"v{i}" for i in range(1, NUM_VIDEOS + 1)]),
        "creator": Vocab([f"c{i}" for i in range(1, NUM_CREATORS + 1)]),
        "category": Vocab([f"tag{i}" for i in range(1, NUM_CATEGORIES + 1)]),
        "user": Vocab(user_values),
        "context_tab": Vocab([str(i) for i in range(1, TABS + 1)]),
    }


def _details() -> pa.Table:
    titles = [None, *(f"Video {i}" for i in range(1, NUM_VIDEOS + 1))]
    return pa.table([titles, [None] * len(titles)], schema=details_schema())


def _catalog(rng: np.random.Generator) -> pa.Table:
    categories = rng.integers(1, NUM_CATEGORIES + 1, NUM_VIDEOS)
    durations = rng.uniform(5, 120, NUM_VIDEOS)
    columns: dict[str, list[object]] = {
        "video_id": [None, *(f"v{i}" for i in range(1, NUM_VIDEOS + 1))],
        "uri": [None] * (NUM_VIDEOS + 1),
        "creator_row": [0, *rng.integers(1, NUM_CREATORS + 1, NUM_VIDEOS).tolist()],
        "category_rows": [[], *([row] for row in categories.tolist())],
        "duration": [None, *durations.tolist()],
        "duration_bucket": [0, *(1 + durations // 20).astype(int).tolist()],
        "first_time_ms": [None] * (NUM_VIDEOS + 1),
    }
    for name in video_schema().names[len(columns) :]:
        columns[name] = [0, *([20] * NUM_VIDEOS)]
    return pa.table(columns, schema=video_schema())


def _users(rng: np.random.Generator, first: int, end: int) -> pa.Table:
    """The users [first, end) with random features."""
    values = rng.integers(0, VALUES, (end - first, len(USER_FEATURES)))
    rows = 1 + np.arange(len(USER_FEATURES)) * VALUES + values
    user_ids = pa.array([f"u{i}" for i in range(first, end)])
    return pa.table([user_ids, row_lists(rows)], schema=user_schema((), features=True))


def _model(
    config: RunConfig, catalog: Catalog, num_count_features: int, seed: int
) -> tuple[Recommender, Sizes, FloatArray]:
    sizes = Sizes(
        num_videos=NUM_VIDEOS + 1,
        num_creators=NUM_CREATORS + 1,
        num_categories=NUM_CATEGORIES + 1,
        context_sizes=(TABS + 1,),
        num_tasks=len(TASKS),
        num_count_features=num_count_features,
        watch_dim=config.data.columns.watch_dim,
        clip=None,
        num_user_values=len(USER_FEATURES) * VALUES + 1,
    )
    torch.manual_seed(seed)
    tables = PlainTables(table_specs(config.model, sizes))
    recommender = Recommender(config.model, sizes, tables=tables).eval()
    inputs = VideoInputs(catalog, id_rows=np.arange(len(catalog)))
    with torch.no_grad():
        vectors = recommender.encode_videos(inputs.batch(np.arange(len(catalog)))).numpy()
    return recommender, sizes, vectors
