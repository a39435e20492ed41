"""The ranking head for many users and videos at once: what the model's own `task_logits` says.

The head's first layer is linear in what it joins: the user's state and request on one side, the
video's profile and counts on the other. Each side goes through it by itself, a video's once an hour
(counts are of finished hours) and where an event comes late, and a pair costs one addition of
hidden values.

Shapes: B requests, K videos of each, N videos, R rows, S sides that were made, H state, M hidden
values, T tasks, F count features, C context columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.data.growing import Growing
from recsys.data.ragged import IntArray
from recsys.features.counts import EventCounts
from recsys.features.hourly import hour_of
from recsys.features.inputs import RequestContext
from recsys.features.timelines import MS_PER_HOUR
from recsys.model.numbers import VALUES
from recsys.model.recommender import Recommender
from recsys.serve.retrieve.catalogue import Catalogue, Changed

HELD_HOURS = 2
"""Hours whose videos' sides are kept: the present one, and one that somebody asked about."""
HELD_CONTEXTS = 4096
"""Combinations of context values that are kept of an hour."""


class TaskScores:
    """Probabilities of the ranking tasks; one thread at a time.

    Args:
        model: In evaluation mode.
        catalogue: Whose videos have retrieval vectors and profiles.
        counts: Whose features the pairs are given.
    """

    def __init__(self, model: Recommender, catalogue: Catalogue, counts: EventCounts) -> None:
        first, last = model.rank[0], model.rank[-1]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        self._model, self._counts, self._last = model, counts, last
        contexts = set(counts.layout.context_names)
        of_context = [name.split("/")[0] in contexts for name in counts.layout.columns]
        self._of_context = torch.tensor(of_context, dtype=torch.bool)
        num_features = len(of_context)
        widths = [model.history.out_dim, model.vector_dim - model.dim, model.context.dim]
        widths += [num_features, num_features * VALUES]
        weight, self._bias = first.weight.detach(), first.bias.detach()
        state, self._profile, context, *of_counts = torch.split(weight, widths, 1)
        self._features, self._numbers = of_counts
        self._user_weight = torch.cat([state, context], 1)
        self._catalogue = catalogue
        self._held: OrderedDict[int, _Hour] = OrderedDict()
        catalogue.on_change.append(self._change)

    @torch.inference_mode()
    def probabilities(
        self, states_BH: Tensor, context: RequestContext, rows_BK: IntArray, now_ms: int
    ) -> Tensor:
        """(B, K, T) of videos for requests that are made in the same hour.

        Args:
            states_BH: The users' states.
            context: (B) of the requests.
            rows_BK: Video rows.
            now_ms: Any time of the hour.
        """
        users_BM = self._users(states_BH, context, now_ms)
        videos_BKM = self._hour(now_ms).of(rows_BK)
        hidden = functional.gelu(users_BM.unsqueeze(1) + videos_BKM)
        return self._last(hidden).sigmoid()

    def happened(self, rows: IntArray, hours: IntArray) -> None:
        """Events of videos (n,) in hours (n,) were counted.

        What later hours say of these videos is made anew. It changes a little of all others too,
        for everything, creators, categories and contexts are counted: that waits for `follow`.
        """
        for number, hour in self._held.items():
            if (late := hours < number).any():
                hour.change(rows[late], len(self._catalogue))
                hour.is_behind = True

    def follow(self) -> None:
        """Makes all anew of the hours of which more was counted since they were made."""
        for number in [number for number, hour in self._held.items() if hour.is_behind]:
            del self._held[number]

    def clear(self) -> None:
        """Makes all anew."""
        self._held.clear()

    def _change(self, changed: Changed) -> None:
        for hour in self._held.values():
            hour.change(changed.rows, len(self._catalogue))

    def _users(self, states_BH: Tensor, context: RequestContext, now_ms: int) -> Tensor:
        """The users' side (B, M), with the counts of their context values."""
        parts = torch.cat([states_BH, self._model.context(context)], 1)
        users = functional.linear(parts, self._user_weight, self._bias)
        if not self._of_context.any():
            return users
        contexts = [tuple(rows) for rows in context.context_rows.tolist()]
        return users + self._hour(now_ms).of_contexts(contexts)

    def _hour(self, now_ms: int) -> _Hour:
        hour = int(hour_of(now_ms))
        if hour not in self._held:
            self._held[hour] = _Hour(self, hour, len(self._catalogue))
        self._held.move_to_end(hour)
        if len(self._held) > HELD_HOURS:
            self._held.popitem(last=False)
        return self._held[hour]

    def videos(self, rows: IntArray, hour: int) -> Tensor:
        """The videos' side (R, M) in an hour."""
        nowhere = np.zeros((len(rows), len(self._counts.layout.contexts)), np.int64)
        features = self._counts.features(rows, nowhere, hour * MS_PER_HOUR)
        hidden = self._hidden(torch.from_numpy(features), ~self._of_context)
        profiles = self._catalogue.vectors(rows)[:, self._model.dim :]
        return functional.linear(profiles, self._profile) + hidden

    def contexts(self, context_rows: IntArray, hour: int) -> Tensor:
        """What the counts of context values (R, C) add to the users' side (R, M) in an hour."""
        nothing = np.zeros(len(context_rows), np.int64)
        features = self._counts.features(nothing, context_rows, hour * MS_PER_HOUR)
        return self._hidden(torch.from_numpy(features), self._of_context)

    def _hidden(self, features: Tensor, used: Tensor) -> Tensor:
        """What some of the count features (R, F) add to the hidden values (R, M)."""
        numbers = self._model.count_numbers(features)
        weight = self._features * used
        weight_of_numbers = self._numbers * used.repeat_interleave(VALUES)
        return functional.linear(features, weight) + functional.linear(numbers, weight_of_numbers)


class _Hour:
    """The videos' side in one hour, made when a video is first asked for.

    Lists show few of a large catalogue's videos, and only theirs take memory.
    """

    def __init__(self, scores: TaskScores, hour: int, num_videos: int) -> None:
        self._scores, self._number = scores, hour
        self._place_N = Growing(np.zeros(num_videos, np.int32))
        """Of each video's side among those that were made; 0 where there is none, less than that
        where it is to be made anew."""
        self._sides_SM: Growing[np.float32] | None = None
        self._contexts: dict[tuple[int, ...], Tensor] = {}
        self.is_behind = False
        """Whether what all videos have in common was counted again since."""

    def change(self, rows: IntArray, num_videos: int) -> None:
        """Videos have other vectors or counts than before, or have followed the last ones."""
        self._place_N.reach(num_videos)
        self._place_N.now[rows] = -np.abs(self._place_N.now[rows])

    def of_contexts(self, contexts: Sequence[tuple[int, ...]]) -> Tensor:
        """What the counts of context values add to the users' side (B, M)."""
        missing = list({rows for rows in contexts if rows not in self._contexts})
        if missing:
            if len(self._contexts) + len(missing) > HELD_CONTEXTS:
                self._contexts.clear()
                missing = list(set(contexts))
            made = self._scores.contexts(np.array(missing, np.int64), self._number)
            self._contexts.update(zip(missing, made, strict=True))
        return torch.stack([self._contexts[rows] for rows in contexts])

    def of(self, rows: IntArray) -> Tensor:
        """The sides (…, M) of video rows (…)."""
        place_N = self._place_N.now
        missing = np.unique(rows[place_N[rows] <= 0])
        if self._sides_SM is None or len(missing):
            made = self._scores.videos(missing, self._number).numpy()
            if self._sides_SM is None:
                self._sides_SM = Growing(np.zeros((1, made.shape[1]), np.float32))
            first = place_N[missing] == 0
            place_N[missing] *= -1
            place_N[missing[first]] = len(self._sides_SM) + np.arange(first.sum())
            self._sides_SM.append(made[first])
            self._sides_SM.now[place_N[missing[~first]]] = made[~first]
        return torch.from_numpy(self._sides_SM.now)[torch.from_numpy(place_N[rows])]
