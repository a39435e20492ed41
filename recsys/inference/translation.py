"""Timelines as another model numbers them: the same events with its rows of videos and contexts.

Shapes: N videos of ours, B users, E events, C context columns, T tasks of ours, F count features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.ragged import FloatArray, IntArray
from recsys.data.vocab import Vocab
from recsys.features.counts import CountLayout
from recsys.features.timelines import Timelines
from recsys.inference.ranker import Ranker

LAST = -1e30
"""Score of a video that the other model does not know: below any, and the same for all."""


@dataclass(frozen=True)
class ModelVocabs:
    """The ids and column names that a model knows, in the order of its numbers."""

    vocabs: Mapping[str, Vocab]
    """`video`, `context_<column>` and, where the model knows anything of users, `user`."""
    contexts: Sequence[str]
    tasks: Sequence[str]
    watch_dim: int = 0

    @property
    def count_layout(self) -> CountLayout:
        """Which count features the model takes."""
        return CountLayout(tuple(self.tasks), tuple(self.contexts))


@dataclass(frozen=True)
class Translation:
    """From our numbers to another model's; what it does not know is 0 there."""

    video_row_N: IntArray
    context_rows: tuple[tuple[int | None, IntArray], ...]
    """For each context column of theirs: ours, and their row of each of our rows."""
    task_places: tuple[int | None, ...]
    """For each task of theirs: the place of ours."""
    watch_dim: int
    """Numbers that the other model wants to know how long a video was watched."""
    num_tasks: int
    count_places: tuple[int | None, ...]
    """For each count feature of theirs: the place of ours."""
    user_rows: IntArray
    """Their row of each of our user values; all 0 where they know nothing of users."""

    @classmethod
    def between(cls, ours: ModelVocabs, theirs: ModelVocabs) -> Translation:
        """Matches ids and the names of columns."""
        contexts = []
        for column in theirs.contexts:
            place, name = _place(ours.contexts, column), f"context_{column}"
            rows = np.zeros(1, np.int64)
            if place is not None:
                rows = _rows(ours.vocabs[name], theirs.vocabs[name])
            contexts.append((place, rows))
        return cls(
            video_row_N=_rows(ours.vocabs["video"], theirs.vocabs["video"]),
            context_rows=tuple(contexts),
            task_places=tuple(_place(ours.tasks, task) for task in theirs.tasks),
            watch_dim=theirs.watch_dim,
            num_tasks=len(ours.tasks),
            count_places=tuple(theirs.count_layout.places_in(ours.count_layout)),
            user_rows=_user_values(ours.vocabs, theirs.vocabs),
        )

    def timelines(self, timelines: Timelines) -> Timelines:
        """The same events in the other model's numbers."""
        zeros = np.zeros(len(timelines.video_rows), np.int64)
        labels = [zeros if at is None else timelines.labels[:, at] for at in self.task_places]
        watched = timelines.watched[:, : self.watch_dim]
        missing = self.watch_dim - watched.shape[1]
        contexts = [
            zeros if at is None else rows[timelines.context_rows[:, at]]
            for at, rows in self.context_rows
        ]
        return replace(
            timelines,
            video_rows=self.video_row_N[timelines.video_rows],
            labels=_columns(labels, len(zeros)).astype(np.int8),
            watched=np.pad(watched, ((0, 0), (0, missing))),
            context_rows=_columns(contexts, len(zeros)).astype(np.int64),
            count_features=self._count_features(timelines.count_features[:]),
            user_rows=self.user_rows[timelines.user_rows],
        )

    def _count_features(self, ours_EF: FloatArray) -> FloatArray:
        """Theirs among ours; zeros, as of something without events, for what we do not count."""
        zeros = np.zeros(len(ours_EF), np.float32)
        return np.stack([zeros if at is None else ours_EF[:, at] for at in self.count_places], 1)

    def logits(self, logits_ET: NDArray[np.floating]) -> NDArray[np.float32]:
        """The other model's logits of our tasks (E, T), NaN where it does not know one."""
        ours_ET = np.full((len(logits_ET), self.num_tasks), np.nan, np.float32)
        for column, place in enumerate(self.task_places):
            if place is not None:
                ours_ET[:, place] = logits_ET[:, column]
        return ours_ET

    def ranker(self, theirs: Ranker) -> Ranker:
        """The other model's order of our videos; those that it does not know come last."""
        rows = torch.from_numpy(self.video_row_N)
        unknown_N = rows == 0

        def scores(start: int, stop: int) -> Tensor:
            scores_BN = theirs(start, stop)
            device = scores_BN.device
            return scores_BN[:, rows.to(device)].masked_fill_(unknown_N.to(device), LAST)

        return scores


def _place(names: Sequence[str], name: str) -> int | None:
    return list(names).index(name) if name in names else None


def _user_values(ours: Mapping[str, Vocab], theirs: Mapping[str, Vocab]) -> IntArray:
    if "user" not in ours:
        return np.zeros(1, np.int64)
    return _rows(ours["user"], theirs.get("user", Vocab([])))


def _rows(ours: Vocab, theirs: Vocab) -> IntArray:
    """Their row of each of our rows, row 0 among them."""
    return np.concatenate([np.zeros(1, np.int64), theirs.rows(ours.ids)])


def _columns(columns: list[NDArray[Any]], num_events: int) -> NDArray[Any]:
    return np.stack(columns, 1) if columns else np.zeros((num_events, 0))
