"""The whole model: video vectors, user states, a retrieval head and a ranking head.

One pass over a timeline trains all its positions. Shapes: B timelines, L positions, U distinct
videos, P positive positions, N events with a ranking loss, T tasks, D vector, H state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config import ModelConfig
from recsys.data.inputs import Batch, EventBatch, Moment, Sizes, VideoBatch
from recsys.model.embeddings import TableSpec
from recsys.model.user import HistoryLSTM, MomentEncoder, states_at
from recsys.model.video import VideoEncoder


class Losses(NamedTuple):
    """Sums over the step's positions, and how many they are (a tuple, so that DDP sees into it)."""

    retrieval: Tensor
    """() summed cross-entropy."""
    num_retrieval: Tensor
    tasks: Tensor
    """(T,) summed binary cross-entropies."""
    num_tasks: Tensor


def table_specs(config: ModelConfig, sizes: Sizes) -> dict[str, TableSpec]:
    """The embedding tables that the model needs; without IDs the video table is one row."""
    return {
        "video": TableSpec(sizes.num_videos if config.use_id else 1, config.id_dim),
        "creator": TableSpec(sizes.num_creators, config.id_dim),
        "category": TableSpec(sizes.num_categories, config.id_dim),
    }


class Recommender(nn.Module):
    """The model; `tables` maps `TableInputs` to embeddings (plain torch or TorchRec)."""

    def __init__(self, config: ModelConfig, sizes: Sizes, *, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.video = VideoEncoder(config, clip=sizes.clip)
        num_actions = 1 + sizes.num_tasks
        self.moment = MomentEncoder(
            config, context_sizes=sizes.context_sizes, num_actions=num_actions
        )
        self.history = HistoryLSTM(config, num_actions=num_actions, moment_dim=self.moment.dim)
        # Straight from the state: a hidden layer here costs several times the steps.
        look_for = nn.Linear(self.history.out_dim, config.dim)
        with torch.no_grad():  # it starts as looking for what is like the liked
            look_for.weight[:, config.state_dim :] += torch.eye(config.dim)
        self.query = nn.Sequential(nn.Dropout(config.dropout), look_for)
        self.rank = RankingHead(
            config,
            state_dim=self.history.out_dim,
            num_tasks=sizes.num_tasks,
            moment_dim=self.moment.dim,
        )

    def encode_videos(self, videos: VideoBatch) -> Tensor:
        """Video vectors (U, D)."""
        videos = replace(videos, id_rows=self.video.drop_ids(videos.id_rows))
        return self.video(videos, self.tables(videos.table_inputs()))

    def encode_history(self, vectors_BLD: Tensor, events: EventBatch) -> Tensor:
        """User states (B, L + 1, H); state i is the one after the first i events."""
        return self.history(vectors_BLD, events.actions, self.moment(events.moment))

    def queries(self, states: Tensor) -> Tensor:
        """What a state looks for: (…, H) -> (…, D); a video's score is the dot product."""
        return self.query(states)

    def task_logits(self, states: Tensor, vectors: Tensor, moment: Moment) -> Tensor:
        """Ranking logits (…, T) of videos (…, D) for users in `states` (…, H) at a moment."""
        return self.rank(states, vectors, self.moment(moment))

    def forward(self, batch: Batch) -> Losses:
        """The step's losses."""
        vectors_UD = self.encode_videos(batch.videos)
        vectors_BLD = vectors_UD[batch.video_index]
        events = batch.events
        states_BLH = states_at(self.encode_history(vectors_BLD, events), events.prior)
        logits_BLT = self.task_logits(states_BLH, vectors_BLD, events.moment)
        tasks = functional.binary_cross_entropy_with_logits(
            logits_BLT, events.actions[..., 1:], reduction="none"
        )
        wanted = batch.learn & (events.actions[..., 0] > 0)
        queries_PD = self.queries(states_BLH[wanted])
        retrieval = sampled_softmax(
            queries_PD, vectors_UD, target=batch.video_index[wanted], log_q=batch.log_q
        )
        return Losses(
            retrieval=retrieval.sum(),
            num_retrieval=wanted.sum(),
            tasks=(tasks * batch.learn.unsqueeze(-1)).sum((0, 1)),
            num_tasks=batch.learn.sum(),
        )


class RankingHead(nn.Module):
    """One logit a task from state, video vector, their product and the moment."""

    def __init__(
        self, config: ModelConfig, *, state_dim: int, num_tasks: int, moment_dim: int
    ) -> None:
        super().__init__()
        self.taste = nn.Linear(state_dim, config.dim)
        width = state_dim + 2 * config.dim + moment_dim
        self.net = nn.Sequential(
            nn.Linear(width, 2 * config.dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * config.dim, num_tasks),
        )

    def forward(self, states: Tensor, vectors: Tensor, moment: Tensor) -> Tensor:
        """(…, T)."""
        match = self.taste(states) * vectors
        return self.net(torch.cat([states, vectors, match, moment], -1))


def sampled_softmax(queries: Tensor, vectors: Tensor, *, target: Tensor, log_q: Tensor) -> Tensor:
    """Cross-entropy of the target among candidates, corrected for how they were drawn.

    A candidate's logit is its dot product less the log of its chance of being a candidate
    (logQ correction, Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus
    item recommendations"). With every video a candidate, log_q is 0 and this is the full softmax.

    Args:
        queries: (P, D).
        vectors: (U, D) of the candidates.
        target: (P,) int64 index of the right candidate.
        log_q: (U,); inf takes a video out.

    Returns:
        (P,) losses.
    """
    logits_PU = queries @ vectors.T - log_q
    return functional.cross_entropy(logits_PU, target, reduction="none")
