"""From the candidates of requests to the lists that are shown: order, lots, reasons and names.

Shapes: B requests, C candidates of each, K videos of a list, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.data.ragged import FloatArray, IntArray
from recsys.errors import InputError
from recsys.inference.rerank import Floats, Reranker, VideoTraits, relative_relevance
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import Ask, Degraded, Reason, ScoredVideo
from recsys.serve.lists.explore import Explorer
from recsys.serve.lists.newcomers import Newcomers
from recsys.serve.lists.parts import Parts
from recsys.serve.lists.propensities import Tried
from recsys.serve.lists.reasons import kept_by_trend, reason
from recsys.serve.retrieve.catalogue import Catalogue, Changed
from recsys.serve.retrieve.conditions import Mask
from recsys.serve.retrieve.retrieval import Search
from recsys.serve.users.pasts import Past


@dataclass(frozen=True)
class Reading:
    """A request with all that it is answered from."""

    ask: Ask
    past: Past
    now_ms: int
    context_rows: tuple[int, ...]
    search: Search
    degraded: Degraded | None = None
    """What the past lacks, if anything."""

    @property
    def is_newcomer(self) -> bool:
        """Whether nothing is known of the user that a list could be made for."""
        return not self.past.num_events and not self.past.known_features


@dataclass(frozen=True)
class ScoredCandidates:
    """Videos of B requests, the best by retrieval first; row 0 fills up."""

    rows_BC: IntArray
    scores_BC: FloatArray
    untrended_BC: FloatArray
    """The C largest scores, of whichever videos, that there would be without what is trending."""
    probabilities_BCT: FloatArray


@dataclass
class Listed:
    """The videos of one request's list."""

    rows: IntArray
    explored: Mask | None = None
    """Which of them are tried out; None where none is."""
    places: IntArray | None = None
    """Their places among the candidates; None where others are among them."""
    tried: Tried | None = None
    """What those that are tried out were drawn from."""


class ListMaker:
    """Makes the lists; one thread at a time.

    Args:
        parts: Of the recommender.
        seed: Of what is drawn; None draws differently in every process.
    """

    def __init__(self, parts: Parts, *, seed: int | None) -> None:
        bundle, config = parts.bundle, parts.bundle.config
        self._catalogue, self._config = parts.catalogue, config
        self._tasks = config.data.columns.tasks
        self._ages, self._retriever = parts.ages, parts.retriever
        self._resemblance = parts.resemblance
        self._rank_task = self._find_rank_task(config.serve.rank)
        self._reranker = None
        if bundle.traits is not None:
            self._reranker = Reranker(config.rerank, bundle.traits)
            self._price_of = _prices(bundle.traits)
            parts.catalogue.on_change.append(self._change)
        self._newcomers = Newcomers(parts.catalogue, parts.trending.popular)
        self._explorer = Explorer(bundle, parts.ages, seed=seed)
        self._reorders = self._rank_task is not None or self._reranker is not None

    def candidates(self, k: int) -> int:
        """How many candidates lists of k videos are made of."""
        return max(k, self._config.rerank.candidates) if self._reorders else k

    def choose(self, readings: Sequence[Reading], candidates: ScoredCandidates) -> list[Listed]:
        """The videos of each request's list, in order."""
        _, order_BC = self.orders(candidates, max(reading.ask.k for reading in readings))
        lists = []
        for place, reading in enumerate(readings):
            rows, order = candidates.rows_BC[place], order_BC[place][: reading.ask.k]
            if not rows[order].all():
                order = order[rows[order] != UNKNOWN_ROW]
            lists.append(self._with_drawn(reading, rows, Listed(rows[order], places=order)))
        return lists

    def videos(
        self,
        readings: Sequence[Reading],
        candidates: ScoredCandidates,
        lists: Sequence[Listed],
        scored: Sequence[tuple[FloatArray, FloatArray]],
    ) -> Iterator[tuple[ScoredVideo, ...]]:
        """Each request's list with scores, reasons and names.

        Args:
            readings: The requests.
            candidates: Their candidates.
            lists: What `choose` gave.
            scored: Scores (K,) and probabilities (K, T) of each list's videos.
        """
        whys = self._reasons(readings, candidates, lists, [scores for scores, _ in scored])
        names = VideoIds(self._catalogue, [listed.rows for listed in lists])
        for listed, (scores, probabilities), why in zip(lists, scored, whys, strict=True):
            yield self.named(names.of(listed.rows), scores, probabilities, why)

    def named(
        self,
        video_ids: Sequence[str],
        scores: FloatArray,
        probabilities: FloatArray,
        why: Sequence[Reason | None],
    ) -> tuple[ScoredVideo, ...]:
        """Videos with their names, scores (K,) and probabilities (K, T)."""
        tasks = self._tasks
        rows = zip(video_ids, scores.tolist(), probabilities.tolist(), why, strict=True)
        return tuple(
            ScoredVideo(video_id, score, dict(zip(tasks, chances, strict=True)), one)
            for video_id, score, chances, one in rows
        )

    def _change(self, changed: Changed) -> None:
        """What the re-ranking looks at, of live videos: a creator's price is that of the bundle."""
        assert self._reranker is not None
        known = self._catalogue.of_rows(changed.rows)
        prices = np.zeros(len(known.creator_rows))
        is_known = known.creator_rows < len(self._price_of)
        prices[is_known] = self._price_of[known.creator_rows[is_known]]
        traits = VideoTraits(
            creator_row_N=known.creator_rows,
            price_N=prices,
            categories=known.categories,
            is_new_N=np.ones(len(changed.rows), np.bool_),
        )
        self._reranker.put(changed.rows, traits)

    def _find_rank_task(self, rank: str) -> int | None:
        if rank == "retrieval":
            return None
        if rank not in self._tasks:
            known = ", ".join(("retrieval", *self._tasks))
            raise InputError(f"serve.rank={rank}: must be one of {known}")
        return self._tasks.index(rank)

    def orders(self, candidates: ScoredCandidates, k: int) -> tuple[IntArray, IntArray]:
        """(B, ≥ k) places among the candidates, the best first: as ranked, and as re-ranked."""
        order, scores = self._ranked(candidates)
        if self._reranker is None or not order.shape[1]:
            return order, order
        page = self._config.rerank.page
        rows, relevance = by_relevance(candidates, order, scores)
        places = self._reranker.order(rows, relevance, -(-k // page) * page)
        return order, np.take_along_axis(order, places, 1)

    def relevance(self, candidates: ScoredCandidates) -> tuple[IntArray, Floats]:
        """Rows (B, C), the best by `serve.rank` first, and their relevance for re-ranking."""
        return by_relevance(candidates, *self._ranked(candidates))

    def _ranked(self, candidates: ScoredCandidates) -> tuple[IntArray, FloatArray]:
        """Places (B, C) in the order of `serve.rank`, and the scores (B, C) that it goes by."""
        rows, scores = candidates.rows_BC, candidates.scores_BC
        order = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
        if self._rank_task is not None:
            chances = candidates.probabilities_BCT[..., self._rank_task]
            scores = np.where(rows > 0, np.log(np.maximum(chances, 1e-30)), -np.inf)
            order = np.argsort(-scores, axis=1, kind="stable")
        return order, scores

    def _with_drawn(self, reading: Reading, rows: IntArray, listed: Listed) -> Listed:
        """A list with the places that are given by lot or to new videos."""
        search = reading.search
        if reading.is_newcomer:
            order = self._newcomers.order(
                rows[rows != UNKNOWN_ROW], search.forbidden, reading.ask.k, reading.now_ms
            )
            listed = Listed(order)
        if self._config.rerank.drawn_places and self._reranker is not None:
            drawn = self._reranker.with_drawn(
                reading.ask.user_id,
                listed.rows,
                search.excluded,
                lambda wanted: self._retriever.scores(search, wanted),
                allowed=search.allowed,
            )
            listed = Listed(drawn)
        return self._explored(reading, listed) if self._explorer.share else listed

    def _explored(self, reading: Reading, listed: Listed) -> Listed:
        search, length = reading.search, len(listed.rows)
        taken = np.concatenate([listed.rows, search.excluded])
        tried = self._explorer.draw(length, taken, search.allowed, reading.now_ms)
        if tried is None:
            return listed
        places = self._explorer.places(length, len(tried.rows))
        explored = np.isin(np.arange(length), places)
        return Listed(with_inserted(listed.rows, tried.rows, places), explored, tried=tried)

    def _reasons(
        self,
        readings: Sequence[Reading],
        candidates: ScoredCandidates,
        lists: Sequence[Listed],
        scores: Sequence[FloatArray],
    ) -> list[list[Reason]]:
        rows_BK = np.zeros((len(lists), max(len(listed.rows) for listed in lists)), np.int64)
        scores_BK = np.zeros(rows_BK.shape, np.float32)
        for place, listed in enumerate(lists):
            rows_BK[place, : len(listed.rows)] = listed.rows
            scores_BK[place, : len(listed.rows)] = scores[place]
        liked = self._resemblance.best([reading.past.liked for reading in readings], rows_BK)
        names = VideoIds(
            self._catalogue, [np.array([r for one in liked for k in one for r in k], int)]
        )
        popular = self._popular(readings, candidates, rows_BK, scores_BK)
        creators = self._new_creators(readings, rows_BK)
        return [
            [
                reason(
                    names.of(liked[place][k]),
                    explored=listed.explored is not None and bool(listed.explored[k]),
                    popular=popular[place][k],
                    creator_id=creators.get((place, k)),
                    is_newcomer=readings[place].is_newcomer,
                )
                for k in range(len(listed.rows))
            ]
            for place, listed in enumerate(lists)
        ]

    def _popular(
        self,
        readings: Sequence[Reading],
        candidates: ScoredCandidates,
        rows_BK: IntArray,
        scores_BK: FloatArray,
    ) -> list[list[bool]]:
        """Which videos of the lists are there because they are popular now.

        Of a newcomer's list all that are popular, for those come first.
        """
        if not rows_BK.size:
            return [[] for _ in readings]
        num = candidates.rows_BC.shape[1]
        last = [num - 1 if self._reorders else min(r.ask.k, num) - 1 for r in readings]
        trending_BK = np.stack(
            [r.search.trending[rows] for r, rows in zip(readings, rows_BK, strict=True)]
        )
        least_B = candidates.untrended_BC[np.arange(len(readings)), last]
        popular = kept_by_trend(scores_BK, trending_BK, least_B)
        for place, reading in enumerate(readings):
            rows = rows_BK[place]
            if reading.is_newcomer:
                popular[place] = self._newcomers.are_popular(rows, reading.now_ms)
            elif self._reranker is not None and popular[place].any():
                ask = reading.ask
                popular[place] &= ~self._reranker.may_be_drawn(ask.user_id, rows, ask.k)
        return popular.tolist()  # type: ignore[no-any-return]

    def _new_creators(
        self, readings: Sequence[Reading], rows_BK: IntArray
    ) -> dict[tuple[int, int], str]:
        """The creators of the new videos of lists of whom the user liked another one."""
        days, now_ms = self._config.rerank.new_days, readings[0].now_ms
        new = self._ages.younger_than(days, now_ms, rows_BK) & (rows_BK != UNKNOWN_ROW)
        if not new.any():
            return {}
        creators = self._catalogue.creator_rows(rows_BK)
        for place, reading in enumerate(readings):
            new[place] &= np.isin(creators[place], reading.past.liked_creators)
        names = self._catalogue.creators
        return {
            (place, k): names.id(int(creators[place, k]))
            for place, k in zip(*(part.tolist() for part in np.nonzero(new)), strict=True)
        }


def by_relevance(
    candidates: ScoredCandidates, order: IntArray, scores: FloatArray
) -> tuple[IntArray, Floats]:
    """Rows and relevance (B, C) of candidates in an order (B, C) of scores (B, C)."""
    ordered = np.take_along_axis(scores, order, 1)
    # A list without any video has no best one to compare with.
    ordered[~np.isfinite(ordered[:, 0])] = 0
    return np.take_along_axis(candidates.rows_BC, order, 1), relative_relevance(ordered)


class VideoIds:
    """The ids of some video rows, looked up together."""

    def __init__(self, catalogue: Catalogue, rows: Sequence[IntArray]) -> None:
        unique = np.unique(np.concatenate([*rows, np.zeros(0, np.int64)]))
        unique = unique[unique != UNKNOWN_ROW]
        ids = catalogue.videos.ids_of(unique)
        self._name_of: dict[int, str] = dict(zip(unique.tolist(), ids, strict=True))

    def of(self, rows: IntArray | Sequence[int]) -> list[str]:
        """The ids of rows that were given."""
        known = self._name_of
        return [known[row] for row in (rows.tolist() if isinstance(rows, np.ndarray) else rows)]


def _prices(traits: VideoTraits) -> Floats:
    """The price of each creator's exposure, by the creator's row."""
    if traits.creator_row_N is None or traits.price_N is None:
        return np.zeros(0)
    price_of = np.zeros(int(traits.creator_row_N.max(initial=-1)) + 1)
    price_of[traits.creator_row_N] = traits.price_N
    return price_of


def with_inserted(listed: IntArray, inserted: IntArray, places: IntArray) -> IntArray:
    """A list in which some places are given to others; what moves off the end is left out.

    >>> with_inserted(np.array([7, 8, 9]), np.array([1]), np.array([1])).tolist()
    [7, 1, 8]
    """
    given = np.isin(np.arange(len(listed)), places)
    result = np.empty(len(listed), listed.dtype)
    result[given] = inserted[: given.sum()]
    result[~given] = listed[: len(listed) - given.sum()]
    return result
