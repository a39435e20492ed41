"""Who would be shown a video now: the lists of a sample of users, looked through for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic.dataclasses import dataclass

from recsys.bundle.contents import Bundle
from recsys.serve.asks import Answer, Ask, Kind
from recsys.serve.http.messages import Described
from recsys.serve.recommender import ServingRecommender

MOST_USERS = 500
"""Users that one request may look at."""
AT_ONCE = 16
"""Users whose lists are made together, before other requests have their turn."""


@dataclass(config=Described)
class Viewer:
    """A user of the sample whose list holds the video."""

    user_id: str
    place: int
    """In the list, from 0."""
    score: float
    """As in the answer of /v1/recommend; `probabilities` too."""
    probabilities: dict[str, float]
    reason: Kind
    """Why the video is there; `explore` is by lot and may be another user's the next time."""


@dataclass(config=Described)
class AudienceResponse:
    """Which users of a sample would be shown a video, those nearest to the top first."""

    version: str
    """Of the bundle; a challenger's lists are not looked at."""
    video_id: str
    num_users: int
    """Users that the bundle knows by events: the sample is drawn from them."""
    num_sampled: int
    k: int
    """Length of the lists that were looked through."""
    viewers: list[Viewer]


def sampled_users(bundle: Bundle, number: int) -> list[str]:
    """So many users of a bundle, or all where it knows fewer; always the same ones."""
    user_ids = bundle.histories.user_ids
    if number >= len(user_ids):
        return list(user_ids)
    drawn = np.random.default_rng(0).choice(len(user_ids), number, replace=False)
    return [user_ids[place] for place in np.sort(drawn).tolist()]


def groups(user_ids: list[str]) -> Iterator[list[str]]:
    """The users in groups whose lists may be made together."""
    for start in range(0, len(user_ids), AT_ONCE):
        yield user_ids[start : start + AT_ONCE]


def viewers_among(
    recommender: ServingRecommender, video_id: str, user_ids: list[str], k: int
) -> list[Viewer]:
    """Those of some users whose first k recommendations hold a video."""
    answers = recommender.answer([Ask(user_id, k) for user_id in user_ids])
    return [
        Viewer(answer.user_id, place, video.score, dict(video.probabilities), video.reason.kind)
        for answer in answers
        if isinstance(answer, Answer) and answer.known_user  # but for who was forgotten
        for place, video in enumerate(answer.videos)
        if video.video_id == video_id and video.reason is not None
    ]
