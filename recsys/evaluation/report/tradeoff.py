"""What the re-ranking step costs and brings at a range of weights: the trade-off curve.

Shapes: S sampled users, B users of a chunk, C candidates, K positions, N video rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.metrics.accuracy import own_slices
from recsys.evaluation.metrics.bootstrap import Table, bootstrap_means, interval
from recsys.evaluation.metrics.fairness import creator_exposure, gini
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.toplists import ALL, TopLists
from recsys.evaluation.ranking import RankerResult, chunk_users, measure, ranked
from recsys.inference import rerank as levers
from recsys.inference.ranker import Ranker
from recsys.inference.rerank import Reranker, VideoTraits, creator_prices, relative_relevance

PRICED_USERS = 10_000
"""Users, drawn at random, from whose lists the creators' prices are found."""
MOST_BETWEEN = 4
"""Users who are scored for each one who is asked for, at most."""
STEP = 256
"""Users whose lists are put in order at a time: the greedy choice keeps a row of categories each.
"""


@dataclass(frozen=True)
class CandidateSample:
    """Some users' candidates for re-ranking, and how relevant each is to its user."""

    data: RankingSet
    ranker: Ranker
    video_SC: NDArray[np.int64]
    relevance_SC: NDArray[np.float64]


def video_traits(videos: VideoTable, *, new_days: float) -> VideoTraits:
    """What the step may look at of a catalogue."""
    categories = videos.categories
    if categories is not None and not len(categories.values):
        categories = None
    return VideoTraits(
        creator_row_N=videos.creator_row_N,
        categories=categories,
        is_new_N=None if videos.age_days_N is None else videos.is_new(new_days),
    )


def draw_sample(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, count: int, num_users: int
) -> CandidateSample:
    """The best `count` videos of `num_users` users, who are drawn once and for all.

    Equal scores stay in whatever order topk leaves them.
    """
    if num_users < data.num_users:
        users = np.sort(np.random.default_rng(config.seed).permutation(data.num_users)[:num_users])
        part, of_part = data.select(users), _of_users(ranker, users)
    else:
        part, of_part = data, ranker
    depth = min(count, data.num_videos - 1)
    videos = np.zeros((part.num_users, depth), np.int64)
    relevance = np.zeros((part.num_users, depth))
    for lists in ranked(part, of_part, config, depth=depth):
        assert lists.score_BK is not None
        videos[lists.user_B.numpy()] = lists.video_BK.numpy()
        relevance[lists.user_B.numpy()] = relative_relevance(lists.score_BK.numpy())
    return CandidateSample(part, of_part, videos, relevance)


def _of_users(ranker: Ranker, users: NDArray[np.int64]) -> Ranker:
    """The ranker of some users, whose numbers rise.

    Many are scored together in a fraction of the time, with those between them too, where these are
    not too many.
    """

    def scores(start: int, stop: int) -> torch.Tensor:
        some = users[start:stop]
        first, last = int(some[0]), int(some[-1])
        if last - first < MOST_BETWEEN * len(some):
            return ranker(first, last + 1)[torch.from_numpy(some - first)]
        return torch.cat([ranker(user, user + 1) for user in some.tolist()])

    return scores


def priced(sample: CandidateSample, rerank: RerankConfig) -> VideoTraits:
    """What the step looks at, with the prices that the lists of these users lead to."""
    traits = video_traits(sample.data.videos, new_days=rerank.new_days)
    if not rerank.creator_exposure or traits.creator_row_N is None:
        return traits
    price_N = creator_prices(rerank, traits, sample.video_SC, sample.relevance_SC)
    return replace(traits, price_N=price_N)


def model_traits(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, rerank: RerankConfig
) -> VideoTraits:
    """What the step looks at in a server: prices are those of a fixed sample of the users."""
    return priced(draw_sample(data, ranker, config, rerank.candidates, PRICED_USERS), rerank)


def reranked(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, rerank: RerankConfig
) -> RankerResult:
    """What all users' lists are worth after the step."""
    lists = reranked_lists(data, ranker, config, rerank)
    return measure(data, lists, config, new_days=rerank.new_days)


def reranked_lists(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, rerank: RerankConfig
) -> Iterator[TopLists]:
    """All users' lists after the step, as a server would give them."""
    reranker = Reranker(rerank, model_traits(data, ranker, config, rerank))
    depth = min(max(rerank.candidates, *config.k), data.num_videos - 1)
    step = _Step(reranker, data, ranker, config)
    for lists in ranked(data, ranker, config, depth=depth, own=True):
        assert lists.score_BK is not None
        relevance_BC = relative_relevance(lists.score_BK.numpy())
        yield from step.lists(
            lists.user_B, lists.video_BK.numpy(), relevance_BC, max(config.k), among=lists.among
        )


@dataclass(frozen=True)
class _Step:
    """The re-ranking of some users' lists."""

    reranker: Reranker
    data: RankingSet
    ranker: Ranker
    config: EvaluateConfig

    def lists(
        self,
        user_B: Tensor,
        video_BC: NDArray[np.int64],
        relevance_BC: NDArray[np.float64],
        k: int,
        *,
        among: str = ALL,
    ) -> Iterator[TopLists]:
        """The lists after the step, some users at a time."""
        own = own_slices(self.data.videos).get(among)
        others = np.zeros(0, np.int64) if own is None else np.flatnonzero(~own)
        step = min(STEP, chunk_users(self.data))  # no more than can be measured at a time
        for start in range(0, len(user_B), step):
            part = slice(start, start + step)
            places = self.reranker.order(video_BC[part], relevance_BC[part], k)
            shown = np.take_along_axis(video_BC[part], places, 1)
            if self.reranker.config.drawn_places:
                users = user_B[part].tolist()
                shown = np.stack(
                    [self._drawn(user, row, others) for user, row in zip(users, shown, strict=True)]
                )
            yield TopLists(user_B[part], torch.from_numpy(shown), among=among)

    def _drawn(
        self, user: int, listed_K: NDArray[np.int64], others: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        known = self.data.left_out(user, user + 1)[1]
        scores_N = self.ranker(user, user + 1)[0].cpu().numpy()
        return self.reranker.with_drawn(
            self.data.user_ids[user],
            listed_K,
            np.union1d(known if self.config.mask_history else known[:0], others),
            lambda rows: scores_N[rows],
        )


def rerank_sample(
    sample: CandidateSample, config: EvaluateConfig, rerank: RerankConfig, k: int
) -> RankerResult:
    """What the sample's lists are worth after the step; the first k of each are measured."""
    step = _Step(Reranker(rerank, priced(sample, rerank)), sample.data, sample.ranker, config)
    user_S = torch.arange(sample.data.num_users)
    lists = step.lists(user_S, sample.video_SC, sample.relevance_SC, k)
    at_k = config.model_copy(update={"k": (k,)})
    return measure(sample.data, lists, at_k, new_days=rerank.new_days)


def tradeoff(
    data: RankingSet, ranker: Ranker, config: EvaluateConfig, rerank: RerankConfig
) -> dict[str, object]:
    """The curve of each lever that the catalogue allows, and the point of the configured weights.

    Returns:
        `k` (the length of a page), `users`, `plain` (a point without any weight), `levers` (name →
        points in order of weight), `configured` (a point, or None where no weight is set), and
        `limits` for creators: `relevance_gini`, of what users turned out to like, and
        `lowest_gini`, which exposure spread evenly over all creators among the candidates would
        have. A point has `weights`, `ndcg`, `ndcg_change` (relative) with its
        `ci` (paired bootstrap over users), and what the catalogue allows of `gini`, `gini_change`,
        `top_1_percent`, `creators_shown` and the metrics that have `on_curve`.
    """
    k = rerank.page
    sample = draw_sample(data, ranker, config, max(rerank.candidates, k), config.tradeoff_users)
    config = config.model_copy(update={"k": (k,)})
    curve = _Curve(sample, config, rerank)
    traits = video_traits(data.videos, new_days=rerank.new_days)
    return {
        "k": k,
        "users": sample.data.num_users,
        "plain": curve.point({}),
        "levers": {
            lever.setting: [curve.point({lever.setting: weight}) for weight in lever.grid]
            for lever in levers.LEVERS
            if lever.is_possible(traits)
        },
        "configured": curve.point(curve.configured) if any(curve.configured.values()) else None,
        "limits": _limits(sample) if traits.creator_row_N is not None else None,
    }


class _Curve:
    """Points, measured against the lists in plain order of relevance."""

    def __init__(
        self, sample: CandidateSample, config: EvaluateConfig, rerank: RerankConfig
    ) -> None:
        self._sample, self._config, self._rerank = sample, config, rerank
        self.configured = levers.weights(rerank)
        self._plain: RankerResult | None = None

    def point(self, weights: dict[str, float]) -> dict[str, object]:
        """One setting of the levers; the first point must be the plain one."""
        nothing = dict.fromkeys(self.configured, 0)
        rerank = self._rerank.model_copy(update={**nothing, **weights})
        k = self._rerank.page
        result = rerank_sample(self._sample, self._config, rerank, k)
        self._plain = self._plain or result
        point: dict[str, object] = {"weights": weights, **self._quality(result, self._plain)}
        point |= metrics_of_curve(result, k)
        if self._sample.data.videos.creator_row_N is not None:
            ours, plain = (
                creator_exposure(self._sample.data, of.exposure[k]) for of in (result, self._plain)
            )
            change = ours["gini"] - plain["gini"]  # a share of it, but where that is 0
            change /= plain["gini"] or 1.0
            point |= {"gini": ours["gini"], "gini_change": change}
            point |= {"top_1_percent": ours["top_1_percent"], "creators_shown": ours["shown"]}
        return point

    def _quality(self, result: RankerResult, plain: RankerResult) -> dict[str, object]:
        name = f"ndcg@{self._rerank.page}"
        ours, theirs = (of.slices["all"].values[name] for of in (result, plain))
        base = theirs.mean()
        quality: dict[str, object] = {"ndcg": float(ours.mean()), "ndcg_change": None, "ci": None}
        if not base:
            return quality
        quality["ndcg_change"] = float(ours.mean() / base - 1)
        if self._config.bootstrap:
            table = {"both": Table(np.arange(len(ours)), np.stack([ours, theirs], 1))}
            count, seed = self._config.bootstrap, self._config.seed
            means = bootstrap_means(table, len(ours), count=count, seed=seed)["both"]
            quality["ci"] = interval(means[:, 0] / np.where(means[:, 1], means[:, 1], np.nan) - 1)
        return quality


def metrics_of_curve(result: RankerResult, k: int) -> dict[str, float]:
    """The metrics that every point has; those that the catalogue does not allow are left out."""
    figures = {}
    by_user = {**result.slices["all"].values, **result.lists}
    for metric in metric_table.METRICS:
        if metric.on_curve and isinstance(metric.compute, metric_table.OfExposure):
            figures[metric.name] = metric.compute.of(result.exposure[k], None)
        elif metric.on_curve and f"{metric.user_column}@{k}" in by_user:
            figures[metric.name] = float(np.nanmean(by_user[f"{metric.user_column}@{k}"]))
    return figures


def _limits(sample: CandidateSample) -> dict[str, float]:
    """What creator exposure could be at best, and what it would be if relevance were all."""
    creator_N = sample.data.videos.creator_row_N
    assert creator_N is not None
    known = np.unique(creator_N[1:][creator_N[1:] > 0])
    liked = np.bincount(creator_N[sample.data.relevant.values], minlength=known.max() + 1)[known]
    reachable = np.isin(known, creator_N[np.unique(sample.video_SC)]).mean()
    return {"relevance_gini": gini(liked.astype(np.float64)), "lowest_gini": float(1 - reachable)}
