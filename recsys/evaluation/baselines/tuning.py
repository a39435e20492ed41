"""The baselines, each with its own tuning: settings are chosen on the validation days alone.

A comparison is worth no more than the other side's settings. What the run config does not fix is
taken from a short list by NDCG of the validation users' lists, with what they liked before masked
as in the test; then the table's baselines are made anew of all that is known before the test.

Shapes: U users, N video rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from recsys.config.run import EvaluateConfig
from recsys.evaluation.baselines.ease import Gram
from recsys.evaluation.baselines.likes import TUNED_SCORES, Likes
from recsys.evaluation.baselines.simple import (
    Neighbours,
    item_knn,
    recent_popularity,
)
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import list_metrics
from recsys.inference.ranker import Ranker
from recsys.schema import VALID

HALF_LIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NEIGHBOURS = (10, 20, 50, 100, 200, 500)
PENALTIES = (50.0, 200.0, 1000.0, 5000.0, 20_000.0)
RECENT_WEIGHTS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
TUNED_VIDEOS = 4096
"""Most videos of the model by which EASE's settings are chosen: the work grows with the cube."""

Setting = TypeVar("Setting", int, float)


@dataclass(frozen=True)
class Settings:
    """What the baselines are made with."""

    half_life_days: float = 1.0
    """Of recent popularity."""
    neighbours: int = 100
    """Of item-kNN."""
    penalty: float = 200.0
    """λ of EASE."""
    blend_penalty: float = 200.0
    """λ of EASE with recent popularity beside it …"""
    blend_weight: float = 1.0
    """… and what that counts, as in `Ease.bonus`."""
    users: int = 0
    """Validation users that they were chosen by; 0 where there were none, and these are guesses."""


def choose(likes: Likes, videos: VideoTable, config: EvaluateConfig) -> Settings:
    """The settings: those that the config fixes, and else the best on the validation days."""
    fixed: dict[str, Any] = {
        "half_life_days": config.half_life_days,
        "neighbours": config.neighbours,
        "penalty": config.ease_penalty,
        "blend_penalty": config.ease_penalty,
    }
    settings = replace(Settings(), **{k: value for k, value in fixed.items() if value is not None})
    data = likes.validation(videos, seed=config.seed)
    if data is None:
        return settings
    tuning = _Tuning(likes.before(VALID), data, config)
    settings = replace(settings, users=data.num_users)
    if config.half_life_days is None:
        settings = replace(settings, half_life_days=tuning.half_life())
    if config.neighbours is None:
        settings = replace(settings, neighbours=tuning.neighbours())
    return tuning.ease(settings) if config.ease_videos else settings


def held(ranker: Ranker, data: RankingSet) -> Ranker:
    """The same, worked out once where all its scores may be kept in memory."""
    if data.num_users * data.num_videos > TUNED_SCORES:
        return ranker
    scores_UN = ranker(0, data.num_users)
    return lambda start, stop: scores_UN[start:stop]


def plus(ranker: Ranker, bonus_N: Tensor) -> Ranker:
    """A ranker with something added for everybody."""
    return lambda start, stop: ranker(start, stop) + bonus_N


@dataclass(frozen=True)
class _Tuning:
    """Tries settings on the validation users, with what was known before them."""

    known: Likes
    data: RankingSet
    config: EvaluateConfig

    def half_life(self) -> float:
        counts = {days: self.known.recent(days, self.data.num_videos) for days in HALF_LIVES}
        return self._best({days: recent_popularity(count) for days, count in counts.items()})

    def neighbours(self) -> int:
        size, seed = self.data.num_videos, self.config.seed
        lists, asked = self.known.lists, self.data.known
        most = Neighbours.of(lists, size, asked, most=max(NEIGHBOURS), seed=seed)
        return self._best({count: item_knn(most.first(count), self.data) for count in NEIGHBOURS})

    def ease(self, settings: Settings) -> Settings:
        """Penalties for EASE alone and beside recent popularity, each with the best weight."""
        size = self.data.num_videos
        most = min(self.config.ease_videos, TUNED_VIDEOS)
        gram = Gram.of(self.known.lists, size, most_videos=most)
        recent_N = self.known.recent(settings.half_life_days, size)
        alone: dict[float, float] = {}
        beside: dict[tuple[float, float], float] = {}
        fixed = self.config.ease_penalty
        for penalty in PENALTIES if fixed is None else (fixed,):
            ease = gram.fit(penalty)
            alone[penalty] = self._score(ease.ranker(self.data))
            without = held(ease.ranker(self.data, torch.zeros(size)), self.data)
            for weight in RECENT_WEIGHTS:
                bonus_N = ease.bonus(recent_N, weight)
                beside[penalty, weight] = self._score(plus(without, bonus_N))
        blend_penalty, blend_weight = max(beside, key=beside.__getitem__)
        return replace(
            settings,
            penalty=max(alone, key=alone.__getitem__),
            blend_penalty=blend_penalty,
            blend_weight=blend_weight,
        )

    def _best(self, rankers: Mapping[Setting, Ranker]) -> Setting:
        scores = {setting: self._score(ranker) for setting, ranker in rankers.items()}
        return max(scores, key=scores.__getitem__)

    def _score(self, ranker: Ranker) -> float:
        k = self.config.headline_k
        values = list_metrics(self.data, ranker, self.config, k).values[f"ndcg@{k}"]
        return float(values.mean())
