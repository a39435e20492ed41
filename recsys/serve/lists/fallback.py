"""The list for everybody, in place of a user's own: what is popular now, else what is latest.

It is given where the model fails or takes too long, so it needs neither the model, nor its thread,
nor the event log: what is popular and what is new are kept ready as arrays that never change, and
made anew once a minute by the thread that runs the model. It obeys what the request says and what
this process knows of the user.

Shapes: N videos, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import IntArray
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import (
    Answer,
    Ask,
    Cause,
    Degraded,
    DegradedKind,
    RankedVideo,
    RankedVideos,
    Reason,
    ScoredVideo,
)
from recsys.serve.lists.assemble import VideoIds
from recsys.serve.lists.parts import Parts
from recsys.serve.retrieve.conditions import Conditions
from recsys.serve.users.pasts import AtHand

Scores = npt.NDArray[np.floating]
READY = 4096
"""Most videos of each list that are kept in order; where conditions leave too few of them, the
whole catalogue is looked at."""
REFRESH_MS = 60_000
STALE = Degraded(
    "stale", "log", "the event log cannot be read: what happened lately may be missing"
)
WHY: Mapping[Cause, str] = {
    "late": "the model did not answer within serve.budget_ms",
    "failed": "the model failed at this request",
}
FOR_EVERYBODY = "this list is for everybody; what the user liked or refused lately may be in it"


@dataclass(frozen=True)
class Ready:
    """A list of the whole catalogue's best, as of one moment."""

    rows: IntArray
    """(R,), the best first."""
    scores_N: Scores
    """Of all videos."""

    @classmethod
    def of(cls, scores_N: Scores, *, least: float) -> Ready:
        """The best of all videos whose score is above `least`."""
        rows = np.flatnonzero(scores_N > least)
        rows = rows[rows != UNKNOWN_ROW]
        if len(rows) > READY:
            rows = rows[np.argpartition(-scores_N[rows], READY)[:READY]]
        return cls(rows[np.argsort(-scores_N[rows], kind="stable")], scores_N)


@dataclass(frozen=True)
class Everybody:
    """The lists that are the same for everybody, as of one moment."""

    made_ms: int
    popular: Ready
    latest: Ready
    """Of those that were ever shown; the score is when they first were (Unix ms)."""


class Fallback:
    """Answers without the model; any thread may ask, but for `refresh`.

    Args:
        parts: Of the recommender that it stands in for.
        conditions: Of the same.
        check: Refuses requests that are wrong, as the recommender does.
        clock: Gives the time in Unix milliseconds.
    """

    def __init__(
        self,
        parts: Parts,
        conditions: Conditions,
        *,
        check: Callable[[Ask], object],
        clock: Callable[[], int],
    ) -> None:
        self._parts, self._conditions = parts, conditions
        self._check, self._clock = check, clock
        self._ready = self._make(made_ms=0)  # again as soon as the log was read

    def refresh(self) -> None:
        """Makes the lists anew where they are a minute old; of the thread that runs the model."""
        now_ms = self._clock()
        if now_ms - self._ready.made_ms >= REFRESH_MS:
            self._ready = self._make(now_ms)

    def answer(self, ask: Ask, cause: Cause) -> Answer:
        """A list for a request: of the popular videos, then of the latest, then of any others.

        Raises:
            InputError: The request is wrong.
        """
        self._check(ask)
        with self._parts.catalogue.changing:
            return self._answer(ask, cause)

    def _answer(self, ask: Ask, cause: Cause) -> Answer:
        ready, cursors = self._ready, self._conditions.cursors
        now_ms = self._clock() if ask.now_ms is None else ask.now_ms
        allowed = self._conditions.allowed(ask.filters, now_ms)
        user = self._parts.pasts.at_hand(ask.user_id)
        apart = self._apart(ask, user, now_ms)

        def kept(rows: IntArray) -> IntArray:
            """Those that the request may be given."""
            rows = rows if allowed is None else rows[allowed[rows]]
            return rows[~np.isin(rows, apart)]

        popular = kept(ready.popular.rows)[: ask.k]
        others = kept(ready.latest.rows)
        if len(popular) + len(others) < ask.k:
            first_ms_N = ready.latest.scores_N
            every = kept(np.arange(UNKNOWN_ROW + 1, len(first_ms_N)))
            others = every[np.argsort(-first_ms_N[every], kind="stable")]
        others = others[~np.isin(others, popular)][: ask.k - len(popular)]
        kind: DegradedKind = "popular" if len(popular) else "latest"
        rows = np.concatenate([popular, others])
        return Answer(
            version=self._parts.bundle.version,
            user_id=ask.user_id,
            known_user=user.known_user,
            now_ms=now_ms,
            num_history=0,
            videos=self._videos(ready, rows, len(popular)),
            cursor=cursors.after(ask.cursor, rows) if len(rows) == ask.k else None,
            degraded=Degraded(kind, cause, f"{WHY[cause]}: {FOR_EVERYBODY}"),
        )

    def popular(self, k: int, cause: Cause) -> RankedVideos:
        """What was popular when it was looked at last."""
        return self._ranked(self._ready.popular, k, cause)

    def latest(self, k: int, cause: Cause) -> RankedVideos:
        """What was first shown last when it was looked at last."""
        return self._ranked(self._ready.latest, k, cause)

    def _make(self, made_ms: int) -> Everybody:
        first_ms = self._parts.ages.first_ms_N.astype(np.float64)
        popular = Ready.of(self._parts.bundle.counts.positives(self._clock()), least=0)
        return Everybody(made_ms, popular, Ready.of(first_ms, least=-1))

    def _apart(self, ask: Ask, user: AtHand, now_ms: int) -> IntArray:
        """Rows that must not be in a request's list."""
        asked = [self._conditions.rows(ask.exclude), self._conditions.cursors.rows(ask.cursor)]
        liked = [user.never_again] if ask.exclude_seen else []
        unwanted = self._parts.catalogue.unwanted(user.hidden_creators, now_ms)
        locked = self._parts.catalogue.locked(user.never_again, now_ms)
        return np.concatenate([*asked, user.refused, unwanted, locked, *liked])

    def _videos(
        self, ready: Everybody, rows: IntArray, num_popular: int
    ) -> tuple[ScoredVideo, ...]:
        names = VideoIds(self._parts.catalogue, [rows]).of(rows)
        scores = [
            *ready.popular.scores_N[rows[:num_popular]].tolist(),
            *ready.latest.scores_N[rows[num_popular:]].tolist(),
        ]
        whys = [Reason("popular")] * num_popular + [Reason("latest")] * (len(rows) - num_popular)
        return tuple(
            ScoredVideo(name, score, {}, why)
            for name, score, why in zip(names, scores, whys, strict=True)
        )

    def _ranked(self, ready: Ready, k: int, cause: Cause) -> RankedVideos:
        rows = ready.rows[~np.isin(ready.rows, self._parts.catalogue.unlisted(self._clock()))][:k]
        names = VideoIds(self._parts.catalogue, [rows]).of(rows)
        scores = ready.scores_N[rows].tolist()
        said = Degraded("stale", cause, f"{WHY[cause]}: this is the list as it was looked at last")
        videos = tuple(map(RankedVideo, names, scores))
        return RankedVideos(self._parts.bundle.version, videos, said)
