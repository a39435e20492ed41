"""A training worker without Ray and without a run folder: its data and its checkpoints are here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.train

from recsys.data.catalog import Catalog
from recsys.data.ragged import FloatArray
from recsys.features.batches import VideoInputs
from recsys.features.inputs import Sizes
from recsys.features.timelines import Timelines
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, TRAIN, VALID
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker
from tests.steps import NUM_VIDEOS, SIZES, make_config, make_timelines, make_videos


@dataclass(frozen=True)
class MemoryPrepared(Prepared):
    """What the data stages leave, of the little world of `tests.steps`."""

    parts: tuple[Timelines, ...] = ()
    trending_by_split: Mapping[int, FloatArray] = field(default_factory=dict)

    @cached_property
    def catalog(self) -> Catalog:
        counts = {
            f"num_{name}_{kind}": self._count(split, positive=kind == "positives")
            for name, split in (("train", TRAIN), ("valid", VALID))
            for kind in ("events", "positives")
        }
        table = make_videos().catalog.table
        for name, values in counts.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
        return Catalog.from_table(table)

    def _count(self, split: int, *, positive: bool) -> np.ndarray[Any, Any]:
        kept = [
            part.video_rows[(part.split == split) & ((part.positive > 0) | (not positive))]
            for part in self.parts
        ]
        counts = np.bincount(np.concatenate(kept), minlength=NUM_VIDEOS + 1)
        counts[0] = 0
        return counts

    @cached_property
    def partitions(self) -> list[str]:
        return [f"part-{number:05d}" for number in range(len(self.parts))]

    def timelines(self, partition: int) -> Timelines:
        return self.parts[partition]

    def trending(self, split: int) -> FloatArray | None:
        return self.trending_by_split.get(split)

    @cached_property
    def sizes(self) -> Sizes:
        return SIZES

    def video_inputs(self, *, with_valid: bool) -> VideoInputs:
        rows = self.catalog.id_rows(with_valid=with_valid, min_events=1)
        return replace(make_videos(), catalog=self.catalog, id_rows=rows)


def split_off(timelines: Timelines) -> Timelines:
    """The last event of each user is of the test, the one before it of the validation."""
    split = np.full(len(timelines.time_ms), TRAIN, np.int8)
    for start, stop in zip(timelines.offsets[:-1], timelines.offsets[1:], strict=True):
        split[max(stop - 2, start) : stop] = VALID
        split[stop - 1] = TEST
    return replace(timelines, split=split)


def make_prepared(num_users: tuple[int, ...] = (6, 9, 4), **sections: Any) -> MemoryPrepared:
    """Partitions of so many users, all of whose videos are among the candidates of a step."""
    parts = tuple(split_off(make_timelines(i, users)) for i, users in enumerate(num_users))
    rng = np.random.default_rng(7)
    trending = {
        split: rng.normal(size=NUM_VIDEOS + 1).astype(np.float32) for split in (VALID, TEST)
    }
    return MemoryPrepared(make_config(**sections), parts, trending)


class Stopped(Exception):
    """Stands for a worker's death."""


class Checkpoints:
    """Stands where Ray Train keeps checkpoints; stops the worker once it has kept some."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.folder, self.stop_after = folder, stop_after
        self.metrics: list[dict[str, Any]] = []

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        self.metrics.append(metrics)
        shutil.copytree(checkpoint.path, self.newest, dirs_exist_ok=True)
        if self.kept == self.stop_after:
            raise Stopped

    @property
    def kept(self) -> int:
        return len(self.metrics)

    @property
    def newest(self) -> Path:
        return self.folder / str(self.kept)

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        yield str(self.newest)


def make_worker(
    patch: pytest.MonkeyPatch,
    job: Job,
    prepared: Prepared,
    kept: Checkpoints,
    *,
    start: Checkpoints | None = None,
    place: tuple[int, int] = (0, 1),
) -> Worker:
    """Worker `place[0]` of `place[1]`, whose checkpoints are kept here.

    It goes on from the newest one of `start`.
    """
    rank, workers = place
    patch.setattr(ray.train, "report", kept.report)
    patch.setattr(ray.train, "get_checkpoint", lambda: start)
    patch.setattr(ray.train, "get_preemption_info", lambda: None)
    return Worker(job, prepared, collectives=Collectives(rank, workers))
