"""From a user id to recommendations and scores: history, state, query, index, filter, order.

Shapes: B = 1 user, L events of the history, N videos, D retrieval vector, H state, T tasks, J
columns of user features, F count features, R videos that are scored or were seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from recsys.bundle.contents import Bundle
from recsys.data.ragged import FloatArray, IntArray
from recsys.errors import InputError
from recsys.features.batches import event_batch
from recsys.features.inputs import EventBatch, RequestContext
from recsys.features.timelines import Timelines, share_watched
from recsys.inference.rerank import Reranker, relative_relevance
from recsys.model.seen import seen_before
from recsys.model.user import states_at
from recsys.schema import UNKNOWN_ROW
from recsys.serve.store import Event, HistoryStore, before, insert
from recsys.serve.trending import Trending


@dataclass(frozen=True)
class ScoredVideo:
    """A video and what the model thinks of it for one request."""

    video_id: str
    score: float
    """Dot product of the user's query and the video's vector, more or less if seen before, and
    more or less by what is trending."""
    probabilities: Mapping[str, float]
    """Of each ranking task."""


@dataclass(frozen=True)
class Answer:
    """What a request for recommendations or scores gives."""

    user_id: str
    known_user: bool
    """False for a user without any history here; the answer is then the one for everybody."""
    now_ms: int
    num_history: int
    """Events that the answer is made from."""
    videos: tuple[ScoredVideo, ...]
    unknown_video_ids: tuple[str, ...] = ()
    """Videos that were asked for and that the catalogue does not hold."""


@dataclass(frozen=True)
class _Reading:
    """What the model reads of a request: who asks, when, and after which events."""

    user_id: str
    now_ms: int
    timeline: Timelines
    """What they did before."""
    state: Tensor
    """(1, H)."""
    context: RequestContext
    """Each entry (1,) or (1, C)."""
    seen: IntArray
    """(R,) sorted rows of the videos that they saw before."""
    repeat_bias: FloatArray
    """(R,) what that adds to the videos' scores."""
    trending: FloatArray
    """(N,) what the counts of the last hours add to all videos' scores."""


class ServingRecommender:
    """Answers requests from a bundle; any thread may call it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        columns = bundle.config.data.columns
        self.tasks, self.watch_dim = columns.tasks, columns.watch_dim
        self._contexts = {name: bundle.vocabs[f"context_{name}"] for name in columns.context}
        self._videos = bundle.vocabs["video"]
        self._vectors = torch.from_numpy(bundle.vectors)
        self._model = bundle.recommender
        self._trending = Trending(bundle.recommender, bundle.counts)
        self._searching, self._indexed = threading.Lock(), np.zeros(0, np.float32)
        longest = bundle.config.model.max_history
        self.store = HistoryStore(bundle.histories, longest=longest, users=bundle.users)
        self._rank_task = self._find_rank_task(bundle.config.serve.rank)
        traits = bundle.traits
        self._reranker = None if traits is None else Reranker(bundle.config.rerank, traits)

    def recommend(
        self,
        user_id: str,
        k: int,
        *,
        now_ms: int | None = None,
        context: Mapping[str, str] | None = None,
        user: Mapping[str, str] | None = None,
        exclude_seen: bool = True,
    ) -> Answer:
        """The k best videos for a user.

        Args:
            user_id: Known or not.
            k: How many, at most `serve.max_k`.
            now_ms: When the request is made (Unix, UTC); later events are not used. The clock's
                time without it.
            context: Values of the context columns; a missing one counts as unknown.
            user: Values of the user features, in place of those that the bundle knows.
            exclude_seen: Leave out videos that the user has had a positive event with.

        Raises:
            InputError: A limit, a context column or a user feature is wrong.
        """
        serve = self.bundle.config.serve
        if not 1 <= k <= serve.max_k:
            raise InputError(f"k={k}: must be from 1 to {serve.max_k} (serve.max_k)")
        reading = self._read(user_id, now_ms, context, user)
        liked = reading.timeline.video_rows[reading.timeline.positive > 0]
        excluded = liked if exclude_seen else liked[:0]
        candidates = k
        if self._rank_task is not None or self._reranker is not None:
            candidates = max(k, self.bundle.config.rerank.candidates)
        rows = self._retrieve(reading, candidates, excluded)
        scores, probabilities = self._score(reading, rows)
        order = self._order(rows, scores, probabilities, k)
        rows, scores, probabilities = rows[order], scores[order], probabilities[order]
        if self.bundle.config.rerank.drawn_places and self._reranker is not None:
            rows = self._reranker.with_drawn(user_id, rows, excluded, partial(self._dots, reading))
            scores, probabilities = self._score(reading, rows)
        return self._answer(reading, self._name(rows[:k], scores, probabilities))

    def score(
        self,
        user_id: str,
        video_ids: Sequence[str],
        *,
        now_ms: int | None = None,
        context: Mapping[str, str] | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Answer:
        """Scores of given videos for a user, in the order in which they are asked for.

        Raises:
            InputError: A limit, a context column or a user feature is wrong.
        """
        most = self.bundle.config.serve.max_videos
        if not 1 <= len(video_ids) <= most:
            raise InputError(
                f"{len(video_ids)} video_ids: must be from 1 to {most} (serve.max_videos)"
            )
        reading = self._read(user_id, now_ms, context, user)
        rows = np.array([self._videos.row(video_id) for video_id in video_ids], np.int64)
        known = rows[rows != UNKNOWN_ROW]
        unknown = tuple(v for v, row in zip(video_ids, rows, strict=True) if row == UNKNOWN_ROW)
        return self._answer(reading, self._name(known, *self._score(reading, known)), unknown)

    def append(
        self,
        user_id: str,
        video_id: str,
        *,
        time_ms: int | None = None,
        actions: Mapping[str, bool] | None = None,
        watched: float | None = None,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Adds a live event to a user's history.

        Args:
            user_id: Known or new.
            video_id: One of the catalogue.
            time_ms: When it happened (Unix, UTC); now without it.
            actions: `positive` (true where it is not given) and the ranking tasks (false).
            watched: How long, in the unit of the run's column of it; 0 where not given.
            context: Values of the context columns.

        Returns:
            How many events of the user are kept now.

        Raises:
            InputError: A video, task or context column is unknown, or the model has no use for how
                long a video was watched.
        """
        row = self._videos.row(video_id)
        if row == UNKNOWN_ROW:
            raise InputError(f"video_id={video_id}: not in the catalogue of this model")
        actions = dict(actions or {})
        positive = actions.pop("positive", True)
        unknown = [name for name in actions if name not in self.tasks]
        if unknown:
            known = ", ".join(("positive", *self.tasks))
            raise InputError(f"actions.{unknown[0]}: unknown; this model knows {known}")
        context_rows = self._context_rows(context)
        time_ms = now() if time_ms is None else time_ms
        labels = tuple(int(actions.get(task, False)) for task in self.tasks)
        event = Event(
            video_row=row,
            time_ms=time_ms,
            positive=positive,
            labels=labels,
            watched=self._watched(row, watched),
            context_rows=context_rows,
            count_features=self._count_features(np.array([row]), context_rows, time_ms)[0],
        )
        self._trending.count(row, context_rows, time_ms, (int(positive), *labels))
        return self.store.append(user_id, event)

    def video_id(self, row: int) -> str | None:
        """A row's id; None for the unknown video."""
        return None if row == UNKNOWN_ROW else self._videos.id(row)

    def _find_rank_task(self, rank: str) -> int | None:
        if rank == "retrieval":
            return None
        if rank not in self.tasks:
            known = ", ".join(("retrieval", *self.tasks))
            raise InputError(f"serve.rank={rank}: must be one of {known}")
        return self.tasks.index(rank)

    def _watched(self, row: int, time: float | None) -> tuple[float, ...]:
        """The time and its share of the video, as timelines hold them."""
        if not self.watch_dim:
            if time is not None:
                raise InputError(
                    "watched: this model was trained without data.columns.watched; leave it out"
                )
            return ()
        share = share_watched(time or 0.0, self.bundle.catalog.durations[row])
        return time or 0.0, float(share)

    def _context_rows(self, context: Mapping[str, str] | None) -> tuple[int, ...]:
        given = context or {}
        for name in given:
            if name not in self._contexts:
                known = ", ".join(self._contexts) or "none"
                raise InputError(f"context.{name}: unknown; this model's context columns: {known}")
        return tuple(
            vocab.row(given[name]) if name in given else UNKNOWN_ROW
            for name, vocab in self._contexts.items()
        )

    def _user_rows(self, known_1J: IntArray, given: Mapping[str, str]) -> IntArray:
        """What is known of a user (1, J), and what a request says instead."""
        columns = self.bundle.config.data.user_columns.features
        for name in given:
            if name not in columns:
                known = ", ".join(columns) or "none"
                raise InputError(f"user.{name}: unknown; this model's user features: {known}")
        rows = np.zeros((1, len(columns)), np.int64)
        rows[:, : known_1J.shape[1]] = known_1J
        for place, name in enumerate(columns):
            if name in given:
                rows[0, place] = self.bundle.vocabs["user"].row(f"{name}={given[name]}")
        return rows

    @torch.inference_mode()
    def _read(
        self,
        user_id: str,
        now_ms: int | None,
        context: Mapping[str, str] | None,
        user: Mapping[str, str] | None,
    ) -> _Reading:
        """The user's state; the request is the last event of the timeline, as in training."""
        request = Event(
            video_row=UNKNOWN_ROW,
            time_ms=now() if now_ms is None else now_ms,
            # No state that is read follows this event, which says nothing of any video.
            count_features=np.zeros(self.bundle.sizes.num_count_features, np.float32),
            labels=(0,) * len(self.tasks),
            watched=(0.0,) * self.watch_dim,
            context_rows=self._context_rows(context),
        )
        past = before(self.store.timeline(user_id), request.time_ms)
        past = replace(past, user_rows=self._user_rows(past.user_rows, user or {}))
        length = int(past.offsets[-1])
        arrays = insert(past, request).windows([0], [length + 1])
        events = event_batch(arrays)
        vectors_BLY = self._vectors[torch.from_numpy(arrays.video_rows)]
        states_BLH = self._model.encode_history(vectors_BLY, events)
        state = states_at(states_BLH, events.num_prior)[:, -1]
        seen, repeat_bias = self._seen(arrays.video_rows, events)
        return _Reading(
            user_id=user_id,
            now_ms=request.time_ms,
            timeline=past,
            state=state,
            context=events.context[:, -1],
            seen=seen,
            repeat_bias=repeat_bias,
            trending=self._trending.at(request.time_ms),
        )

    def _seen(self, rows_1L: IntArray, events: EventBatch) -> tuple[IntArray, FloatArray]:
        """The videos before the last event, and what having seen them adds to their scores."""
        rows, liked = torch.from_numpy(rows_1L), events.actions[..., 0] > 0
        owner, num_prior = torch.zeros(1).long(), events.num_prior[:, -1]
        seen = seen_before(rows, liked, owner=owner, num_prior=num_prior)
        unique, place = np.unique(rows_1L[0, seen.event.numpy()], return_inverse=True)
        bias = np.zeros(len(unique), np.float32)
        np.add.at(bias, place, self._model.repeat_bias(seen).numpy())
        return unique, bias

    def _count_features(self, rows: IntArray, contexts: Sequence[int], time_ms: int) -> FloatArray:
        """What is known of the counts of videos (R,) at a time: (R, F)."""
        contexts_RC = np.broadcast_to(np.array(contexts, np.int64), (len(rows), len(contexts)))
        return self.bundle.counts.features(rows, contexts_RC, time_ms)

    @torch.inference_mode()
    def _retrieve(self, reading: _Reading, k: int, exclude: IntArray) -> IntArray:
        """The best rows (k at most): of what the index gives and of what they saw before."""
        query = self._model.queries(reading.state).numpy()
        apart = np.union1d(exclude, reading.seen)
        with self._searching:
            if self._indexed is not reading.trending:
                self.bundle.index.set_bias(reading.trending)
                self._indexed = reading.trending
            others, scores = self.bundle.index.search(query, k, exclude=[apart])
        again = np.setdiff1d(reading.seen, [UNKNOWN_ROW, *exclude])
        rows = np.concatenate([others[0], again])
        scores = np.concatenate([scores[0], self._dots(reading, again)])[rows != UNKNOWN_ROW]
        rows = rows[rows != UNKNOWN_ROW]
        return rows[np.argsort(-scores, kind="stable")[:k]]

    @torch.inference_mode()
    def _score(self, reading: _Reading, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Retrieval scores (R,) and the tasks' probabilities (R, T) of videos (R,)."""
        vectors_RY, spread = self._vectors[torch.from_numpy(rows)], [0] * len(rows)
        state, context = reading.state[spread], reading.context[spread]
        contexts = reading.context.context_rows[0].tolist()
        counts = torch.from_numpy(self._count_features(rows, contexts, reading.now_ms))
        logits_RT = self._model.task_logits(state, vectors_RY, context, counts)
        return self._dots(reading, rows), logits_RT.sigmoid().numpy()

    def _order(
        self, rows: IntArray, scores: FloatArray, probabilities: FloatArray, k: int
    ) -> IntArray:
        """Places among retrieved videos (R,) of those to show, the best first: k at least."""
        order = np.arange(len(rows))
        if self._rank_task is not None:
            scores = np.log(np.maximum(probabilities[:, self._rank_task], 1e-30))
            order = np.argsort(-scores, kind="stable")
        if self._reranker is None or not len(rows):
            return order[:k]
        relevance = relative_relevance(scores[order][None])
        page = self.bundle.config.rerank.page
        whole_pages = -(-k // page) * page
        return order[self._reranker.order(rows[order][None], relevance, whole_pages)[0]]

    @torch.inference_mode()
    def _dots(self, reading: _Reading, rows: IntArray) -> FloatArray:
        """Retrieval scores (R,) of videos (R,)."""
        query = self._model.queries(reading.state)[0]
        dots = (self._vectors[torch.from_numpy(rows), : len(query)] @ query).numpy()
        dots += reading.trending[rows]
        place = np.searchsorted(reading.seen, rows)
        again = np.isin(rows, reading.seen)
        dots[again] += reading.repeat_bias[place[again]]
        return dots

    def _name(
        self, rows: IntArray, scores: FloatArray, probabilities: FloatArray
    ) -> tuple[ScoredVideo, ...]:
        return tuple(
            ScoredVideo(
                video_id=self._videos.id(int(row)),
                score=float(scores[i]),
                probabilities=dict(zip(self.tasks, probabilities[i].tolist(), strict=True)),
            )
            for i, row in enumerate(rows)
        )

    def _answer(
        self,
        reading: _Reading,
        videos: tuple[ScoredVideo, ...],
        unknown: tuple[str, ...] = (),
    ) -> Answer:
        return Answer(
            user_id=reading.user_id,
            known_user=reading.user_id in self.store,
            now_ms=reading.now_ms,
            num_history=int(reading.timeline.offsets[-1]),
            videos=videos,
            unknown_video_ids=unknown,
        )


def now() -> int:
    """The clock's time in milliseconds (Unix, UTC)."""
    return time.time_ns() // 1_000_000
