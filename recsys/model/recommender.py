"""The whole model: video vectors, user states, a retrieval head and a ranking head.

One pass over a timeline trains all its positions.

Shapes: B timelines, L positions, V distinct videos of a step, P positive positions, which are the
queries of the retrieval loss, T tasks, D retrieval vector, Y video vector (D, then the profile), H
state, X encoded context, F count features, R videos seen before, K kinds of having seen one.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config.run import ModelConfig
from recsys.features.inputs import Batch, EventBatch, RequestContext, Sizes, VideoBatch
from recsys.model.dropout import Dropout
from recsys.model.embeddings import TableSpec
from recsys.model.lookup import look_up
from recsys.model.numbers import NumberEmbedding
from recsys.model.seen import KINDS, Seen, before, first_events
from recsys.model.softmax import Extra, sampled_softmax
from recsys.model.user import ContextEncoder, HistoryLSTM, states_at
from recsys.model.video import VideoEncoder

REPEAT_SCALE = 10.0
"""Lets the weight of a repeat reach its place in as few steps as the others, which are small."""

RANKED_TIMELINES = 32
"""Timelines that the ranking head takes at a time on a CPU: what it keeps for backward then lies in
pieces that fit between others, where the largest would each ask the system for new memory."""


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
        self.dim, self.vector_dim = config.dim, config.dim + config.feature_dim
        self.video = VideoEncoder(config, clip=sizes.clip)
        self.context = ContextEncoder(config, sizes)
        self.history = HistoryLSTM(config, sizes, context_dim=self.context.dim)
        # Straight from the state: a hidden layer here costs several times the steps.
        look_for = nn.Linear(self.history.out_dim, config.dim)
        with torch.no_grad():  # it starts as looking for what is like the liked
            liked = slice(config.state_dim, config.state_dim + config.dim)
            look_for.weight[:, liked] += torch.eye(config.dim)
        self.query = nn.Sequential(Dropout(config.dropout), look_for)
        self.repeat = nn.Parameter(torch.zeros(len(KINDS)))
        # Not learnt with the rest: it is fitted on days that the rest has not seen.
        self.register_buffer("trending", torch.zeros(()))
        self.trending: Tensor
        self.count_numbers = NumberEmbedding(sizes.num_count_features)
        known = self.history.out_dim + config.feature_dim + self.context.dim
        known += sizes.num_count_features + self.count_numbers.out_dim
        self.rank = nn.Sequential(
            nn.Linear(known, 2 * config.dim),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(2 * config.dim, sizes.num_tasks),
        )

    def without_tables(self) -> Recommender:
        """The same model, with the same parameters, for all but `encode_videos`."""
        model = copy.copy(self)
        model._modules = {name: part for name, part in self._modules.items() if name != "tables"}
        return model

    def encode_videos(self, videos: VideoBatch) -> Tensor:
        """Video vectors (V, Y): the first D for retrieval, the rest a profile for ranking.

        The first video is row 0, the unknown one.
        """
        asked = videos.table_inputs() if videos.keyed is None else videos.keyed
        return self.video(videos, self.tables(asked))

    def encode_history(self, vectors_BLY: Tensor, events: EventBatch) -> Tensor:
        """User states (B, L + 1, H); state i is the one after the first i events."""
        return self.history(vectors_BLY, events, self.context(events.context))

    def queries(self, states: Tensor) -> Tensor:
        """The query vectors of states, what each looks for: (…, H) -> (…, D).

        A video's score is the dot product, what `repeat_bias` adds if it was seen before, and what
        `trending` times how much it trends at that time (`features.counts.trending`).
        """
        return self.query(states)

    def repeat_bias(self, seen: Seen) -> Tensor:
        """What each entry adds to the score of its video (R,)."""
        return (REPEAT_SCALE * self.repeat)[seen.kind]

    def task_logits(
        self, states: Tensor, vectors: Tensor, context: RequestContext, count_features: Tensor
    ) -> Tensor:
        """Ranking logits (…, T) of videos for users who make a request.

        The ID embedding does not take part: it would learn the training days' labels by heart.

        Args:
            states: (…, H).
            vectors: (…, Y) of the videos.
            context: Of any leading shape (…).
            count_features: (…, F) of the videos.
        """
        profiles = vectors[..., self.dim :]
        return self._task_logits(states, profiles, self.context(context), count_features)

    def _task_logits(
        self, states: Tensor, profiles: Tensor, contexts: Tensor, count_features: Tensor
    ) -> Tensor:
        """What `task_logits` gives, of profiles (…, Y - D) and encoded contexts (…, X)."""
        numbers = self.count_numbers(count_features)
        return self.rank(torch.cat([states, profiles, contexts, count_features, numbers], -1))

    def forward(self, batch: Batch) -> Losses:
        """The losses of a training step, summed over its positions."""
        vectors_VY = self.encode_videos(batch.videos)
        queries_PD, tasks_BLT = self._queries_and_tasks(
            look_up(vectors_VY, batch.video_index), batch
        )
        retrieval = sampled_softmax(
            queries_PD,
            vectors_VY[:, : self.dim],
            target=batch.video_index.take(batch.queries),
            log_q=batch.log_q,
            extra=self._repeat_gains(batch),
        )
        num_tasks = batch.learn.sum()
        return Losses(
            retrieval=retrieval,
            num_retrieval=torch.full_like(num_tasks, len(batch.queries)),
            tasks=(tasks_BLT * batch.learn.unsqueeze(-1)).sum((0, 1)),
            num_tasks=num_tasks,
        )

    def _queries_and_tasks(self, vectors_BLY: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The positive positions' queries (P, D), and the tasks' cross-entropies (B, L, T).

        What they are made of is forgotten on return, before the retrieval loss takes its room.
        """
        events = batch.events
        widths = [self.dim, self.vector_dim - self.dim]
        vectors_BLD, profiles = torch.split(vectors_BLY, widths, -1)
        context_BLX = self.context(events.context)
        states_BLH = self.history(vectors_BLD, events, context_BLX)
        states_BLH = states_at(states_BLH, events.num_prior)
        parts = (states_BLH, profiles, context_BLX, events.count_features)
        if states_BLH.is_cuda:
            logits_BLT = self._task_logits(*parts)
        else:
            pieces = zip(*(part.split(RANKED_TIMELINES) for part in parts), strict=True)
            logits_BLT = torch.cat([self._task_logits(*piece) for piece in pieces])
        labels_BLT = events.actions[..., 1 : 1 + logits_BLT.shape[-1]]
        tasks_BLT = functional.binary_cross_entropy_with_logits(
            logits_BLT, labels_BLT, reduction="none"
        )
        return self.queries(states_BLH.flatten(0, 1).index_select(0, batch.queries)), tasks_BLT

    def _repeat_gains(self, batch: Batch) -> Extra:
        """What the scores of videos gain that each query's user had seen before."""
        owner, liked_BL = batch.queries // batch.learn.shape[1], batch.events.actions[..., 0] > 0
        num_prior = batch.events.num_prior.take(batch.queries)
        first_BLK = first_events(batch.video_index, liked_BL)
        gain_BL = (first_BLK * (REPEAT_SCALE * self.repeat)).sum(-1)
        amount_PL = look_up(gain_BL, owner) * before(num_prior, gain_BL.shape[1])
        return Extra(candidate=batch.video_index[owner], amount=amount_PL)
