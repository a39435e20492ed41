"""Training steps of a little random world, without a run folder: for the parts of training."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.config.data import EventColumns
from recsys.config.run import RunConfig, parse_config
from recsys.data.catalog import Catalog
from recsys.features.batches import Batcher, Candidates, VideoInputs
from recsys.features.counts import CountLayout
from recsys.features.inputs import Batch, ClipShape, Sizes
from recsys.features.timelines import EventArrays, Timelines
from recsys.model.recommender import Losses, Recommender
from recsys.schema import TRAIN, VALID, video_schema

NUM_VIDEOS = 50
COLUMNS = EventColumns(tasks=("click", "like"), watched="seconds", context=("tab",))
SIZES = Sizes(
    num_videos=NUM_VIDEOS + 1,
    num_creators=6,
    num_categories=4,
    context_sizes=(3,),
    num_tasks=2,
    num_count_features=len(CountLayout.of(COLUMNS)),
    watch_dim=2,
    clip=ClipShape(frames=2, size=0, feature_dim=4),
    num_user_values=5,
)


def make_config(**sections: Any) -> RunConfig:
    """A config of a model without any chance in it."""
    tree = {
        "run": "unused",
        "data": {"events": "unused", "columns": COLUMNS.model_dump()},
        "split": {"kind": "leave_one_out"},
        "model": {
            "content": {"frame_dim": 4, "dim": 4},
            "dim": 8,
            "id_dim": 8,
            "feature_dim": 4,
            "state_dim": 8,
            "dropout": 0.0,
            "id_dropout": 0.0,
        },
    }
    return parse_config({**tree, **sections}, "test")


def make_videos() -> VideoInputs:
    """Every second video has a clip; video i has i % 3 categories."""
    rows = np.arange(NUM_VIDEOS + 1)
    columns: dict[str, Any] = {name: [0] * len(rows) for name in video_schema().names}
    columns |= {"video_id": rows.astype(str), "uri": [""] * len(rows)}
    columns |= {"creator_row": rows % 6, "duration_bucket": rows % 32}
    columns["category_rows"] = [list(range(1, 1 + i % 3)) for i in rows.tolist()]
    catalog = Catalog.from_table(pa.table(columns, schema=video_schema()))
    features = np.random.default_rng(0).normal(size=(NUM_VIDEOS + 1, 2, 4)).astype(np.float16)
    clips = np.where(rows % 2 == 1, rows, -1)
    return VideoInputs(catalog, id_rows=rows, clip_rows=clips, load_clips=features.__getitem__)


def make_timelines(seed: int, num_users: int = 6) -> Timelines:
    """Users of 1 to 9 events."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 10, num_users)
    total = int(lengths.sum())
    return Timelines(
        user_ids=[f"u{i}" for i in range(num_users)],
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        video_rows=rng.integers(1, NUM_VIDEOS + 1, total),
        time_ms=np.sort(rng.integers(0, 10**9, total)),
        positive=rng.integers(0, 2, total).astype(np.int8),
        labels=rng.integers(0, 2, (total, 2)).astype(np.int8),
        watched=rng.uniform(0, 2, (total, 2)).astype(np.float32),
        context_rows=rng.integers(0, 3, (total, 1)),
        split=np.full(total, TRAIN, np.int8),
        count_features=rng.normal(size=(total, SIZES.num_count_features)).astype(np.float32),
        user_rows=rng.integers(0, SIZES.num_user_values, (num_users, 2)),
    )


def make_batch(seed: int, *, empty: bool = False, num_users: int = 6) -> Batch:
    """One step; an empty one teaches nothing."""
    batcher = Batcher(
        videos=make_videos(),
        candidates=Candidates(np.ones(NUM_VIDEOS + 1, dtype=np.int64), negatives=8),
        learn_from=TRAIN,
        learn_before=VALID,
        batch_timelines=6,
        max_history=20,
    )
    timelines, rng = make_timelines(seed, num_users), np.random.default_rng(seed)
    if empty:
        nothing = np.zeros(0, dtype=np.int64)
        return batcher.make(timelines, nothing, nothing, rng)
    return batcher.make(timelines, timelines.offsets[:-1], timelines.offsets[1:], rng)


def loss_of(losses: Losses) -> torch.Tensor:
    """The loss of a step of one worker, as training weighs it by default."""
    retrieval = losses.retrieval / losses.num_retrieval.clamp(min=1)
    return retrieval + (losses.tasks / losses.num_tasks.clamp(min=1)).sum()


def repeat_scores(model: Recommender, arrays: EventArrays) -> Tensor:
    """(B, L) what each event's video gains by having been seen before it, one by one."""
    shown, liked = (10 * model.repeat.detach()).tolist()
    scores = torch.zeros(arrays.video_rows.shape)
    for b, i in np.ndindex(*scores.shape):
        same = arrays.video_rows[b, : arrays.num_prior[b, i]] == arrays.video_rows[b, i]
        scores[b, i] += shown * same.any()
        scores[b, i] += liked * (same & (arrays.actions[b, : len(same), 0] > 0)).any()
    return scores
