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
from recsys.data.timelines import EventArrays, IntArray, Timelines
from recsys.evaluation.interactions import Csr
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


@torch.no_grad()
def predict(
    model: Recommender,
    vectors_ND: Tensor,
    timelines: Timelines,
    *,
    split: int,
    max_history: int,
) -> Predictions:
    """Predicts a split of some users' timelines.

    Args:
        model: In evaluation mode; `vectors_ND` lies on its device.
        vectors_ND: Vectors of the whole catalogue.
        timelines: The users, with their events before and in the split.
        split: VALID or TEST.
        max_history: Events before the split that the state is made of.
    """
    model.eval()
    before = timelines.count_before(split)
    until = timelines.count_before(split + 1)
    users = np.flatnonzero(until > before)
    parts = [
        _predict_users(model, vectors_ND, timelines, group, before, until, max_history)
        for group in np.array_split(users, max(1, -(-len(users) // USERS_A_BATCH)))
        if len(group)
    ]
    return concat(parts, vectors_ND.shape[1], timelines.labels.shape[1])


def _predict_users(
    model: Recommender,
    vectors_ND: Tensor,
    timelines: Timelines,
    users: IntArray,
    before: IntArray,
    until: IntArray,
    max_history: int,
) -> Predictions:
    first = timelines.offsets[users] + np.maximum(before[users] - max_history, 0)
    cut = timelines.offsets[users] + before[users]
    arrays = timelines.windows(first, timelines.offsets[users] + until[users])
    device = vectors_ND.device
    events = move(event_batch(arrays), device)
    vectors_BLD = vectors_ND[torch.from_numpy(arrays.video_rows).to(device)]
    states = model.encode_history(vectors_BLD, events)
    logits = model.task_logits(states_at(states, events.prior), vectors_BLD, events.moment)
    at_cut = states[torch.arange(len(users)), torch.from_numpy(cut - first).to(device)]
    queries = model.queries(at_cut).float().cpu().numpy()
    asked = arrays.present & (np.arange(arrays.present.shape[1]) >= (cut - first)[:, None])
    known, relevant = _positives(timelines, users, before, until)
    kept = np.flatnonzero(relevant.lengths > 0)
    return Predictions(
        user_ids=[timelines.user_ids[user] for user in users[kept]],
        queries=queries[kept],
        relevant=relevant.select(kept),
        known=known.select(kept),
        labels=_of_events(arrays, asked),
        logits=logits.float().cpu().numpy()[asked],
        event_videos=arrays.video_rows[asked],
    )


def _of_events(arrays: EventArrays, asked: NDArray[np.bool_]) -> NDArray[np.int8]:
    return arrays.actions[..., 1:][asked].astype(np.int8)


def _positives(
    timelines: Timelines, users: IntArray, before: IntArray, until: IntArray
) -> tuple[Csr, Csr]:
    """Each user's positives before the split, and the videos that are new among those in it."""
    known, relevant = [], []
    liked = timelines.positive > 0
    for user in users:
        start = timelines.offsets[user]
        cut, stop = start + before[user], start + until[user]
        earlier = timelines.video_rows[start:cut][liked[start:cut]]
        later = timelines.video_rows[cut:stop][liked[cut:stop]]
        known.append(earlier)
        relevant.append(np.setdiff1d(later[later > 0], earlier))
    return Csr.from_lists(known), Csr.from_lists(relevant)


def concat(parts: Iterable[Predictions], dim: int, num_tasks: int) -> Predictions:
    """The predictions of several groups of users as one."""
    found = list(parts)
    empty_queries = np.zeros((0, dim), np.float32)
    empty_labels = np.zeros((0, num_tasks), np.int8)
    return Predictions(
        user_ids=[user for part in found for user in part.user_ids],
        queries=np.concatenate([empty_queries, *(part.queries for part in found)]),
        relevant=join_lists([part.relevant for part in found]),
        known=join_lists([part.known for part in found]),
        labels=np.concatenate([empty_labels, *(part.labels for part in found)]),
        logits=np.concatenate([empty_labels.astype(np.float32), *(p.logits for p in found)]),
        event_videos=np.concatenate([np.zeros(0, np.int64), *(p.event_videos for p in found)]),
    )


def join_lists(parts: list[Csr]) -> Csr:
    """The lists of several `Csr` one after the other."""
    lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
    values = [np.zeros(0, np.int32), *(part.values for part in parts)]
    return Csr(np.cumsum(np.concatenate(lengths)), np.concatenate(values).astype(np.int32))
