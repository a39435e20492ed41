"""Why a user is shown what they are shown: each step from their history to the list, with ranks.

The steps are those of a recommendation, on the same code; retrieval is made once more without what
is left out for the user, so that what was left out, and why, can be seen among the candidates.

Shapes: B requests (one), C candidates, T tasks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from recsys.data.ragged import IntArray
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import Ask, Kind
from recsys.serve.http.messages import Described, PastEvent
from recsys.serve.lists.assemble import Reading
from recsys.serve.recommender import ServingRecommender

MOST_EVENTS = 50
"""Of the history, the newest, that are told of."""

Cause = Literal["liked", "not_interested", "hidden_creator", "locked", "unlisted"]


@dataclass(config=Described)
class TracedVideo:
    """A video that was retrieved, or that is in the list; places count from 0."""

    video_id: str
    retrieved: int | None
    """Place by the retrieval score while nothing is left out; null for a video that came into the
    list otherwise: tried out, drawn by lot, or one of a newcomer's."""
    left_out: Cause | None
    """Why it was taken out after that. `liked`: this user liked it before. `unlisted`: it is
    hidden, expired or deleted for everybody. `locked`: a lesson whose prerequisites are not
    finished."""
    ranked: int | None
    """Place by `serve.rank` among the candidates; null of what is none: there are as many as the
    list takes, or `rerank.candidates` where they are ranked or re-ranked."""
    reranked: int | None
    """Place after the re-ranking of `rerank.*`."""
    shown: int | None
    """Place in the list that would be answered now; null of what is not in it."""
    score: float
    """Of retrieval: the three parts below together."""
    match: float
    """Dot product of what the user looks for and the video's vector."""
    trending: float
    """What is added because the video is popular now."""
    seen: float
    """What is added or taken off because the user saw it before."""
    probabilities: dict[str, float]
    reason: Kind | None
    """Of what is in the list."""


@dataclass(config=Described)
class TraceResponse:
    """The answer of /v1/operator/trace."""

    version: str
    """Of the bundle that answers this user: a challenger's, where they are among its share."""
    user_id: str
    known_user: bool
    num_history: int
    """Events that the list is made from."""
    rank: str
    """`serve.rank`: what orders the candidates."""
    rerank: dict[str, float]
    """The weights of `rerank.*` that are not 0."""
    is_newcomer: bool
    """Whether nothing is known of the user, so that the list is not the model's order."""
    history: list[PastEvent]
    """The newest first."""
    videos: list[TracedVideo]
    """In the order of retrieval, and then what came into the list otherwise."""


class Tracer:
    """Looks at one request; in the recommender's thread."""

    def __init__(self, recommender: ServingRecommender, user_id: str, k: int) -> None:
        self._recommender, self._parts = recommender, recommender.parts
        self._ask = Ask(user_id, k)
        (self.reading,), self._candidates = recommender.candidates([self._ask])
        self._retrieved = self._without_exclusions()

    def videos(self) -> list[TracedVideo]:
        """What was retrieved, and what is in the list."""
        lists, rows = self._recommender.lists, self._candidates.rows_BC[0]
        ranked, reranked = (order[0] for order in lists.orders(self._candidates, self._ask.k))
        (listed,) = lists.choose([self.reading], self._candidates)
        answer = self._recommender.listed([self.reading], self._candidates, [listed])[0]
        places = {
            "retrieved": _places(self._retrieved),
            "ranked": _places(rows[ranked]),
            "reranked": _places(rows[reranked]),
            "shown": _places(listed.rows),
        }
        wanted = list(dict.fromkeys([*places["retrieved"], *places["shown"]]))
        reasons = {v.video_id: v.reason.kind for v in answer.videos if v.reason is not None}
        return self._described(np.array(wanted, np.int64), places, reasons)

    def _without_exclusions(self) -> IntArray:
        """The rows that would be retrieved if nothing were left out."""
        search = replace(self.reading.search, excluded=np.zeros(0, np.int64))
        most = self._recommender.bundle.config.rerank.candidates
        wanted = max(most, self._recommender.lists.candidates(self._ask.k))
        rows_BC, _ = self._parts.retriever.best([search], wanted)
        return rows_BC[0]

    def _described(
        self, rows: IntArray, places: dict[str, dict[int, int]], reasons: dict[str, Kind]
    ) -> list[TracedVideo]:
        search = self.reading.search
        scores, chances = self._recommender.scored(self.reading, rows)
        unseen = replace(search, seen=search.seen[:0], seen_bias=search.seen_bias[:0])
        without_seen = self._parts.retriever.scores(unseen, rows)
        causes = _causes(self._recommender, self.reading)
        videos = []
        for place, row in enumerate(rows.tolist()):
            video_id = self._recommender.catalogue.videos.id(row)
            trending = float(search.trending[row])
            at = {name: of.get(row) for name, of in places.items()}
            videos.append(
                TracedVideo(
                    video_id=video_id,
                    left_out=causes.get(row),
                    score=float(scores[place]),
                    match=float(without_seen[place]) - trending,
                    trending=trending,
                    seen=float(scores[place] - without_seen[place]),
                    probabilities=dict(
                        zip(self._recommender.tasks, chances[place].tolist(), strict=True)
                    ),
                    reason=reasons.get(video_id),
                    **at,
                )
            )
        return videos


def _places(rows: IntArray) -> dict[int, int]:
    """Row → its place; what fills up has none."""
    return {row: place for place, row in enumerate(rows.tolist()) if row != UNKNOWN_ROW}


def _causes(recommender: ServingRecommender, reading: Reading) -> dict[int, Cause]:
    """Row → why it is left out for the user; of several causes the one that people would name."""
    past, catalogue = reading.past, recommender.catalogue
    by_cause: tuple[tuple[Cause, IntArray], ...] = (
        ("locked", catalogue.locked(past.never_again, reading.now_ms)),
        ("hidden_creator", catalogue.unwanted(past.hidden_creators, reading.now_ms)),
        ("unlisted", catalogue.unlisted(reading.now_ms)),
        ("liked", past.never_again),
        ("not_interested", past.refused),
    )
    return {row: cause for cause, rows in by_cause for row in rows.tolist()}
