"""Trades relevance for creator exposure, diversity and new videos: evaluation and serving alike.

The step takes the best K videos of a user and fills pages with them. The value of a video is

    relevance - creator_exposure · price(creator) - diversity · likeness + new_videos · (is new)

and the best values are on the first page, the next best on the second. Within a page the order is
that of relevance, since it is being on a page that is exposure. Relevance is relative to the user's
best candidate (1 for that one), likeness is the mean cosine of its categories with those already
chosen (greedy maximal marginal relevance, J. Carbonell and J. Goldstein, 1998), and a creator's
price is log(1 + exposure over an even share). The price is that of the exposure which the prices
themselves lead to: `creator_prices` finds it by fictitious play (Frank–Wolfe), which maximises
relevance minus a convex cost of exposure over all users.

Shapes: B users, K candidates of a user, N videos, G most categories of a video, R creator rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.config.run import RerankConfig
from recsys.data.growing import Growing, GrowingLists
from recsys.data.ragged import Ragged
from recsys.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[Any]

EMPTY = -1e9
"""Value of an empty place: below any video, and above a video that is already chosen."""
ROUNDS = 30
"""Of fictitious play; the exposure changes by 2 / ROUNDS in the last one."""


@dataclass(frozen=True)
class VideoTraits:
    """What the step looks at, one entry a video row; what is None cannot be traded for."""

    creator_row_N: Ints | None = None
    """0 is an unknown creator, who has no price."""
    price_N: Floats | None = None
    """The price of each video's creator, of `creator_prices`; without it all are 0."""
    categories: Ragged | None = None
    """N lists of category rows."""
    is_new_N: NDArray[np.bool_] | None = None


def relative_relevance(scores_BK: NDArray[Any]) -> Floats:
    """Scores of a softmax (logits) as chances relative to the best one's.

    >>> relative_relevance(np.log([[0.2, 0.1]])).round(9).tolist()
    [[1.0, 0.5]]
    """
    scores = np.asarray(scores_BK, np.float64)
    relevance: Floats = np.exp(scores - scores.max(1, keepdims=True))
    return relevance


@dataclass(frozen=True)
class Lever:
    """One thing that relevance is traded for. A new one is an entry of `LEVERS` and its setting."""

    setting: str
    """The field of `RerankConfig` that holds its weight."""
    is_possible: Callable[[VideoTraits], bool]
    """Whether what it looks at is known."""
    needs: str
    """What makes that known: a setting, or what the data must hold."""
    figure: str
    """What it is for: a figure of a point of the trade-off curve."""
    axis: str
    """Title of that figure's axis."""
    grid: tuple[float, ...]
    """Weights at which its curve is drawn."""
    value: Callable[[VideoTraits], Floats] | None = None
    """What a weight of 1 adds to each video's value (N); below 0 takes from it. None where the
    value depends on the videos chosen before, for which `Reranker` has code of its own."""


def _cost_of_creators(traits: VideoTraits) -> Floats:
    """A creator's price, taken off; nothing while there are no prices."""
    if traits.price_N is None:
        assert traits.creator_row_N is not None
        return np.zeros(len(traits.creator_row_N))
    return -traits.price_N


def _gain_of_new(traits: VideoTraits) -> Floats:
    assert traits.is_new_N is not None
    return traits.is_new_N.astype(np.float64)


LEVERS: tuple[Lever, ...] = (
    Lever(
        "creator_exposure",
        lambda traits: traits.creator_row_N is not None,
        "data.video_columns.creator",
        "gini",
        "Gini of creator exposure",
        (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.4),
        _cost_of_creators,
    ),
    Lever(
        "diversity",
        lambda traits: traits.categories is not None,
        "data.video_columns.categories",
        "diversity",
        "diversity of a list",
        (0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
    ),
    Lever(
        "new_videos",
        lambda traits: traits.is_new_N is not None,
        "the time of each video's first event",
        "new",
        "new videos in a list",
        (0.05, 0.1, 0.2, 0.4, 0.6, 0.8),
        _gain_of_new,
    ),
    Lever(
        "drawn_places",
        lambda traits: traits.creator_row_N is not None,
        "data.video_columns.creator",
        "gini",
        "Gini of creator exposure",
        (1, 2, 3, 4),
    ),
)


def lever_of(setting: str) -> Lever:
    """The lever of a setting."""
    return next(lever for lever in LEVERS if lever.setting == setting)


def weights(config: RerankConfig) -> dict[str, float]:
    """Every lever's setting → its weight."""
    return {lever.setting: getattr(config, lever.setting) for lever in LEVERS}


def is_active(config: RerankConfig) -> bool:
    """Whether any weight is above 0; if not, the order is that of relevance."""
    return any(weights(config).values())


class Reranker:
    """Puts the candidates of users into the order that the weights ask for."""

    def __init__(self, config: RerankConfig, traits: VideoTraits) -> None:
        """Checks that all that has a weight is known.

        Raises:
            InputError: It is not.
        """
        active = [lever for lever in LEVERS if getattr(config, lever.setting)]
        for lever in active:
            if not lever.is_possible(traits):
                name = lever.setting
                raise InputError(
                    f"rerank.{name}={getattr(config, name)}: needs {lever.needs}; set it or leave "
                    f"rerank.{name} at 0"
                )
        self.config = config
        self._gains_N = [
            Growing(getattr(config, lever.setting) * lever.value(traits))
            for lever in active
            if lever.value is not None
        ]
        self._kinds = None
        self._lot = None
        if config.drawn_places and traits.creator_row_N is not None:
            self._lot = _Lot(traits.creator_row_N)
        if config.diversity and traits.categories is not None:
            self._kinds = GrowingLists(traits.categories)

    def put(self, rows: Ints, traits: VideoTraits) -> None:
        """Takes videos that follow the others, or other traits of some that followed.

        Args:
            rows: (n,) video rows.
            traits: Of n videos.
        """
        active = [lever for lever in LEVERS if getattr(self.config, lever.setting)]
        values = [lever.value(traits) for lever in active if lever.value is not None]
        weights = [getattr(self.config, lever.setting) for lever in active if lever.value]
        for gain_N, weight, value in zip(self._gains_N, weights, values, strict=True):
            gain_N.put(rows, weight * value)
        if self._kinds is not None and traits.categories is not None:
            self._kinds.put(rows, traits.categories)
        if self._lot is not None and traits.creator_row_N is not None:
            self._lot.put(rows, traits.creator_row_N)

    def order(self, video_BK: Ints, relevance_BK: Floats, k: int) -> NDArray[np.int64]:
        """Places (B, k) among the candidates of the videos to show, the best first.

        Args:
            video_BK: Video rows, the most relevant first; 0 fills up the end. Those after the
                first `rerank.candidates` keep their places.
            relevance_BK: From 0 to 1, the user's best candidate at 1.
            k: All K are put in order where it is larger.
        """
        width, page = min(self.config.candidates, video_BK.shape[1]), self.config.page
        # Whole pages, so that a short list is the beginning of a longer one.
        depth = min(width, -(-k // page) * page)
        chosen = self._choose(video_BK[:, :width], relevance_BK[:, :width], depth)
        for start in range(0, depth, page):
            chosen[:, start : start + page].sort(axis=1)
        rest = np.tile(np.arange(width, video_BK.shape[1]), (len(chosen), 1))
        return np.concatenate([chosen, rest], axis=1)[:, :k]

    def with_drawn(
        self,
        user_id: str,
        listed_K: Ints,
        excluded: Ints,
        scores_of: Callable[[Ints], Ints],
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Ints:
        """A user's list with the last places of each page given to creators drawn by lot.

        It is the same lot whenever the user comes. A creator shows the video that suits the user
        best; what loses its place moves on to the next page.

        Args:
            user_id: Whose list it is.
            listed_K: Video rows in order, whole pages of them where there are so many.
            excluded: Videos that must not come.
            scores_of: Gives the scores of videos (R) for the user.
            allowed: (N,) which videos may come; without it all.
        """
        if self._lot is None:
            return listed_K
        page, places = self.config.page, min(self.config.drawn_places, self.config.page)
        own, filled = listed_K.tolist(), excluded.tolist()
        for number in range(-(-len(listed_K) // page)):
            drawn: list[int] = []
            for creator in self._lot.draw(user_id, number, places):
                rows = self._lot.videos(creator)
                if allowed is not None:
                    rows = rows[allowed[rows]]
                rows = np.setdiff1d(rows, [*filled, *own[:page]])
                if len(rows):
                    drawn.append(int(rows[scores_of(rows).argmax()]))
            kept = page - len(drawn)
            filled += own[:kept] + drawn
            own = [row for row in own[kept:] if row not in drawn]
        return np.array(filled[len(excluded) :][: len(listed_K)], np.int64)

    def may_be_drawn(self, user_id: str, rows: Ints, length: int) -> NDArray[np.bool_]:
        """Which videos (R,) are of creators that the lot names for a user's list of some length."""
        if self._lot is None:
            return np.zeros(len(rows), np.bool_)
        page, places = self.config.page, min(self.config.drawn_places, self.config.page)
        pages = range(-(-length // page))
        drawn = [self._lot.draw(user_id, number, places) for number in pages]
        return self._lot.are_of(np.concatenate(drawn), rows)

    def _choose(self, video_BK: Ints, relevance_BK: Floats, k: int) -> NDArray[np.int64]:
        """Places (B, k) of the candidates with the best values, without drawn creators."""
        value = self._value(video_BK, relevance_BK)
        if self._kinds is not None:
            return self._greedy(video_BK, value, k)
        if 4 * k >= value.shape[1]:
            return np.argsort(-value, axis=1, kind="stable")[:, :k]
        kth = -np.partition(-value, k - 1)[:, k - 1 : k]
        better, equal = value > kth, value == kth
        # Of equal values the first, as in a longer list.
        better |= equal & (equal.cumsum(1) <= k - better.sum(1, keepdims=True))
        best = better.nonzero()[1].reshape(-1, k)
        order = np.argsort(-np.take_along_axis(value, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    def _value(self, video_BK: Ints, relevance_BK: Floats) -> Floats:
        value = np.where(video_BK > 0, relevance_BK, EMPTY)
        for gain_N in self._gains_N:
            value += gain_N.now[video_BK]
        return value

    def _greedy(self, video_BK: Ints, value: Floats, k: int) -> NDArray[np.int64]:
        assert self._kinds is not None
        kinds, weight = self._kinds.select(video_BK.ravel()).padded()
        kinds_BKG = kinds.reshape(*video_BK.shape, kinds.shape[1])
        weight_BKG = weight.reshape(*video_BK.shape, 1) * (kinds_BKG >= 0)
        user = np.arange(len(video_BK))
        # Sum of the chosen videos' unit vectors, a user a row; column -1 takes the filling.
        chosen = np.zeros((len(video_BK), int(kinds_BKG.max(initial=0)) + 2))
        places = np.empty((len(video_BK), k), np.int64)
        for place in range(k):
            likeness = (chosen[user[:, None, None], kinds_BKG] * weight_BKG).sum(2)
            total = value - self.config.diversity * likeness / max(1, place)
            pick = total.argmax(1)
            places[:, place] = pick
            value[user, pick] = -np.inf
            # A video's categories differ from each other, so no cell is added to twice.
            chosen[user[:, None], kinds_BKG[user, pick]] += weight_BKG[user, pick]
        return places


class _Lot:
    """The creators with their videos, to draw from; all creators have the same chance."""

    def __init__(self, creator_row_N: Ints) -> None:
        self._creator_row_N = Growing(creator_row_N)
        self._sort()

    def _sort(self) -> None:
        creator_row_N = self._creator_row_N.now
        order = 1 + np.argsort(creator_row_N[1:])  # row 0 is no video
        rows = order[creator_row_N[order] > 0]
        creators, starts = np.unique(creator_row_N[rows], return_index=True)
        self._videos = Ragged(np.append(starts, len(rows)), rows.astype(np.int32))
        self._creators: list[int] = creators.tolist()
        self._known = set(self._creators)
        self._later: dict[int, list[int]] = {}
        """Of each creator the videos that followed, without sorting all anew."""

    def put(self, rows: Ints, creator_rows: Ints) -> None:
        """Takes videos (sorted) that follow, or other creators of some that followed."""
        follow = bool(len(rows)) and rows[0] >= len(self._creator_row_N)
        self._creator_row_N.put(rows, creator_rows)
        if not follow:
            self._sort()
            return
        for row, creator in zip(rows.tolist(), creator_rows.tolist(), strict=True):
            if creator and creator not in self._known:
                self._known.add(creator)
                self._creators.append(creator)
            self._later.setdefault(creator, []).append(row)

    def draw(self, user_id: str, page: int, count: int) -> Ints:
        """Different creators, by number, for one page of a user's."""
        num_creators = len(self._creators)
        rng = np.random.default_rng([zlib.crc32(user_id.encode()), page])
        return rng.choice(num_creators, min(count, num_creators), replace=False)

    def are_of(self, numbers: Ints, rows: Ints) -> NDArray[np.bool_]:
        """Which videos are of some creators, by number."""
        creators = [self._creators[number] for number in numbers]
        return np.isin(self._creator_row_N.now[rows], creators)

    def videos(self, number: int) -> Ints:
        """The rows of a creator's videos."""
        first = self._videos[number] if number < len(self._videos) else ()
        later = self._later.get(self._creators[number], ())
        return np.concatenate([np.array(rows, np.int64) for rows in (first, later)])


def creator_prices(
    config: RerankConfig, traits: VideoTraits, video_BK: Ints, relevance_BK: Floats
) -> Floats:
    """The price of each video's creator (N), for the first pages of the users given.

    No labels are looked at. Diversity is left out of account: it hardly moves exposure between
    creators and would make this many times as slow.

    Args:
        config: The weights.
        traits: Of the videos.
        video_BK: Candidates of all users, or of a fair sample.
        relevance_BK: As in `Reranker.order`.
    """
    assert traits.creator_row_N is not None
    creator_N = traits.creator_row_N
    num_rows = int(creator_N.max()) + 1
    even_share = len(video_BK) * config.page / len(np.unique(creator_N[1:]))
    without = config.model_copy(update={"diversity": 0.0})
    exposure = np.zeros(num_rows)
    for step in range(ROUNDS):
        price_N = _price(exposure, even_share)[creator_N]
        places = Reranker(without, replace(traits, price_N=price_N)).order(
            video_BK, relevance_BK, config.page
        )
        shown = np.take_along_axis(video_BK, places, 1)
        now = np.bincount(creator_N[shown[shown > 0]], minlength=num_rows)
        # The first round, without prices, counts whole and is then forgotten quickly.
        exposure += (now - exposure) * (2 / (step + 2))
    prices: Floats = _price(exposure, even_share)[creator_N]
    return prices


def _price(exposure_R: Floats, even_share: float) -> Floats:
    price: Floats = np.log1p(exposure_R / even_share)
    price[0] = 0
    return price
