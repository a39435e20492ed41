"""From partitions of timelines to training steps.

Ray Data does not remember its place in a stream, so training reads the partitions itself: an epoch
is a seeded order of partitions, each worker takes its share of every round of them, and a
checkpoint between two rounds carries the position. Workers of fewer timelines than others take
steps between theirs that teach nothing.

Shapes: N videos of the catalogue, V distinct ones of a step, M of them with a clip, S frames of a
clip, Z features of a frame, B timelines, L positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from recsys.data.catalog import Catalog
from recsys.data.clip_store import ClipArray, ClipRows
from recsys.data.ragged import IntArray, union
from recsys.features.inputs import Batch, EventBatch, RequestContext, VideoBatch
from recsys.features.timelines import EventArrays, Timelines, cut_windows

T = TypeVar("T")
BoolArray = npt.NDArray[np.bool_]
Windows = tuple[IntArray, IntArray]
"""First events (B,) of some windows of timelines, and the events after their last ones (B,)."""

LoadClips = Callable[[ClipRows], ClipArray]
"""Clip rows (M,) -> frames (M, S, height, width, 3) uint8 or features (M, S, Z) float16."""


@dataclass(frozen=True)
class VideoInputs:
    """Everything that turns video rows into tensors; N videos."""

    catalog: Catalog
    id_rows: IntArray
    """(N,) row of each video in the ID table; 0 where it has none of its own."""
    clip_rows: ClipRows | None = None
    """(N,) row of each video's clip in the store; -1 where it has none."""
    load_clips: LoadClips | None = None
    clip_bytes: int = 0
    """Of a clip as it is read."""

    def batch(self, rows: IntArray, *, is_encoded_V: BoolArray | None = None) -> VideoBatch:
        """Makes the model inputs of the videos of some rows (V,).

        Args:
            rows: Of the videos.
            is_encoded_V: Of which of them that have a clip it is read, for others take what the
                model has cached; without it of all.
        """
        categories = self.catalog.categories.select(rows)
        clips = index = cached = None
        if self.clip_rows is not None and self.load_clips is not None:
            clip_rows = self.clip_rows[rows]
            there = clip_rows >= 0
            if is_encoded_V is not None:
                cached = torch.from_numpy(np.where(there & ~is_encoded_V, rows, -1))
                there &= is_encoded_V
            index = torch.from_numpy(np.where(there, np.cumsum(there) - 1, -1))
            # Without any, one is encoded that nobody looks at: data-parallel workers must all use
            # the same parameters in every step.
            wanted = clip_rows[there] if there.any() else np.zeros(1, dtype=np.int64)
            clips = torch.from_numpy(self.load_clips(ClipRows(wanted)))
        return VideoBatch(
            id_rows=torch.from_numpy(self.id_rows[rows]),
            creator_rows=torch.from_numpy(self.catalog.creator_rows[rows]),
            category_rows=torch.from_numpy(categories.values.astype(np.int64)),
            category_lengths=torch.from_numpy(categories.lengths),
            durations=torch.from_numpy(self.catalog.duration_buckets[rows]),
            clips=clips,
            clip_index=index,
            cached_rows=cached,
        )

    def within(
        self, rows: IntArray, most: int, *, first: IntArray, rng: np.random.Generator
    ) -> BoolArray | None:
        """Which of some videos are among the `most` clips that are read; None where all are.

        Args:
            rows: Of the videos (V,).
            most: Clips that are read.
            first: Rows of videos that are taken before others; in either group chance decides.
            rng: Drawn from only where there are more clips than `most`.
        """
        if self.clip_rows is None:
            return None
        with_clip = np.flatnonzero(self.clip_rows[rows] >= 0)
        if len(with_clip) <= most:
            return None
        key = rng.random(len(with_clip)) - np.isin(rows[with_clip], first)
        chosen = np.zeros(len(rows), np.bool_)
        chosen[with_clip[np.argsort(key)[:most]]] = True
        return chosen


def event_batch(arrays: EventArrays) -> EventBatch:
    """Makes tensors of padded windows."""
    num_prior = torch.from_numpy(arrays.num_prior)
    context = RequestContext(
        gaps=torch.from_numpy(arrays.gaps),
        hours=torch.from_numpy(arrays.hours),
        num_prior=num_prior,
        tallies=torch.from_numpy(arrays.tallies),
        context_rows=torch.from_numpy(arrays.context_rows),
    )
    return EventBatch(
        actions=torch.from_numpy(arrays.actions),
        num_prior=num_prior,
        context=context,
        count_features=torch.from_numpy(arrays.count_features),
        user_rows=torch.from_numpy(arrays.user_rows),
    )


@dataclass(frozen=True)
class Candidates:
    """Which videos a step ranks its targets among, and how likely each was to be there."""

    positives: IntArray
    """(N,) positive events of each video that can be drawn as targets."""
    negatives: int
    """Videos drawn uniformly a step; with as many as there are, all of them are candidates."""
    pool: IntArray | None = None
    """(n,) sorted rows that are drawn from; without it all. A video that nobody has been shown yet
    belongs to no pool: that it was not watched says nothing against it."""

    @cached_property
    def _num_positives(self) -> int:
        return int(self.positives.sum())

    def draw(
        self, targets: IntArray, rng: np.random.Generator
    ) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """Candidate rows, sorted, and the log of the chance of each to be among them.

        A video is a candidate when it is drawn as a negative (n of N) or is the target of one of
        the step's P positives: q = 1 - (1 - n / N) (1 - share of positives)^P.
        """
        size = len(self.positives) - 1 if self.pool is None else len(self.pool)
        if self.negatives >= size:
            pool = np.arange(1, size + 1) if self.pool is None else self.pool
            rows = union(pool, targets[targets > 0])
            return rows, np.zeros(len(rows), dtype=np.float32)
        places = rng.choice(size, self.negatives, replace=False)
        drawn = places + 1 if self.pool is None else self.pool[places]
        rows = union(drawn, targets[targets > 0])
        share = self.positives[rows] / max(self._num_positives, 1)
        missed = (1 - self.negatives / size) * (1 - share) ** len(targets)
        return rows, np.log1p(-missed).astype(np.float32)


@dataclass(frozen=True)
class Batcher:
    """Makes training steps of windows of timelines."""

    videos: VideoInputs
    candidates: Candidates
    learn_from: int
    """First split whose outcomes are learnt: TRAIN, or VALID to go on with newer days."""
    learn_before: int
    """First split that is out of sight: VALID in training, TEST in the refit."""
    batch_timelines: int
    max_history: int
    step_clips: int | None = None
    """Clips that a step reads at most; without it those of all its videos."""

    @property
    def most_clip_bytes(self) -> int:
        """Bytes of the clips of a step that reads as many as it ever may."""
        looked_at = self.candidates.negatives + self.batch_timelines * self.max_history
        most = min(looked_at, len(self.videos.catalog))
        return self.videos.clip_bytes * min(self.step_clips or most, most)

    def num_timelines(self, timelines: Timelines) -> int:
        """Timelines with anything to learn from."""
        learnt = timelines.count_before(self.learn_before) - timelines.count_before(self.learn_from)
        return int((learnt > 0).sum())

    def _windows(self, timelines: Timelines) -> Windows:
        starts = timelines.offsets[:-1]
        counts = timelines.count_before(self.learn_before)
        learnt = counts - timelines.count_before(self.learn_from) > 0
        return cut_windows(starts[learnt], (starts + counts)[learnt], self.max_history)

    def plan(self, timelines: Timelines, rng: np.random.Generator) -> list[Windows]:
        """The windows of each step, those of like length together, from the shortest on.

        Which of equal length stand together is drawn; `in_step` puts the steps in order.
        """
        starts, stops = self._windows(timelines)
        order = np.argsort(stops - starts + rng.random(len(starts)))
        firsts = range(0, len(order), self.batch_timelines)
        groups = [order[first : first + self.batch_timelines] for first in firsts]
        return [(starts[group], stops[group]) for group in groups]

    def num_learnt(self, timelines: Timelines, plan: Sequence[Windows]) -> IntArray:
        """Of each of S steps the positive events and all events that it learns from: (S, 2)."""
        learn = self._learns(timelines.split) & (timelines.video_rows > 0)
        totals = np.stack([learn & (timelines.positive > 0), learn]).cumsum(1)
        totals = np.pad(totals, ((0, 0), (1, 0)))
        counts = [(totals[:, stops] - totals[:, starts]).sum(1) for starts, stops in plan]
        return np.array(counts, dtype=np.int64).reshape(-1, 2)

    def _learns(self, split: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
        """Whether events of a split are learnt from."""
        learns: npt.NDArray[np.bool_] = (split >= self.learn_from) & (split < self.learn_before)
        return learns

    def make(
        self, timelines: Timelines, starts: IntArray, stops: IntArray, rng: np.random.Generator
    ) -> Batch:
        """One step of the windows [start, stop); without windows, a step that teaches nothing."""
        users = np.searchsorted(timelines.offsets, starts, side="right") - 1
        if not len(starts):
            starts = stops = np.zeros(1, dtype=np.int64)
        arrays = timelines.windows(starts, stops)
        learn = arrays.present & self._learns(_padded_split(timelines, starts, arrays))
        positive = arrays.actions[..., 0] > 0
        targets = arrays.video_rows[learn & positive]
        learn &= arrays.video_rows > 0
        num_learnt = [(learn & positive).sum(), learn.sum()]
        candidates, log_q = self.candidates.draw(targets, rng)
        rows = union(arrays.video_rows, candidates, np.zeros(1, np.int64))
        log_q_V = np.full(len(rows), np.inf, dtype=np.float32)
        log_q_V[np.searchsorted(rows, candidates)] = log_q
        encoded = None
        if self.step_clips is not None:
            own = union(arrays.video_rows)
            encoded = self.videos.within(rows, self.step_clips, first=own, rng=rng)
        return Batch(
            videos=self.videos.batch(rows, is_encoded_V=encoded),
            log_q=torch.from_numpy(log_q_V),
            events=event_batch(arrays),
            video_index=torch.from_numpy(np.searchsorted(rows, arrays.video_rows)),
            learn=torch.from_numpy(learn),
            queries=torch.from_numpy(np.flatnonzero(learn & positive)),
            num_learnt=torch.tensor(num_learnt, dtype=torch.float32),
            user_ids=tuple(timelines.user_ids[user] for user in users),
        )


def _padded_split(
    timelines: Timelines, starts: IntArray, arrays: EventArrays
) -> npt.NDArray[np.int8]:
    event = np.where(arrays.present, starts[:, None] + np.arange(arrays.present.shape[1]), 0)
    if not len(timelines.split):
        return np.zeros(event.shape, dtype=np.int8)
    return timelines.split[event]


def epoch_order(num_partitions: int, *, seed: int, epoch: int) -> IntArray:
    """The order in which an epoch takes the partitions."""
    return np.random.default_rng([seed, epoch]).permutation(num_partitions)


def in_step(plan: Sequence[Windows], order: IntArray) -> list[Windows]:
    """The steps of one of several workers, beside steps of like lengths of the others.

    All workers take a step together, and who has the shorter windows waits for the others. So the
    same place in the order of lengths gets the same place in the order of steps.

    Args:
        plan: The worker's own steps, from the shortest windows on, at most S.
        order: (S,) which of S lengths each step has; drawn once for all workers.

    Returns:
        S steps; where the worker has none, one without windows.

    >>> short, long = (np.array([0]), np.array([1])), (np.array([1]), np.array([9]))
    >>> [stops.tolist() for _, stops in in_step([short, long], np.array([2, 1, 0]))]
    [[], [9], [1]]
    """
    nothing = np.zeros(0, dtype=np.int64)
    by_length = [(nothing, nothing)] * len(order)
    for number, windows in enumerate(plan):
        by_length[number * len(order) // len(plan)] = windows
    return [by_length[place] for place in order]


def made_ahead(makers: Iterable[Callable[[], T]], *, threads: int = 1) -> Iterator[T]:
    """What makers make, in their order, made while what came before it is used.

    Args:
        makers: Called in threads, several at a time; none may depend on another.
        threads: How many things are being made, or wait to be used, at a time.
    """
    left, begun = iter(makers), deque[Future[T]]()
    with ThreadPoolExecutor(threads) as pool:
        begun.extend(pool.submit(maker) for maker in islice(left, threads))
        while begun:
            made = begun.popleft().result()
            begun.extend(pool.submit(maker) for maker in islice(left, 1))
            yield made


def drop_ids(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """The same step with the ID embedding of a random share of its videos left out.

    A video whose ID is dropped is known by its content alone, as one that nobody has seen yet.
    """
    rows = batch.videos.id_rows
    keep = torch.from_numpy(rng.random(len(rows)) >= share)
    return replace(batch, videos=replace(batch.videos, id_rows=rows * keep))
