"""What `prepare` and `decode` left in the run folder, as the later stages read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.run import RunConfig
from recsys.data.catalog import Catalog
from recsys.data.clip_store import ClipRows, ClipStore
from recsys.data.lessons import NO_LESSONS, Lessons
from recsys.data.ragged import FloatArray
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, list_files, open_input, read_json
from recsys.data.vectors import Vectors
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.features.batches import LoadClips, VideoInputs
from recsys.features.counts import CountLayout, EventCounts, read_counts, trending
from recsys.features.inputs import ClipShape, Sizes
from recsys.features.timelines import Timelines
from recsys.prepare.times import cuts_ms
from recsys.schema import VALID

HELD_CLIP_BYTES = 2**30
"""Clips up to this many bytes are read once and held in memory."""


@dataclass(frozen=True)
class Prepared:
    """The outputs of the data stages of a run."""

    config: RunConfig

    @property
    def folder(self) -> RunFolder:
        """The run folder that they lie in."""
        return RunFolder(self.config.run)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogue of N videos, of which row 0 stands for unknown ones."""
        return Catalog.read(self.folder.videos)

    @cached_property
    def lessons(self) -> Lessons:
        """Courses, and what must be finished before what."""
        if not self.config.data.video_columns.has_lessons or not exists(self.folder.lessons):
            return NO_LESSONS
        with open_input(self.folder.lessons) as file:
            return Lessons.from_table(pq.read_table(file))

    @cached_property
    def partitions(self) -> list[str]:
        """The partitions of timelines, in the order of their numbers."""
        files = list_files(self.folder.timelines, ".parquet")
        if not files:
            raise InputError(f"{self.folder.prepare}: there are no timelines; run recsys prepare")
        return files

    def timelines(self, partition: int) -> Timelines:
        """Reads the timelines of one partition, by its number; count features come when asked."""
        with open_input(self.partitions[partition]) as file:
            table = pq.read_table(file)
        return Timelines.from_table(table, self.config.data.columns, self.counts.on_demand)

    def columns(self, partition: int, names: Sequence[str]) -> pa.Table:
        """Some columns of `timeline_schema` of one partition; the others are not read."""
        with open_input(self.partitions[partition]) as file:
            return pq.read_table(file, columns=list(names))

    @cached_property
    def counts(self) -> EventCounts:
        """The hourly counts of everything that an event is about."""
        layout = CountLayout.of(self.config.data.columns)
        return read_counts(self.folder.counts, self.catalog, layout)

    def trending(self, split: int) -> FloatArray | None:
        """How much videos trend (N,) at the time when the validation or the test begins.

        Args:
            split: VALID or TEST.

        Returns:
            None for leave-one-out, where every user has a time of their own.
        """
        cut = self.cut_ms(split)
        return None if cut is None else trending(self.counts.shown(cut))

    def cut_ms(self, split: int) -> int | None:
        """When the validation (VALID) or the test (TEST) begins; None for leave-one-out."""
        report = read_json(self.folder.report_of("prepare"))
        if not report:
            raise InputError(f"{self.folder.prepare}: report.json is missing; run recsys prepare")
        cuts = cuts_ms(self.config.split, report["time_unit"], report["last_event_ms"])
        return None if cuts is None else int(cuts[split - VALID])

    @property
    def live_seq(self) -> int | None:
        """The place in the log of `data.live` up to which events are in the run; None without."""
        seq: int | None = self._live.get("seq")
        return seq

    @property
    def live_log(self) -> str | None:
        """The id of that log; None without one, or where it has none."""
        log_id: str | None = self._live.get("log")
        return log_id

    @property
    def _live(self) -> dict[str, Any]:
        report = read_json(self.folder.report_of("prepare")) or {}
        live: dict[str, Any] = report.get("live", {})
        return live

    def vocab(self, name: str) -> Vocab:
        """One vocabulary: video, creator, category or context_<column>."""
        return Vocab.read(self.folder.vocab(name))

    @cached_property
    def clips(self) -> ClipStore | None:
        """The decoded clips; None where the run uses none."""
        if not self.config.decodes:
            return None
        if not exists(self.folder.clips):
            raise InputError(f"{self.folder.clips}: there are no clips; run recsys decode")
        return ClipStore(self.folder.clips)

    @cached_property
    def sizes(self) -> Sizes:
        """How large the data make the model: rows of its tables, widths of its inputs."""
        contexts = [f"context_{name}" for name in self.config.data.columns.context]
        users = self.config.data.user_columns
        return Sizes(
            num_videos=len(self.catalog),
            num_creators=len(self.vocab("creator")),
            num_categories=len(self.vocab("category")),
            context_sizes=tuple(len(self.vocab(name)) for name in contexts),
            num_tasks=len(self.config.data.columns.tasks),
            num_count_features=len(CountLayout.of(self.config.data.columns)),
            watch_dim=self.config.data.columns.watch_dim,
            clip=self._clip_shape(),
            num_user_values=len(self.vocab("user")) if users.features else 0,
        )

    @cached_property
    def vectors(self) -> Vectors | None:
        """Ready-made content vectors; None where the run uses none."""
        if not self.config.has_vectors:
            return None
        return Vectors.read(self.folder.vectors)

    def _clip_shape(self) -> ClipShape | None:
        if self.vectors is not None:
            return ClipShape(frames=1, size=0, feature_dim=self.vectors.dim)
        if self.clips is None:
            return None
        shape = self.clips.frame_shape
        if self.clips.stores_features:
            return ClipShape(frames=shape[0], size=0, feature_dim=shape[1])
        return ClipShape(frames=shape[0], size=shape[1])

    def video_inputs(self, *, with_valid: bool) -> VideoInputs:
        """What turns video rows into tensors.

        Args:
            with_valid: Whether validation events count as known, so that their videos have an ID
                embedding.
        """
        id_rows = self.catalog.id_rows(
            with_valid=with_valid, min_events=self.config.prepare.min_video_events
        )
        if not self.config.model.use_id:
            id_rows = np.zeros_like(id_rows)
        clips, vectors = self.clips, self.vectors
        if vectors is not None:
            clip_bytes = 4 * vectors.dim
            return VideoInputs(self.catalog, id_rows, vectors.rows(), vectors.take, clip_bytes)
        if clips is None:
            return VideoInputs(self.catalog, id_rows)
        row_bytes = int(np.prod(clips.frame_shape)) * (2 if clips.stores_features else 1)
        load: LoadClips = clips.take
        if len(clips) * row_bytes <= HELD_CLIP_BYTES:
            held = clips.take(ClipRows(np.arange(len(clips))))
            load = held.__getitem__
        rows = clips.rows_of(self.catalog.uris())
        return VideoInputs(self.catalog, id_rows, rows, load, row_bytes)
