"""What other weights of the re-ranking would do, on a sample of users, before anybody sees it.

Nothing is changed by looking. The weights are settings of the run (`rerank.*`): publish finds the
creators' prices over all users and the evaluation what the weights cost in NDCG, and a version with
other weights can be tried on a share of the users before it serves everybody.

Shapes: S users of the sample, C candidates, K videos of a page, N videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.config.run import RerankConfig
from recsys.data.ragged import IntArray, join_lists
from recsys.errors import InputError
from recsys.evaluation.metrics.fairness import gini
from recsys.inference.rerank import Floats, Reranker, VideoTraits, creator_prices, lever_of
from recsys.live.clock import now
from recsys.serve.asks import Ask
from recsys.serve.http.messages import Described, Message
from recsys.serve.operator.audience import MOST_USERS
from recsys.serve.recommender import ServingRecommender

SHOWN_USERS = 5
"""Of the sample, whose pages are told."""
LARGEST_WEIGHT = 10.0
"""At 1 a lever outweighs the relevance of a user's best video."""
Weight = Annotated[float, Field(ge=0, le=LARGEST_WEIGHT, strict=True)] | None


class PreviewRequest(Message):
    """Weights to try out, in place of those of `rerank.*`; drawn places are left out of account."""

    creator_exposure: Weight = None
    """Null is what serves now; likewise the others."""
    diversity: Weight = None
    new_videos: Weight = None
    users: int = Field(100, ge=1, le=MOST_USERS, strict=True)
    """Known users whose first page is made."""

    def weights(self, config: RerankConfig) -> dict[str, float]:
        """Setting of `rerank` → weight."""
        asked = self.model_dump(exclude={"users"})
        return {
            name: float(getattr(config, name) if weight is None else weight)
            for name, weight in asked.items()
        }


@dataclass(config=Described)
class PageFigures:
    """What the first pages of the sample are, taken together."""

    relevance: float
    """Mean over all places of the video's chance relative to that of the user's best candidate, as
    the model has it: 1 were every video as good as the best. It is no measured NDCG."""
    creators_shown: int
    """Different creators on the pages."""
    creator_gini: float
    """Of the creators' places, over all creators of the candidates; 0 where all have as many."""
    categories: float
    """Different categories on a page, in the mean."""
    new_videos: float
    """Share of the places that have a video that is at most `rerank.new_days` old."""


@dataclass(config=Described)
class PageChange:
    """One user's first page under both weights."""

    user_id: str
    now: list[str]
    then: list[str]


@dataclass(config=Described)
class PreviewResponse:
    """The answer of /v1/operator/preview."""

    num_sampled: int
    page: int
    """Videos of a page (`rerank.page`)."""
    weights: dict[str, float]
    """That serve now."""
    plain: PageFigures
    """Without any re-ranking."""
    now: PageFigures
    then: PageFigures
    changed_places: float
    """Share of the places whose video would not be on the page any more."""
    num_changed: int
    """Users of the sample whose page would hold other videos."""
    pages: list[PageChange]
    """Of some of these."""
    settings: str
    """What to set, to publish a version with these weights."""


@plain_dataclass(frozen=True)
class SampledLists:
    """The candidates of some users, the best by `serve.rank` first; row 0 fills up."""

    user_ids: list[str]
    rows_SC: IntArray
    relevance_SC: Floats
    """From 0 to 1, as `rerank.relative_relevance` has it."""


def sampled_lists(recommender: ServingRecommender, user_ids: list[str]) -> SampledLists:
    """The candidates of some users, in the recommender's thread."""
    config = recommender.bundle.config.rerank
    asks = [Ask(user_id, config.page) for user_id in user_ids]
    _, candidates = recommender.candidates(asks, config.candidates)
    return SampledLists(user_ids, *recommender.lists.relevance(candidates))


def joined(parts: list[SampledLists]) -> SampledLists:
    """All users together; shorter lists are filled up."""
    width = max(part.rows_SC.shape[1] for part in parts)

    gaps = [((0, 0), (0, width - part.rows_SC.shape[1])) for part in parts]
    return SampledLists(
        [user_id for part in parts for user_id in part.user_ids],
        np.concatenate([np.pad(part.rows_SC, gap) for part, gap in zip(parts, gaps, strict=True)]),
        np.concatenate(
            [np.pad(part.relevance_SC, gap) for part, gap in zip(parts, gaps, strict=True)]
        ),
    )


def traits_of(recommender: ServingRecommender) -> VideoTraits:
    """What may be traded for, of all videos of now; without prices."""
    parts = recommender.catalogue.described()
    creators = np.concatenate([part.creator_rows for part in parts])
    categories = join_lists([part.categories for part in parts])
    config = recommender.bundle.config
    is_new = recommender.ages.younger_than(config.rerank.new_days, now())
    return VideoTraits(
        creator_row_N=creators if creators.any() else None,
        categories=categories if len(categories.values) else None,
        is_new_N=is_new,
    )


@plain_dataclass(frozen=True)
class Pages:
    """The first pages of a sample under some weights."""

    rows_SK: IntArray
    figures: PageFigures


def pages_of(
    lists: SampledLists, traits: VideoTraits, config: RerankConfig, weights: dict[str, float]
) -> Pages:
    """The first pages under weights in place of the config's; nothing is drawn by lot.

    Raises:
        InputError: A weight is on what this catalogue does not know.
    """
    for name, weight in weights.items():
        if weight and not lever_of(name).is_possible(traits):
            raise InputError(f"{name}={weight:g}: needs {lever_of(name).needs}; leave it at 0")
    config = config.model_copy(update={**weights, "drawn_places": 0})
    places_SK = _places(lists, traits, config)
    rows_SK = np.take_along_axis(lists.rows_SC, places_SK, 1)
    return Pages(rows_SK, _figures(lists, places_SK, traits))


def preview(
    lists: SampledLists,
    traits: VideoTraits,
    config: RerankConfig,
    asked: PreviewRequest,
    names: Callable[[IntArray], list[str]],
) -> PreviewResponse:
    """What weights would do to the first pages of a sample.

    Args:
        lists: Of the sample.
        traits: Of all videos.
        config: Of now.
        asked: The weights.
        names: Gives the ids of video rows.

    Raises:
        InputError: A weight is on what this catalogue does not know.
    """
    wanted, today = asked.weights(config), PreviewRequest().weights(config)
    plain, today_pages, then = (
        pages_of(lists, traits, config, weights)
        for weights in (dict.fromkeys(wanted, 0.0), today, wanted)
    )
    there = today_pages.rows_SK > 0
    changes = [
        PageChange(user_id, names(before[before > 0]), names(after[after > 0]))
        for user_id, before, after in zip(
            lists.user_ids, today_pages.rows_SK, then.rows_SK, strict=True
        )
        if set(before.tolist()) != set(after.tolist())
    ]
    kept = [np.isin(*pair) for pair in zip(today_pages.rows_SK, then.rows_SK, strict=True)]
    return PreviewResponse(
        num_sampled=len(lists.user_ids),
        page=config.page,
        weights=today,
        plain=plain.figures,
        now=today_pages.figures,
        then=then.figures,
        changed_places=float(1 - np.stack(kept)[there].mean()) if there.any() else 0.0,
        num_changed=len(changes),
        pages=changes[:SHOWN_USERS],
        settings=" ".join(f"rerank.{name}={weight:g}" for name, weight in wanted.items()),
    )


def _places(lists: SampledLists, traits: VideoTraits, config: RerankConfig) -> IntArray:
    """(S, K) places among the candidates of the first pages, with the prices they lead to."""
    rows_SC, relevance_SC = lists.rows_SC, lists.relevance_SC
    if config.creator_exposure:
        prices = creator_prices(config, traits, rows_SC, relevance_SC)
        traits = replace(traits, price_N=prices)
    return Reranker(config, traits).order(rows_SC, relevance_SC, config.page)


def _figures(lists: SampledLists, places_SK: IntArray, traits: VideoTraits) -> PageFigures:
    rows_SK = np.take_along_axis(lists.rows_SC, places_SK, 1)
    relevance_SK = np.take_along_axis(lists.relevance_SC, places_SK, 1)
    there = rows_SK > 0
    shown = rows_SK[there]
    creators, shares = _creators(lists.rows_SC, shown, traits)
    assert traits.is_new_N is not None
    return PageFigures(
        relevance=float(relevance_SK[there].mean()) if len(shown) else 0.0,
        creators_shown=creators,
        creator_gini=gini(shares) if len(shares) else 0.0,
        categories=_categories(rows_SK, traits),
        new_videos=float(traits.is_new_N[shown].mean()) if len(shown) else 0.0,
    )


def _creators(candidates_SC: IntArray, shown: IntArray, traits: VideoTraits) -> tuple[int, Floats]:
    """How many known creators are shown, and the share of places of each that might be."""
    if traits.creator_row_N is None:
        return 0, np.zeros(0)
    creators = traits.creator_row_N[shown]
    possible = np.unique(traits.creator_row_N[candidates_SC[candidates_SC > 0]])
    possible = possible[possible > 0]
    counts = np.bincount(creators, minlength=int(possible.max(initial=0)) + 1)[possible]
    return int((counts > 0).sum()), counts / max(1, counts.sum())


def _categories(rows_SK: IntArray, traits: VideoTraits) -> float:
    """Different categories on a page, in the mean."""
    if traits.categories is None:
        return 0.0
    known = traits.categories
    pages = [{int(c) for row in page for c in known[row]} for page in rows_SK.tolist()]
    return float(np.mean([len(page) for page in pages])) if pages else 0.0
