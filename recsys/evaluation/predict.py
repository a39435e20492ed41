"""What the model says of a partition of users: their queries at the cut, and logits of every event.

The state that a user is ranked from knows everything before the cut; an event of the test is scored
with everything before it known, as when serving live.

Shapes: U users, E events, T tasks, N videos, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches import VideoInputs, event_batch, move
from recsys.data.catalog import expand_ranges
from recsys.data.timelines import IntArray, Timelines
from recsys.evaluation.interactions import Csr
from recsys.evaluation.ranking import Ranker, dot_product
from recsys.evaluation.translation import Translation
from recsys.model.recommender import Recommender
from recsys.model.user import states_at

VIDEOS_A_BATCH = 1024
USERS_A_BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """What the metrics need of some users."""

    user_ids: list[str]
    """U users with at least one relevant video."""
    queries: NDArray[np.float32]
    """(U, D)."""
    relevant: Csr
    known: Csr
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

    def to_row(self) -> dict[str, Any]:
        """Flat arrays by name, as one row of a Ray data set."""
        return {
            "user_ids": self.user_ids,
            "queries": self.queries.ravel(),
            "relevant_offsets": self.relevant.offsets,
            "relevant_values": self.relevant.values,
            "known_offsets": self.known.offsets,
            "known_values": self.known.values,
            "labels": self.labels.ravel(),
            "logits": self.logits.ravel(),
            "event_videos": self.event_videos,
            "asked_ids": self.asked_ids,
            "event_users": self.event_users,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any], *, dim: int, num_tasks: int) -> Predictions:
        """The predictions again."""
        num_events = len(row["event_videos"])

        def lists(name: str) -> Csr:
            offsets, values = row[f"{name}_offsets"], row[f"{name}_values"]
            return Csr(np.asarray(offsets, np.int64), np.asarray(values, np.int32))

        return cls(
            user_ids=list(row["user_ids"]),
            queries=np.asarray(row["queries"], np.float32).reshape(-1, dim),
            relevant=lists("relevant"),
            known=lists("known"),
            labels=np.asarray(row["labels"], np.int8).reshape(num_events, num_tasks),
            logits=np.asarray(row["logits"], np.float32).reshape(num_events, num_tasks),
            event_videos=np.asarray(row["event_videos"], np.int64),
            asked_ids=list(row["asked_ids"]),
            event_users=np.asarray(row["event_users"], np.int64),
        )


@torch.no_grad()
def all_vectors(model: Recommender, videos: VideoInputs, device: torch.device) -> Tensor:
    """Vectors of the whole catalogue (N, D), on the CPU."""
    model.eval()
    total = len(videos.catalog)
    parts = []
    for start in range(0, total, VIDEOS_A_BATCH):
        rows = np.arange(start, min(start + VIDEOS_A_BATCH, total))
        parts.append(model.encode_videos(move(videos.batch(rows), device)).float().cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class Predictor:
    """A model with what it needs to predict timelines."""

    model: Recommender
    vectors_ND: Tensor
    """Vectors of the whole catalogue that it knows (N, V), on its device."""
    max_history: int
    """Events before the split that a state is made of."""
    translation: Translation | None = None
    """Of a model that numbers videos, contexts and tasks in its own way."""

    @torch.no_grad()
    def predict(self, timelines: Timelines, *, split: int) -> Predictions:
        """Predicts a split (VALID or TEST) of some users' timelines."""
        self.model.eval()
        before = timelines.count_before(split)
        until = timelines.count_before(split + 1)
        users = np.flatnonzero(until > before)
        seen = self.translation.timelines(timelines) if self.translation else timelines
        parts = []
        for start in range(0, len(users), USERS_A_BATCH):
            group = users[start : start + USERS_A_BATCH]
            first = timelines.offsets[group]
            spans = Spans(first, first + before[group], first + until[group])
            queries, logits = self._outputs(seen, spans)
            parts.append(_predictions(timelines, group, spans, queries, logits))
        return concat(parts, self.model.dim, timelines.labels.shape[1])

    def ranker(self, found: Predictions) -> Ranker:
        """The order of our videos for the users of its predictions."""
        queries_UD = torch.from_numpy(found.queries)
        if self.translation is None:
            return dot_product(queries_UD, self.vectors_ND[:, : self.model.dim])
        return self.translation.ranker(queries_UD, self.vectors_ND[:, : self.model.dim])

    def _outputs(self, seen: Timelines, spans: Spans) -> tuple[NDArray[Any], NDArray[Any]]:
        """Each user's query at the cut (U, D), and logits of the events after it (E, T)."""
        first = np.maximum(spans.starts, spans.cuts - self.max_history)
        arrays = seen.windows(first, spans.stops)
        device = self.vectors_ND.device
        events = move(event_batch(arrays), device)
        vectors_BLD = self.vectors_ND[torch.from_numpy(arrays.video_rows).to(device)]
        states = self.model.encode_history(vectors_BLD, events)
        logits = self.model.task_logits(
            states_at(states, events.prior), vectors_BLD, events.moment, events.trends
        )
        length = torch.from_numpy(spans.cuts - first).to(device)
        at_cut = states[torch.arange(len(first)), length]
        queries = self.model.queries(at_cut).float().cpu().numpy()
        position = np.arange(arrays.present.shape[1])
        asked = arrays.present & (position >= (spans.cuts - first)[:, None])
        found = logits.float().cpu().numpy()[asked]
        return queries, self.translation.logits(found) if self.translation else found


def predict(
    model: Recommender, vectors_ND: Tensor, timelines: Timelines, *, split: int, max_history: int
) -> Predictions:
    """Predicts a split of some users' timelines; see `Predictor`."""
    return Predictor(model, vectors_ND, max_history).predict(timelines, split=split)


@dataclass(frozen=True)
class Spans:
    """Where some users' events lie in their timelines (U)."""

    starts: IntArray
    cuts: IntArray
    """Where the split begins."""
    stops: IntArray


def _predictions(
    timelines: Timelines,
    users: IntArray,
    spans: Spans,
    queries: NDArray[Any],
    logits: NDArray[Any],
) -> Predictions:
    known, relevant = _positives(timelines, spans)
    kept = np.flatnonzero(relevant.lengths > 0)
    events = expand_ranges(spans.cuts, spans.stops - spans.cuts)
    return Predictions(
        user_ids=[timelines.user_ids[user] for user in users[kept]],
        queries=queries[kept],
        relevant=relevant.select(kept),
        known=known.select(kept),
        labels=timelines.labels[events],
        logits=logits,
        event_videos=timelines.video_rows[events],
        asked_ids=[timelines.user_ids[user] for user in users],
        event_users=np.repeat(np.arange(len(users)), spans.stops - spans.cuts),
    )


def _positives(timelines: Timelines, spans: Spans) -> tuple[Csr, Csr]:
    """Each user's positives before the split, and the videos that are new among those in it."""
    known, relevant = [], []
    liked = timelines.positive > 0
    for start, cut, stop in zip(spans.starts, spans.cuts, spans.stops, strict=True):
        earlier = timelines.video_rows[start:cut][liked[start:cut]]
        later = timelines.video_rows[cut:stop][liked[cut:stop]]
        known.append(earlier)
        relevant.append(np.setdiff1d(later[later > 0], earlier))
    return Csr.from_lists(known), Csr.from_lists(relevant)


def concat(parts: Iterable[Predictions], dim: int, num_tasks: int) -> Predictions:
    """The predictions of several groups of users as one."""
    found = list(parts)
    nothing = np.zeros(0, np.int64)
    begins = np.cumsum([0, *(len(part.asked_ids) for part in found)])[:-1]
    empty_queries = np.zeros((0, dim), np.float32)
    empty_labels = np.zeros((0, num_tasks), np.int8)
    return Predictions(
        user_ids=[user for part in found for user in part.user_ids],
        queries=np.concatenate([empty_queries, *(part.queries for part in found)]),
        relevant=join_lists([part.relevant for part in found]),
        known=join_lists([part.known for part in found]),
        labels=np.concatenate([empty_labels, *(part.labels for part in found)]),
        logits=np.concatenate([empty_labels.astype(np.float32), *(p.logits for p in found)]),
        event_videos=np.concatenate([nothing, *(part.event_videos for part in found)]),
        asked_ids=[user for part in found for user in part.asked_ids],
        event_users=np.concatenate(
            [nothing, *(part.event_users + at for part, at in zip(found, begins, strict=True))]
        ),
    )


def join_lists(parts: list[Csr]) -> Csr:
    """The lists of several `Csr` one after the other."""
    lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
    values = [np.zeros(0, np.int32), *(part.values for part in parts)]
    return Csr(np.cumsum(np.concatenate(lengths)), np.concatenate(values).astype(np.int32))
