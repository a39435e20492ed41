"""From a user's timeline to a state at every position.

Shapes: B timelines, L positions, A actions, C context columns, X width of an encoded context, H
state, Y video vector, the first D numbers of which are for retrieval.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config.run import ModelConfig
from recsys.features.inputs import EventBatch, RequestContext, Sizes
from recsys.features.timelines import NUM_GAP_BUCKETS, NUM_HOURS
from recsys.model.dropout import Dropout
from recsys.model.lookup import look_up
from recsys.model.lstm import run_lstm

USER_SCALE = 0.05
"""Standard deviation of the first embeddings of user values."""


def init_user_values(weight: Tensor) -> None:
    """Fills the first rows of user values: small, since a user has many; a missing one is 0."""
    nn.init.normal_(weight, std=USER_SCALE)
    with torch.no_grad():
        weight[0] = 0


class ContextEncoder(nn.Module):
    """Encodes a request: time since the last event, hour, context columns, the user's own rates.

    A rate is the mean of what the user did: the share of flags, the mean of how long they watched.
    """

    def __init__(self, config: ModelConfig, sizes: Sizes) -> None:
        super().__init__()
        self.gap = nn.Embedding(NUM_GAP_BUCKETS, config.feature_dim)
        self.hour = nn.Embedding(NUM_HOURS, config.feature_dim)
        self.columns = nn.ModuleList(
            nn.Embedding(size, config.feature_dim) for size in sizes.context_sizes
        )
        self.dim = config.feature_dim * (2 + len(sizes.context_sizes)) + 1 + sizes.num_actions

    def forward(self, context: RequestContext) -> Tensor:
        """Encodes requests of any leading shape (…): (…, X), X being `dim`."""
        tables, rows = [self.gap, self.hour, *self.columns], [context.gaps, context.hours]
        rows += context.context_rows.unbind(-1)
        parts = [look_up(table.weight, of) for table, of in zip(tables, rows, strict=True)]
        num_prior = context.num_prior.unsqueeze(-1).to(context.tallies.dtype)
        # Rates are shrunk towards one half by one event, and the count says how sure they are.
        parts += [num_prior.log1p(), (context.tallies + 0.5) / (num_prior + 1)]
        return torch.cat(parts, -1)


class HistoryLSTM(nn.Module):
    """(video vector, what they did, request context) of each event -> state after each event.

    State 0 is the empty history, state i the one after the first i events, so that position i of a
    timeline is predicted from state `num_prior[i]`. A state is the LSTM's beside the mean vector of
    the videos that the user liked so far: the way round the LSTM by which taste is learnt in a
    fraction of the steps. What is known of the user beforehand stands beside both.
    """

    def __init__(self, config: ModelConfig, sizes: Sizes, *, context_dim: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.user: nn.Embedding | None = None
        if sizes.num_user_values:
            self.user = nn.Embedding(sizes.num_user_values, config.feature_dim, padding_idx=0)
            init_user_values(self.user.weight)
        self.action = nn.Linear(sizes.num_actions, config.feature_dim)
        width = config.dim + config.feature_dim + context_dim + sizes.num_count_features
        self.dropout = Dropout(config.dropout)
        self.lstm = nn.LSTM(width, config.state_dim, batch_first=True)
        self.start = nn.Parameter(torch.zeros(config.state_dim))
        self.out_dim = config.state_dim + config.dim + (config.feature_dim if self.user else 0)

    def forward(self, vectors_BLY: Tensor, events: EventBatch, context_BLX: Tensor) -> Tensor:
        """The states (B, L + 1, H) before, between and after the events; H is `out_dim`."""
        vectors_BLD, actions_BLA = vectors_BLY[..., : self.dim], events.actions
        joined = [vectors_BLD, self.action(actions_BLA), context_BLX, events.count_features]
        states = run_lstm(self.lstm, self.dropout(torch.cat(joined, -1)))
        start = self.start.expand(len(states), 1, -1)
        states = torch.cat([start, states], 1)
        parts = [states, mean_of_liked(vectors_BLD, actions_BLA[..., :1])]
        if self.user is not None:
            known = self.user(events.user_rows).sum(1, keepdim=True)
            parts.append(known.expand(-1, states.shape[1], -1))
        return torch.cat(parts, -1)


def mean_of_liked(vectors_BLD: Tensor, liked_BL1: Tensor) -> Tensor:
    """Running mean of the liked videos' vectors, shrunk towards zero by one: (B, L + 1, D).

    >>> vectors = torch.tensor([[[2.0], [4.0], [6.0]]])
    >>> mean_of_liked(vectors, torch.tensor([[[1.0], [0.0], [1.0]]])).flatten().tolist()
    [0.0, 1.0, 1.0, 2.6666667461395264]
    """
    total = (vectors_BLD * liked_BL1).cumsum(1) / (liked_BL1.cumsum(1) + 1)
    return functional.pad(total, (0, 0, 1, 0))


def states_at(states_BLH: Tensor, num_prior_BL: Tensor) -> Tensor:
    """The state that each position is predicted from: (B, L + 1, H), (B, L) -> (B, L, H)."""
    # A gather would keep the states for its backward, of which only the shape matters.
    start_B1 = torch.arange(len(states_BLH), device=num_prior_BL.device).unsqueeze(1)
    return look_up(states_BLH.flatten(0, 1), start_B1 * states_BLH.shape[1] + num_prior_BL)
