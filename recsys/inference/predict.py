"""What the model says of a partition of users: their queries at the cut, and logits of every event.

The state that a user is ranked from knows everything before the cut; an event of the test is scored
with everything before it known, as when serving live.

Shapes: U users, E events of all of them, B timelines, L positions, T tasks, N videos, D retrieval
vector, Y video vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import IntArray, Ragged, expand_ranges, join_lists
from recsys.features.batches import event_batch
from recsys.features.inputs import move
from recsys.features.liked import liked_in_spans
from recsys.features.timelines import Timelines
from recsys.inference.ranker import Ranker, dot_product, with_bias
from recsys.inference.translation import Translation
from recsys.model.recommender import Recommender
from recsys.model.seen import seen_before
from recsys.model.user import states_at

USERS_A_BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """What the metrics need of some users."""

    user_ids: list[str]
    """U users with at least one relevant video."""
    queries: NDArray[np.float32]
    """(U, D)."""
    relevant: Ragged
    known: Ragged
    seen: Ragged
    """Videos that each user had seen before the split, in the model's own numbers."""
    repeat_bias: NDArray[np.float32]
    """What each of them adds to its video's score."""
    labels: NDArray[np.int8]
    """(E, T) of all users' events of the split, also of users with nothing relevant."""
    logits: NDArray[np.float32]
    """(E, T)."""
    event_videos: IntArray
    """(E,) video row."""
    asked_ids: list[str]
    """Users with an event in the split."""
    event_users: IntArray
    """(E,) place of the user in `asked_ids`."""
    num_asked: int = 0
    """All users with an event in the split; `asked_ids` may be only some of them."""

    def to_row(self) -> dict[str, object]:
        """Flat arrays by name, as one row of a Ray data set."""
        return {
            "user_ids": self.user_ids,
            "queries": self.queries.ravel(),
            "relevant_offsets": self.relevant.offsets,
            "relevant_values": self.relevant.values,
            "known_offsets": self.known.offsets,
            "known_values": self.known.values,
            "seen_offsets": self.seen.offsets,
            "seen_values": self.seen.values,
            "repeat_bias": self.repeat_bias,
            "labels": self.labels.ravel(),
            "logits": self.logits.ravel(),
            "event_videos": self.event_videos,
            "asked_ids": self.asked_ids,
            "event_users": self.event_users,
            "num_asked": self.num_asked,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any], *, dim: int, num_tasks: int) -> Predictions:
        """Reads what `to_row` gave."""
        num_events = len(row["event_videos"])

        def lists(name: str) -> Ragged:
            offsets, values = row[f"{name}_offsets"], row[f"{name}_values"]
            return Ragged(np.asarray(offsets, np.int64), np.asarray(values, np.int32))

        return cls(
            user_ids=list(row["user_ids"]),
            queries=np.asarray(row["queries"], np.float32).reshape(-1, dim),
            relevant=lists("relevant"),
            known=lists("known"),
            seen=lists("seen"),
            repeat_bias=np.asarray(row["repeat_bias"], np.float32),
            labels=np.asarray(row["labels"], np.int8).reshape(num_events, num_tasks),
            logits=np.asarray(row["logits"], np.float32).reshape(num_events, num_tasks),
            event_videos=np.asarray(row["event_videos"], np.int64),
            asked_ids=list(row["asked_ids"]),
            event_users=np.asarray(row["event_users"], np.int64),
            num_asked=int(row["num_asked"]),
        )


@dataclass(frozen=True)
class Predictor:
    """A model with what it needs to predict timelines."""

    model: Recommender
    vectors_NY: Tensor
    """Vectors of the whole catalogue that it knows (N, Y), on its device."""
    max_history: int
    """Events before the split that a state is made of."""
    translation: Translation | None = None
    """Of a model that numbers videos, contexts and tasks in its own way."""
    trending_N: Tensor | None = None
    """What the counts of the last hours add to the videos' scores (N,), if anything."""

    def __getstate__(self) -> dict[str, object]:
        """What crosses to another process: no table, and of the vectors an array.

        Ray copies tensors into each process; an array all processes of a machine look at in one
        place.
        """
        vectors_NY = self.vectors_NY.cpu().numpy()
        return {**vars(self), "model": self.model.without_tables(), "vectors_NY": vectors_NY}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with warnings.catch_warnings():  # of an array that must not be written to; none is
            warnings.simplefilter("ignore", UserWarning)
            vectors_NY = torch.from_numpy(state["vectors_NY"])
        vars(self).update({**state, "vectors_NY": vectors_NY})

    def on(self, device: torch.device) -> Predictor:
        """The same on a device."""
        model, vectors_NY = self.model.to(device), self.vectors_NY.to(device)
        return replace(self, model=model, vectors_NY=vectors_NY)

    @torch.no_grad()
    def predict(
        self, timelines: Timelines, *, split: int, users: IntArray | None = None
    ) -> Predictions:
        """Predicts a split (VALID or TEST) of some users' timelines.

        Args:
            timelines: Of which users without an event in the split are passed over.
            split: What is predicted.
            users: Some of `asked_users`, by their places; without it all of them.
        """
        self.model.eval()
        before = timelines.count_before(split)
        until = timelines.count_before(split + 1)
        asked = asked_users(timelines, split)
        users = asked if users is None else users
        read = self.translation.timelines(timelines) if self.translation else timelines
        parts = []
        for start in range(0, len(users), USERS_A_BATCH):
            group = users[start : start + USERS_A_BATCH]
            first = timelines.offsets[group]
            spans = Spans(first, first + before[group], first + until[group])
            parts.append(_predictions(timelines, group, spans, self._outputs(read, spans)))
        predictions = concat(parts, self.model.dim, timelines.labels.shape[1])
        return replace(predictions, num_asked=len(asked))

    def ranker(self, predictions: Predictions, *, device: torch.device | None = None) -> Ranker:
        """The order of our videos for the users of its predictions.

        Args:
            predictions: Of this predictor.
            device: Where the scores are computed and lie; without it where the vectors are.
        """
        vectors_ND = self.vectors_NY[:, : self.model.dim].to(device or self.vectors_NY.device)
        queries_UD = torch.from_numpy(predictions.queries).to(vectors_ND.device)
        if self.trending_N is not None:
            queries_UD = functional.pad(queries_UD, (0, 1), value=1.0)
            trending_N1 = self.trending_N.to(vectors_ND.device).unsqueeze(1)
            vectors_ND = torch.cat([vectors_ND, trending_N1], 1)
        ranker = dot_product(queries_UD, vectors_ND)
        ranker = with_bias(ranker, predictions.seen, predictions.repeat_bias)
        return ranker if self.translation is None else self.translation.ranker(ranker)

    def _outputs(self, timelines: Timelines, spans: Spans) -> Outputs:
        """What the model says of some users."""
        first = np.maximum(spans.starts, spans.cuts - self.max_history)
        arrays = timelines.windows(first, spans.stops)
        device = self.vectors_NY.device
        events = move(event_batch(arrays), device)
        vectors_BLY = self.vectors_NY[torch.from_numpy(arrays.video_rows).to(device)]
        states = self.model.encode_history(vectors_BLY, events)
        logits = self.model.task_logits(
            states_at(states, events.num_prior), vectors_BLY, events.context, events.count_features
        )
        length = torch.from_numpy(spans.cuts - first).to(device)
        everyone = torch.arange(len(first), device=device)
        queries = self.model.queries(states[everyone, length]).float().cpu().numpy()
        position = np.arange(arrays.present.shape[1])
        asked = arrays.present & (position >= (spans.cuts - first)[:, None])
        logits_ET = logits.float().cpu().numpy()[asked]
        rows = torch.from_numpy(arrays.video_rows).to(device)
        seen = seen_before(rows, events.actions[..., 0] > 0, owner=everyone, num_prior=length)
        return Outputs(
            queries=queries,
            logits=self.translation.logits(logits_ET) if self.translation else logits_ET,
            seen=_lists(seen.query, rows[seen.query, seen.event], len(first)),
            repeat_bias=self.model.repeat_bias(seen).cpu().numpy(),
        )


def asked_users(timelines: Timelines, split: int) -> IntArray:
    """The places of the users with an event in a split."""
    return np.flatnonzero(timelines.count_before(split + 1) > timelines.count_before(split))


def drawn_users(asked: IntArray, config: EvaluateConfig, number: int, total: int) -> IntArray:
    """The users of a partition who are measured: its share of `evaluate.users`, or all.

    Users lie in partitions by a hash of their ids, so that each is a random part of them all.

    >>> some = EvaluateConfig(users=5)
    >>> [len(drawn_users(np.arange(9), some, number, 2)) for number in (0, 1)]
    [2, 3]
    """
    if config.users is None:
        return asked
    share = config.users * (number + 1) // total - config.users * number // total
    rng = np.random.default_rng([config.seed, number])
    return np.sort(rng.permutation(asked)[:share])


def predict(
    model: Recommender, vectors_NY: Tensor, timelines: Timelines, *, split: int, max_history: int
) -> Predictions:
    """Predicts a split of some users' timelines; see `Predictor`."""
    return Predictor(model, vectors_NY, max_history).predict(timelines, split=split)


@dataclass(frozen=True)
class Spans:
    """Where some users' events lie in their timelines (U)."""

    starts: IntArray
    cuts: IntArray
    """Where the split begins."""
    stops: IntArray


class Outputs(NamedTuple):
    """What a model says of some users."""

    queries: NDArray[np.float32]
    """(U, D) at the cut."""
    logits: NDArray[np.float32]
    """(E, T) of the events after it."""
    seen: Ragged
    repeat_bias: NDArray[np.float32]


def _lists(owner: Tensor, values: Tensor, num_lists: int) -> Ragged:
    """Values with the list that each belongs to, in the order of the lists, as lists."""
    lengths = torch.bincount(owner, minlength=num_lists).cpu().numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(offsets, values.cpu().numpy().astype(np.int32))


def _predictions(
    timelines: Timelines, users: IntArray, spans: Spans, outputs: Outputs
) -> Predictions:
    known, relevant = _positives(timelines, spans)
    kept = np.flatnonzero(relevant.lengths > 0)
    events = expand_ranges(spans.cuts, spans.stops - spans.cuts)
    return Predictions(
        user_ids=[timelines.user_ids[user] for user in users[kept]],
        queries=outputs.queries[kept],
        relevant=relevant.select(kept),
        known=known.select(kept),
        seen=outputs.seen.select(kept),
        repeat_bias=outputs.repeat_bias[outputs.seen.places(kept)],
        labels=timelines.labels[events],
        logits=outputs.logits,
        event_videos=timelines.video_rows[events],
        asked_ids=[timelines.user_ids[user] for user in users],
        event_users=np.repeat(np.arange(len(users)), spans.stops - spans.cuts),
    )


def _positives(timelines: Timelines, spans: Spans) -> tuple[Ragged, Ragged]:
    """Each user's positives before the split, and the videos that are new among those in it."""
    known = liked_in_spans(timelines, spans.starts, spans.cuts)
    later = liked_in_spans(timelines, spans.cuts, spans.stops)
    new = np.setdiff1d(later.keys, known.keys, assume_unique=True)
    return known, Ragged.of_sets(new >> 32, new & 0xFFFFFFFF, len(known))


def concat(groups: Iterable[Predictions], dim: int, num_tasks: int) -> Predictions:
    """The predictions of several groups of users as one."""
    parts = list(groups)
    nothing = np.zeros(0, np.int64)
    bias = [np.zeros(0, np.float32), *(part.repeat_bias for part in parts)]
    begins = np.cumsum([0, *(len(part.asked_ids) for part in parts)])[:-1]
    empty_queries = np.zeros((0, dim), np.float32)
    empty_labels = np.zeros((0, num_tasks), np.int8)
    return Predictions(
        user_ids=[user for part in parts for user in part.user_ids],
        queries=np.concatenate([empty_queries, *(part.queries for part in parts)]),
        relevant=join_lists([part.relevant for part in parts]),
        known=join_lists([part.known for part in parts]),
        seen=join_lists([part.seen for part in parts]),
        repeat_bias=np.concatenate(bias),
        labels=np.concatenate([empty_labels, *(part.labels for part in parts)]),
        logits=np.concatenate([empty_labels.astype(np.float32), *(p.logits for p in parts)]),
        event_videos=np.concatenate([nothing, *(part.event_videos for part in parts)]),
        asked_ids=[user for part in parts for user in part.asked_ids],
        event_users=np.concatenate(
            [nothing, *(part.event_users + at for part, at in zip(parts, begins, strict=True))]
        ),
        num_asked=sum(part.num_asked for part in parts),
    )
