"""Who gets what: quality for groups of users, exposure of creators, of new and of popular videos.

Shapes: U users, N video rows, R creator rows, G blocks of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from recsys.config.run import EvaluateConfig
from recsys.evaluation.metrics.beyond import Exposure
from recsys.evaluation.metrics.bootstrap import Table, bootstrap_means, interval, jackknife_interval
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable

Floats = NDArray[np.float64]

SMALL_GROUP = 100
"""A group of fewer users is shown, but does not count in a gap."""
MOST_GROUPS = 20
"""Largest groups of a column that are told apart."""
PERMUTATIONS = 999
BANDS = {"top 1 %": 0.01, "next 9 %": 0.1, "next 40 %": 0.5, "last 50 %": 1.0}
"""Creators by their known positives: name → share of creators up to and with it."""


def gini(shares: Floats) -> float:
    """Gini coefficient of amounts: 0 where all have the same, near 1 where one has all.

    Σ_i (2i - n - 1) x_i / (n Σ x) with x rising and i = 1…n.

    >>> gini(np.array([1.0, 1, 1, 1])), gini(np.array([0.0, 0, 0, 1]))
    (0.0, 0.75)
    """
    total = shares.sum()
    if not total:
        return 0.0
    rank = np.arange(1, len(shares) + 1)
    return float((2 * rank - len(shares) - 1) @ np.sort(shares) / (len(shares) * total))


def top_share(shares: Floats, top: float = 0.01) -> float:
    """What part of the whole the largest `top` of them have, at least one of them.

    >>> top_share(np.array([6.0, 2, 1, 1]), 0.25)
    0.6
    """
    count = max(1, round(top * len(shares)))
    total = shares.sum()
    return float(np.sort(shares)[-count:].sum() / total) if total else 0.0


class Band(TypedDict):
    """Shares of a band of creators, by how much is known to be liked of them."""

    band: str
    creators: int
    exposure: float
    relevance: float
    videos: float


class CreatorExposure(TypedDict):
    """How the places in the top k are spread over creators."""

    k: int
    creators: int
    """Of the catalogue."""
    shown: float
    """Share of them that are expected in at least one list."""
    unknown_creator: float
    """Share of the places that go to videos without a known creator."""
    mismatch: float
    """Part of the places that would have to move for exposure to be proportional to relevance."""
    gini: float
    top_1_percent: float
    relevance: dict[str, float]
    """Gini coefficient and top share of what users turned out to like."""
    bands: list[Band]
    ci: dict[str, list[float] | None]
    """95 % intervals of `gini` and `top_1_percent`."""


class NewVideoExposure(TypedDict):
    """Shares of the videos that are at most `days` old."""

    days: float
    exposure: float
    catalogue: float
    relevance: float


class Lift(TypedDict):
    """Mean popularity of what some users liked before and of their lists."""

    users: int
    history: NotRequired[float]
    lists: NotRequired[float]
    lift: float | None
    """The second over the first, minus 1."""


class PopularityBias(Lift):
    """The lift of all users that have one, and of fifths of them by the popularity they like."""

    by_taste: list[Lift]


class QualityGap(TypedDict):
    """The gap between the best and the worst served group."""

    gap: float | None
    """None where fewer than two groups are large enough."""
    best: NotRequired[str]
    worst: NotRequired[str]
    ci: NotRequired[list[float] | None]
    p: NotRequired[float]
    """How often a gap as large comes up where users are dealt to the groups at random."""
    warnings: list[str]


def creator_exposure(data: RankingSet, exposure: Exposure) -> CreatorExposure:
    """How the places in the top k are spread over creators, beside what users turned out to like.

    Every creator of the catalogue counts, also one never shown. `shown` is the share of creators
    who are expected in at least one list (in more than half of one, where scores are tied).
    `mismatch` is half the sum of the absolute differences of exposure and relevance shares: the
    part of all places that would have to move for exposure to be proportional to relevance.
    Relevance is that of the test positives, of which a creator with few has a share by luck: a
    perfect ranker is not at 0 either.
    """
    creators = _Creators(data.videos)
    shown_N = exposure.shown_N
    shown = creators.total(shown_N)
    liked = creators.total(np.bincount(data.relevant.values, minlength=data.num_videos))
    left_out = [creators.total(shown_N - block_N) for block_N in exposure.shown_by_block()]
    spread = {"gini": gini(shown), "top_1_percent": top_share(shown)}
    samples = {
        "gini": np.array([gini(part) for part in left_out]),
        "top_1_percent": np.array([top_share(part) for part in left_out]),
    }
    return {
        "k": exposure.k,
        "creators": len(shown),
        "shown": float((shown > 0.5).mean()),
        "unknown_creator": float(1 - shown.sum() / max(1e-12, exposure.shown_N.sum())),
        "mismatch": float(np.abs(_share(shown) - _share(liked)).sum() / 2),
        "relevance": {"gini": gini(liked), "top_1_percent": top_share(liked)},
        "bands": creators.bands(shown, liked),
        "ci": {name: jackknife_interval(spread[name], samples[name]) for name in spread},
        "gini": spread["gini"],
        "top_1_percent": spread["top_1_percent"],
    }


class _Creators:
    """The known creators of a catalogue."""

    def __init__(self, videos: VideoTable) -> None:
        assert videos.creator_row_N is not None
        self._row_N = videos.creator_row_N
        self._known = np.unique(self._row_N[1:][self._row_N[1:] > 0])
        self._videos = self.total(np.ones(len(videos)))
        self._positives = self.total(videos.popularity_N)

    def total(self, amounts_N: NDArray[np.number]) -> Floats:
        """Sum of each creator's videos' amounts, row 0 left out."""
        rows, size = self._row_N[1:], int(self._row_N.max()) + 1
        sums = np.bincount(rows, amounts_N[1:], size)[self._known]
        return sums.astype(np.float64)

    def bands(self, shown: Floats, liked: Floats) -> list[Band]:
        """Shares of bands of creators, the most popular first."""
        order = np.argsort(-self._positives, kind="stable")
        rows: list[Band] = []
        begin = 0
        for name, upto in BANDS.items():
            end = max(begin, round(upto * len(order)))
            part, begin = order[begin:end], end
            exposure, relevance, videos = (
                float(_share(amounts)[part].sum()) for amounts in (shown, liked, self._videos)
            )
            rows.append(
                {
                    "band": name,
                    "creators": len(part),
                    "exposure": exposure,
                    "relevance": relevance,
                    "videos": videos,
                }
            )
        return rows


def _share(amounts: Floats) -> Floats:
    shares: Floats = amounts / max(1e-12, amounts.sum())
    return shares


def new_video_exposure(data: RankingSet, new_U: Floats, new_days: float) -> NewVideoExposure:
    """Share of new videos in the lists, in the catalogue and in what users turned out to like."""
    new_N = data.videos.is_new(new_days)
    return {
        "days": new_days,
        "exposure": float(np.nanmean(new_U)),
        "catalogue": float(new_N[1:].mean()),
        "relevance": float(new_N[data.relevant.values].mean()),
    }


def popularity_bias(data: RankingSet, popularity_U: Floats) -> PopularityBias:
    """How much more popular the lists are than what their users liked before.

    `lift` is the mean popularity of the lists over that of the histories, minus 1, for users with
    a history (H. Abdollahpouri et al., "The Unfairness of Popularity Bias in Recommendation",
    2019); `by_taste` splits the users by the popularity of their own history, in fifths.
    """
    history = history_popularity(data)
    users = np.flatnonzero(~np.isnan(history) & ~np.isnan(popularity_U))
    if not len(users):
        return {"users": 0, "lift": None, "by_taste": []}
    order = users[np.argsort(history[users], kind="stable")]
    fifths = [part for part in np.array_split(order, 5) if len(part)]
    return {
        **_lift(history[users], popularity_U[users]),
        "by_taste": [_lift(history[part], popularity_U[part]) for part in fifths],
    }


def history_popularity(data: RankingSet) -> Floats:
    """Mean popularity of the videos of each user's history (U), NaN without one."""
    lengths = data.known.lengths
    popularity = data.videos.popularity_N[data.known.values].astype(np.float64)
    sums = np.bincount(data.known.list_of_value, popularity, data.num_users)
    return np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def _lift(history: Floats, lists: Floats) -> Lift:
    before, now = float(history.mean()), float(lists.mean())
    lift = now / before - 1 if before else None
    return {"users": len(history), "history": before, "lists": now, "lift": lift}


@dataclass(frozen=True)
class Grouped:
    """Users by the names of one group column."""

    names: tuple[str, ...]
    """In order of size, the largest first."""
    group_U: NDArray[np.int64]
    """Number of each user's name; -1 where it is not known, or not among the largest."""
    left_out: int = 0
    """Names that are not among the largest."""

    @classmethod
    def of(cls, data: RankingSet, column: str) -> Grouped:
        """Counts the names of a column."""
        values = data.groups[column]
        sizes: dict[str, int] = {}
        for value in values:
            if value is not None:
                sizes[value] = sizes.get(value, 0) + 1
        names = sorted(sizes, key=lambda name: (-sizes[name], name))
        number: dict[str | None, int] = {n: at for at, n in enumerate(names[:MOST_GROUPS])}
        group_U = np.array([number.get(value, -1) for value in values], np.int64)
        return cls(tuple(names[:MOST_GROUPS]), group_U, max(0, len(names) - MOST_GROUPS))


def quality_gap(grouped: Grouped, values_U: Floats, config: EvaluateConfig) -> QualityGap:
    """The gap between the best and the worst served group of at least `SMALL_GROUP` users.

    The larger of several noisy means is larger by luck alone, so `p` says how often a gap as large
    comes up when the users are dealt to the groups at random.

    Args:
        grouped: The users' groups.
        values_U: A metric, NaN for users who have none.
        config: Resamplings and seed.
    """
    counted = ~np.isnan(values_U) & (grouped.group_U >= 0)
    group, values = grouped.group_U[counted], values_U[counted]
    sizes = np.bincount(group, minlength=len(grouped.names))
    large = np.flatnonzero(sizes >= SMALL_GROUP)
    warnings = [
        f"{name} has too few users to say ({size})"
        for name, size in zip(grouped.names, sizes, strict=True)
        if size < SMALL_GROUP
    ]
    if grouped.left_out:
        warnings.append(f"{grouped.left_out} smaller groups are left out")
    if len(large) < 2:
        return {"gap": None, "warnings": [*warnings, "fewer than two groups are large enough"]}
    place = np.searchsorted(large, group)
    kept = np.isin(group, large)
    place, values = place[kept], values[kept]
    means = _means(place, values)
    best, worst = int(means.argmax()), int(means.argmin())
    rng = np.random.default_rng(config.seed)
    chance = [np.ptp(_means(rng.permutation(place), values)) for _ in range(PERMUTATIONS)]
    return {
        "best": grouped.names[large[best]],
        "worst": grouped.names[large[worst]],
        "gap": float(means[best] - means[worst]),
        "ci": _gap_interval(place == best, place == worst, values, config),
        "p": float((1 + np.sum(np.array(chance) >= np.ptp(means))) / (1 + PERMUTATIONS)),
        "warnings": warnings,
    }


def _means(place: NDArray[np.int64], values: Floats) -> Floats:
    means: Floats = np.bincount(place, values) / np.bincount(place)
    return means


def _gap_interval(
    best: NDArray[np.bool_], worst: NDArray[np.bool_], values: Floats, config: EvaluateConfig
) -> list[float] | None:
    if not config.bootstrap:
        return None
    tables = {
        name: Table(np.flatnonzero(users), values[users][:, None])
        for name, users in (("best", best), ("worst", worst))
    }
    means = bootstrap_means(tables, len(values), count=config.bootstrap, seed=config.seed)
    return interval(means["best"][:, 0] - means["worst"][:, 0])
