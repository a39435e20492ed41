"""A tiny run folder with a bundle of random weights, made without training."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from recsys.bundle.stage import publish
from recsys.bundle.versions import CURRENT
from recsys.config.data import EventColumns
from recsys.config.run import RunConfig, parse_config
from recsys.data.catalog import Catalog
from recsys.data.lessons import NO_LESSONS, Lessons
from recsys.data.run_folder import RunFolder
from recsys.data.storage import write_table
from recsys.data.vocab import Vocab
from recsys.features.batches import VideoInputs
from recsys.features.counts import CountLayout, EventCounts
from recsys.features.hourly import HourlyCounts, hour_of
from recsys.features.inputs import ClipShape, Sizes
from recsys.features.timelines import Timelines, share_watched
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.prepare.prepared import Prepared
from recsys.schema import (
    TEST,
    TRAIN,
    USER_ROWS,
    clip_schema,
    details_schema,
    timeline_schema,
    user_schema,
    video_schema,
)
from recsys.serve.versions.known import ASKED
from recsys.train.trained import Trained

NUM_VIDEOS = 30
NUM_USERS = 10
DAY_MS = 24 * 3600 * 1000
START_MS = 1_700_000_000_000
TASKS = ("click", "like")
OLD, NEW = "20260101T000000000000Z-00000001", "20260102T000000000000Z-00000002"
COLUMNS = EventColumns(positive="good", tasks=TASKS, watched="seconds", context=("tab",))
DATA_WITH_VIDEOS: dict[str, Any] = {
    "events": "events.parquet",
    "columns": COLUMNS.model_dump(),
    "users": "users.parquet",
    "user_columns": {"features": ["region"]},
    "videos": "videos.parquet",
    "video_columns": {"uri": "uri", "creator": "creator", "categories": ["kind"]},
}
"""The section `data` of a run whose videos have files."""
LESSON_COLUMNS = {"course": "course", "lesson": "lesson", "requires": "requires"}
DATA_WITH_COURSES = {
    **DATA_WITH_VIDEOS,
    "video_columns": {**DATA_WITH_VIDEOS["video_columns"], "uri": None, **LESSON_COLUMNS},
}
"""The same of one whose videos are lessons of courses, without files."""

VOCABS = {
    "video": [f"v{i}" for i in range(1, NUM_VIDEOS + 1)],
    "creator": ["c1", "c2", "c3"],
    "category": ["calm", "wild"],
    "context_tab": ["home", "search"],
    "user": ["region=north", "region=south"],
}
PATIENT_MS = 20_000
"""`serve.budget_ms` of the runs: no answer is another one because the machine is busy."""
FRAMES, SIZE = 4, 64
DECODES = {
    "data": DATA_WITH_VIDEOS,
    "decode": {"frames": FRAMES, "size": SIZE},
    "model": {
        "content": {"encoder": "small_cnn", "frame_dim": 8, "dim": 8},
        "dim": 8,
        "id_dim": 8,
        "feature_dim": 4,
        "state_dim": 16,
        "max_history": 27,
    },
}
"""Sections of a run whose model looks at frames: `make_run(…, clip=ClipShape(FRAMES, SIZE))`."""


@dataclass(frozen=True)
class TinyRun:
    """What a test may want to compare a server's answers with."""

    run: Path
    version: str
    config: RunConfig
    recommender: Recommender
    vectors: np.ndarray
    counts: EventCounts
    timelines: pa.Table
    """As prepare leaves them: user u has 3 u events, so "u0" has none and "u9" has 27."""


def make_run(
    run: Path,
    *,
    uris: list[str | None] | None = None,
    clip: ClipShape | None = None,
    seed: int = 1,
    lessons: Lessons = NO_LESSONS,
    **sections: object,
) -> TinyRun:
    """Writes RUN/prepare and RUN/bundles.

    Args:
        run: The run folder.
        uris: Of videos "v1", "v2", …; none have a file without it.
        clip: Gives the model a content part (and the videos vectors that are not of it).
        seed: Of the model's weights.
        lessons: Courses, and what must be finished before what.
        sections: Parts of the run config that differ, e.g. `serve={"max_k": 5}`.
    """
    config = tiny_config(run, **sections)
    prepare = run / "prepare"
    uris = (uris or [])[:NUM_VIDEOS]
    uris += [None] * (NUM_VIDEOS - len(uris))
    write_table(_videos(uris), str(prepare / "videos.parquet"))
    write_table(_details(run), str(prepare / "details.parquet"))
    if len(lessons):
        write_table(lessons.to_table(), str(prepare / "lessons.parquet"))
    for name, ids in VOCABS.items():
        Vocab(ids).write(str(prepare / "vocab" / f"{name}.parquet"))
    timelines = _timelines()
    for i in range(2):
        part = timelines.slice(i * NUM_USERS // 2, NUM_USERS // 2)
        write_table(part, str(prepare / "timelines" / f"part-{i:05d}.parquet"))
    write_table(_users(), str(prepare / "users.parquet"))
    catalog = Catalog.read(str(prepare / "videos.parquet"))
    counts = _counts(timelines, catalog)
    counts.write(str(prepare / "counts"))
    if config.decodes:
        _write_clips(RunFolder(str(run)).clips, config, [uri for uri in uris if uri])
    recommender, sizes, vectors = _model(config, catalog, clip, seed)
    version = publish(
        trained_of(config, recommender, sizes, vectors),
        str(run / "bundles"),
        metrics={"hr@10": 0.25, "cold": {"hr@10": float("nan")}},
        asked=ASKED,
    )
    return TinyRun(run, version, config, recommender, vectors, counts, timelines)


def make_versions(
    folder: Path, uris: list[str | None], *, clip: ClipShape | None = None, **sections: object
) -> Path:
    """A bundles folder with two versions of other weights; CURRENT names the old one."""
    bundles = folder / "bundles"
    bundles.mkdir()
    for version, seed in ((OLD, 1), (NEW, 5)):
        run = make_run(folder / version, uris=uris, seed=seed, clip=clip, **sections)
        rename_version(run.run / "bundles" / run.version, bundles / version)
    (bundles / CURRENT).write_text(OLD + "\n")
    return bundles


def rename_version(made: Path, version: Path) -> None:
    """Copies a bundle to another version's name, its manifest saying so."""
    shutil.copytree(made, version)
    path = version / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "version": version.name}))


def _write_clips(path: str, config: RunConfig, uris: list[str]) -> None:
    """A clip store as decode leaves it, with a black clip of each file."""
    import lance

    decode = config.decode
    schema = clip_schema(decode.frames, decode.size)
    columns = {name: pa.nulls(len(uris), schema.field(name).type) for name in schema.names}
    columns["uri"] = pa.array(uris)
    for name, kind in (("frames", np.uint8), ("times_s", np.float32)):
        width = schema.field(name).type.list_size
        zeros = np.zeros(len(uris) * width, kind)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(zeros), width)
    lance.write_dataset(pa.table(columns, schema=schema), path)


def trained_of(
    config: RunConfig, recommender: Recommender, sizes: Sizes, vectors: np.ndarray
) -> Trained:
    """A model as if it had been trained on what lies in the run folder."""
    prepared = Prepared(config)
    prepared.__dict__["sizes"] = sizes  # also those of clips that are not there
    videos = VideoInputs(prepared.catalog, id_rows=np.arange(len(prepared.catalog)))
    cold_N = np.zeros(len(prepared.catalog), dtype=bool)
    return Trained(prepared, recommender, videos, torch.from_numpy(vectors), cold_N)


def tiny_config(run: Path, **sections: object) -> RunConfig:
    """A run config without video files, of a model that takes no time."""
    tree: dict[str, Any] = {
        "run": str(run),
        "data": {
            "events": "events.parquet",
            "columns": COLUMNS.model_dump(),
            "users": "users.parquet",
            "user_columns": {"features": ["region"]},
        },
        "split": {"kind": "leave_one_out"},
        "model": {
            "content": {"encoder": "none"},
            "dim": 8,
            "id_dim": 8,
            "feature_dim": 4,
            "state_dim": 16,
            "max_history": 27,
        },
        "serve": {"max_k": 20, "max_videos": 40},
    }
    tree |= sections
    tree["serve"] = {"budget_ms": PATIENT_MS, **tree["serve"]}
    return parse_config(tree, "tiny config")


def _videos(uris: list[str | None]) -> pa.Table:
    rows = np.arange(1, NUM_VIDEOS + 1)
    columns = {
        "video_id": [None, *(f"v{i}" for i in rows)],
        "uri": [None, *uris],
        "creator_row": [0, *(1 + rows % 3)],
        "category_rows": [[], *([1 + i % 2] for i in rows)],
        "duration": pa.array(_durations(), pa.float32(), from_pandas=True),
        "duration_bucket": [0, *(1 + rows % 5)],
        "first_time_ms": [None, *(START_MS + rows)],
    }
    for name in video_schema().names[len(columns) :]:
        columns[name] = [0, *([3] * NUM_VIDEOS)]
    return pa.table(columns, schema=video_schema())


def _details(run: Path) -> pa.Table:
    """Every second video has a title, and a poster of its own."""
    poster = run / "poster.png"
    poster.write_bytes(b"a picture")
    odd = [i % 2 == 1 for i in range(NUM_VIDEOS + 1)]
    titles = [f"Title {i}" if has else None for i, has in enumerate(odd)]
    return pa.table(
        [titles, [str(poster) if has else None for has in odd]], schema=details_schema()
    )


def _durations() -> np.ndarray:
    """Seconds of each video; of some, as of row 0, nobody knows."""
    rows = np.arange(NUM_VIDEOS + 1)
    return np.where(rows % 4 == 0, np.nan, 10.0 + rows)


def _timelines() -> pa.Table:
    """User u has 3 u events, the last one a test event; one in three is not positive."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[object]] = {name: [] for name in timeline_schema().names}
    for user in range(NUM_USERS):
        length = 3 * user
        positive = np.arange(length) % 3 != 2
        columns["user_id"].append(f"u{user}")
        rows = rng.integers(1, NUM_VIDEOS + 1, length)
        columns["video_row"].append(rows.tolist())
        columns["time_ms"].append((START_MS + np.arange(length) // 2 * DAY_MS).tolist())
        columns["positive"].append(positive.astype(int).tolist())
        columns["labels"].append(rng.integers(0, 2, 2 * length).tolist())
        seconds = rng.uniform(0, 60, length)
        lengths = _durations()[rows]
        columns["watched"].append(
            np.stack([seconds, share_watched(seconds, lengths)], 1).ravel().tolist()
        )
        columns["context_rows"].append(rng.integers(0, 3, length).tolist())
        columns["split"].append([TRAIN] * (length - 1) + [TEST] * (length > 0))
    return pa.table(columns, schema=timeline_schema())


def _users() -> pa.Table:
    """The region of each, 0 unknown, and of one without events."""
    columns = {
        "user_id": [*(f"u{i}" for i in range(NUM_USERS)), "newcomer"],
        USER_ROWS: [*([i % 3] for i in range(NUM_USERS)), [1]],
    }
    return pa.table(columns, schema=user_schema((), features=True))


def _counts(table: pa.Table, catalog: Catalog) -> EventCounts:
    rows_only = Timelines.from_table(table, COLUMNS, lambda rows, *_: np.zeros((len(rows), 0)))
    rows, hours = rows_only.video_rows, hour_of(rows_only.time_ms)
    actions = np.concatenate([rows_only.positive[:, None], rows_only.labels], 1)
    counts = np.concatenate([np.ones((len(rows), 1)), actions], 1).astype(np.int64)
    tables = {
        "video": HourlyCounts(rows, hours, counts),
        "context_tab": HourlyCounts(rows_only.context_rows[:, 0], hours, counts),
    }
    return EventCounts.of(catalog, CountLayout.of(COLUMNS), tables)


def _model(
    config: RunConfig, catalog: Catalog, clip: ClipShape | None, seed: int
) -> tuple[Recommender, Sizes, np.ndarray]:
    sizes = Sizes(
        num_videos=NUM_VIDEOS + 1,
        num_creators=4,
        num_categories=3,
        context_sizes=(3,),
        num_tasks=len(TASKS),
        num_count_features=len(CountLayout.of(COLUMNS)),
        watch_dim=COLUMNS.watch_dim,
        clip=clip,
        num_user_values=3,
    )
    torch.manual_seed(seed)
    tables = PlainTables(table_specs(config.model, sizes))
    recommender = Recommender(config.model, sizes, tables=tables).eval()
    with torch.no_grad():
        for parameter in recommender.parameters():
            # Larger than at the start of training, so that scores differ visibly.
            parameter.normal_(std=0.4)
        recommender.trending.fill_(2.0)
        if clip is not None:
            width = recommender.vector_dim
            vectors = np.random.default_rng(2).normal(size=(len(catalog), width))
            return recommender, sizes, vectors.astype(np.float32)
        inputs = VideoInputs(catalog, id_rows=np.arange(len(catalog)))
        vectors = recommender.encode_videos(inputs.batch(np.arange(len(catalog)))).numpy()
    return recommender, sizes, vectors
