"""All baselines: a new one is one entry of `BASELINES`, and everything else reads the table.

The report, the terminal, the page with its glossary, the comparisons and the verdict show whatever
rankers are made here.

Shapes: N video rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.config.run import EvaluateConfig
from recsys.evaluation.baselines.ease import Ease, Gram
from recsys.evaluation.baselines.likes import Likes
from recsys.evaluation.baselines.simple import (
    Neighbours,
    content_knn,
    item_knn,
    popularity,
    random_order,
    recent_popularity,
)
from recsys.evaluation.baselines.tuning import Settings, choose
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.inference.ranker import Ranker


@dataclass(frozen=True)
class BaselineInputs:
    """What baselines may be made of: what is known before the test, and the users to rank for."""

    likes: Likes
    """Of all users before the test, or of some drawn at random."""
    data: RankingSet
    """The test users; of their test nothing may be looked at."""
    config: EvaluateConfig
    settings: Settings
    """Those that the config fixes, and else chosen on the validation days."""
    contents_ND: Tensor | None = None
    """Content vectors, where there are some."""

    @cached_property
    def recent_N(self) -> NDArray[np.float64]:
        """Positive events of each video, recent ones counting more."""
        return self.likes.recent(self.settings.half_life_days, self.data.num_videos)

    @cached_property
    def neighbours(self) -> Neighbours:
        """What item-kNN is made of."""
        most, seed = self.settings.neighbours, self.config.seed
        lists, known = self.likes.lists, self.data.known
        return Neighbours.of(lists, self.data.num_videos, known, most=most, seed=seed)

    @cached_property
    def gram(self) -> Gram:
        """What EASE is fitted to."""
        most = self.config.ease_videos
        return Gram.of(self.likes.lists, self.data.num_videos, most_videos=most)


class EaseMadeWith(TypedDict):
    """What EASE, alone and with recent popularity, was made with."""

    penalty: float
    blend_penalty: float
    blend_weight: float
    videos: int
    """The most popular ones, which it is made of."""
    share_of_likes: float
    """Of all likes, those of these videos."""


class MadeWith(TypedDict):
    """What the baselines were made with."""

    users: int
    """Validation users that the settings were chosen by; 0 where they are guesses."""
    half_life_days: float
    neighbours: int
    users_share: NotRequired[float]
    """Of the users, those whose likes all of them are made of, where there are too many for all."""
    neighbours_share: NotRequired[float]
    """Of these users, those that item-kNN is made of, where there are too many for all."""
    ease: NotRequired[EaseMadeWith]


@dataclass(frozen=True)
class Baseline:
    """One simple ranker that stands beside the model."""

    name: str
    """Of the ranker, in report.json and for people."""
    help: str
    """What it is, in one sentence, for the glossary."""
    make: Callable[[BaselineInputs], Ranker | None]
    """Gives scores (users, N) for a chunk of test users; None where the data or the config do not
    allow it."""
    made_with: Callable[[MadeWith], str | None] = lambda about: None
    """Says what it was made with, as in "item-kNN with 50 neighbours", from `Baselines.about`; None
    where there was nothing to choose."""


def _ease(known: BaselineInputs) -> Ranker | None:
    if not known.config.ease_videos:
        return None
    return known.gram.fit(known.settings.penalty).ranker(known.data)


def _ease_and_recent(known: BaselineInputs) -> Ranker | None:
    if not known.config.ease_videos:
        return None
    ease: Ease = known.gram.fit(known.settings.blend_penalty)
    bonus_N = ease.bonus(known.recent_N, known.settings.blend_weight)
    return ease.ranker(known.data, bonus_N)


def _ease_made_with(about: MadeWith) -> str | None:
    ease = about.get("ease")
    return f"EASE with an L2 penalty of {ease['penalty']:g}" if ease else None


def _ease_and_recent_made_with(about: MadeWith) -> str | None:
    ease = about.get("ease")
    if not ease:
        return None
    weight = f"that counting {ease['blend_weight']:g}"
    return f"EASE beside recent popularity with one of {ease['blend_penalty']:g}, {weight}"


def _content_knn(known: BaselineInputs) -> Ranker | None:
    return None if known.contents_ND is None else content_knn(known.contents_ND, known.data)


BASELINES: tuple[Baseline, ...] = (
    Baseline(
        "popularity",
        "By the number of positive events before the test.",
        lambda known: popularity(known.data.videos.popularity_N),
    ),
    Baseline(
        "recent popularity",
        "By the number of positive events before the test, each counting half as much for every "
        "half-life that it is old.",
        lambda known: recent_popularity(known.recent_N),
        lambda about: f"recent popularity with a half-life of {about['half_life_days']:g} days",
    ),
    Baseline(
        "item-kNN",
        "By the videos that were liked together with those that the user liked (Sarwar et al. "
        "2001).",
        lambda known: item_knn(known.neighbours, known.data),
        lambda about: f"item-kNN with {about['neighbours']:,} neighbours",
    ),
    Baseline(
        "EASE",
        "A linear model of what is liked together, in closed form (Steck 2019).",
        _ease,
        _ease_made_with,
    ),
    Baseline(
        "EASE + recent popularity",
        "EASE, with a bonus for everybody on what was liked in the last days.",
        _ease_and_recent,
        _ease_and_recent_made_with,
    ),
    Baseline(
        "random",
        "All videos in random order: every figure is the mean over all orders.",
        lambda known: random_order(known.data.num_videos),
    ),
    Baseline(
        "content-kNN",
        "By the likeness of a video's content with the mean of what the user liked.",
        _content_knn,
    ),
)


@dataclass(frozen=True)
class Baselines:
    """The rankers by name, and what they were made with."""

    rankers: dict[str, Ranker]
    about: MadeWith


def make_baselines(
    likes: Likes, data: RankingSet, config: EvaluateConfig, contents_ND: Tensor | None = None
) -> Baselines:
    """All of the table that the data allow, with the settings that were chosen for them.

    Args:
        likes: Of all users before the test, or of some drawn at random.
        data: The test users; of their test nothing is looked at.
        config: Fixes settings, or leaves them to be chosen.
        contents_ND: Content vectors, where there are some.
    """
    settings = choose(likes, data.videos, config)
    known = BaselineInputs(likes, data, config, settings, contents_ND)
    made = {baseline.name: baseline.make(known) for baseline in BASELINES}
    rankers = {name: ranker for name, ranker in made.items() if ranker is not None}
    about: MadeWith = {
        "users": settings.users,
        "half_life_days": settings.half_life_days,
        "neighbours": settings.neighbours,
    }
    if likes.share_of_users < 1:
        about["users_share"] = likes.share_of_users
    if known.neighbours.share_of_users < 1:
        about["neighbours_share"] = known.neighbours.share_of_users
    if config.ease_videos:
        about["ease"] = {
            "penalty": settings.penalty,
            "blend_penalty": settings.blend_penalty,
            "blend_weight": settings.blend_weight,
            "videos": len(known.gram.row_M),
            "share_of_likes": known.gram.share_of_likes,
        }
    return Baselines(rankers, about)
