"""The baselines, each with its own tuning: settings are chosen on the validation days alone.

A comparison is worth no more than the other side's settings. What the run config does not fix is
taken from a short list by NDCG of the validation users' lists, with what they liked before masked
as in the test; then the baselines are made anew of all that is known before the test.

Shapes: N video rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config.run import EvaluateConfig
from recsys.evaluation.baselines import (
    Neighbours,
    item_knn,
    popularity,
    random_order,
    recent_popularity,
)
from recsys.evaluation.ease import Ease, Gram
from recsys.evaluation.likes import Likes
from recsys.evaluation.metrics.interactions import RankingSet, Videos
from recsys.evaluation.ranking import list_metrics
from recsys.inference.ranker import Ranker
from recsys.schema import VALID

HALF_LIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NEIGHBOURS = (10, 20, 50, 100, 200, 500)
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
RECENT_WEIGHTS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
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
    penalty: float = 300.0
    """λ of EASE."""
    recent_weight: float = 0.2
    """What the most popular video of these days gains beside EASE."""
    users: int = 0
    """Validation users that they were chosen by; 0 where there were none, and these are guesses."""


@dataclass(frozen=True)
class Baselines:
    """The rankers by name, and what they were made with."""

    rankers: dict[str, Ranker]
    about: dict[str, Any]


def make_baselines(likes: Likes, data: RankingSet, config: EvaluateConfig) -> Baselines:
    """All that are made of likes alone.

    Args:
        likes: Of all users before the test.
        data: The test users; of their test nothing is looked at.
        config: Fixes settings, or leaves them to be chosen.
    """
    settings = choose(likes, data.videos, config)
    recent_N = likes.recent(settings.half_life_days, data.num_videos)
    neighbours = Neighbours.of(likes.lists, data.num_videos, most=settings.neighbours)
    rankers = {
        "popularity": popularity(data.videos.popularity_N),
        "recent popularity": recent_popularity(recent_N),
        "item-kNN": item_knn(neighbours, data),
    }
    about: dict[str, Any] = {
        "users": settings.users,
        "half_life_days": settings.half_life_days,
        "neighbours": settings.neighbours,
    }
    if config.ease_videos:
        gram = Gram.of(likes.lists, data.num_videos, most_videos=config.ease_videos)
        ease = gram.fit(settings.penalty)
        bonus_N = bonus(recent_N, settings.recent_weight)
        rankers["EASE"] = ease.ranker(data)
        rankers["EASE + recent popularity"] = ease.ranker(data, bonus_N)
        about["ease"] = {
            "penalty": settings.penalty,
            "recent_weight": settings.recent_weight,
            "videos": len(gram.row_M),
            "share_of_likes": gram.share_of_likes,
        }
    rankers["random"] = random_order(data.num_videos)
    return Baselines(rankers, about)


def choose(likes: Likes, videos: Videos, config: EvaluateConfig) -> Settings:
    """The settings: those that the config fixes, and else the best on the validation days."""
    data, guessed = likes.validation(videos, seed=config.seed), Settings()
    if data is None:
        return Settings(
            config.half_life_days or guessed.half_life_days,
            config.neighbours or guessed.neighbours,
            config.ease_penalty or guessed.penalty,
        )
    known = likes.before(VALID)
    tuning = _Tuning(known, data, config)
    half_life = config.half_life_days or tuning.half_life()
    neighbours = config.neighbours or tuning.neighbours()
    penalty, weight = guessed.penalty, guessed.recent_weight
    if config.ease_videos:
        gram = Gram.of(known.lists, len(videos), most_videos=min(config.ease_videos, TUNED_VIDEOS))
        penalty = config.ease_penalty or tuning.penalty(gram)
        recent_N = known.recent(half_life, len(videos))
        weight = tuning.recent_weight(gram.fit(penalty), recent_N)
    return Settings(half_life, neighbours, penalty, weight, users=data.num_users)


def bonus(recent_N: NDArray[np.float64], weight: float) -> Tensor:
    """What recent popularity adds to EASE's scores (N): `weight` for the most popular video."""
    return torch.from_numpy(weight * recent_N / max(recent_N.max(), 1e-300)).float()


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
        most = Neighbours.of(self.known.lists, self.data.num_videos, most=max(NEIGHBOURS))
        return self._best({count: item_knn(most.first(count), self.data) for count in NEIGHBOURS})

    def penalty(self, gram: Gram) -> float:
        scores = {value: self._score(gram.fit(value).ranker(self.data)) for value in PENALTIES}
        return max(scores, key=scores.__getitem__)

    def recent_weight(self, ease: Ease, recent_N: NDArray[np.float64]) -> float:
        return self._best(
            {value: ease.ranker(self.data, bonus(recent_N, value)) for value in RECENT_WEIGHTS}
        )

    def _best(self, rankers: Mapping[Setting, Ranker]) -> Setting:
        scores = {setting: self._score(ranker) for setting, ranker in rankers.items()}
        return max(scores, key=scores.__getitem__)

    def _score(self, ranker: Ranker) -> float:
        k = self.config.headline_k
        values = list_metrics(self.data, ranker, self.config, k).values[f"ndcg@{k}"]
        return float(values.mean())
