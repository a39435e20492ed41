"""Known answers: what a bundle answered where it was made, and so must answer wherever it serves.

A file may be whole and the model in it still be read wrongly: by another version of a library, on
another kind of machine. Publishing leaves a few answers in the bundle, made by the code that serves
it; a server asks the same before it serves the bundle, and refuses one that answers otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from recsys.bundle.contents import Asked, Bundle
from recsys.errors import InputError
from recsys.serve.asks import Answer, ScoredVideo
from recsys.serve.recommender import ServingRecommender
from recsys.serve.versions.index_recall import index_facts, just_after, some_users

NUM_USERS, K = 4, 10
NOBODY = "known-answers: a user without events"
TOLERANCE = 1e-3
"""Largest difference of a score, beside a thousandth of it, and of a probability. Other kernels
differ by about 1e-5; wrong weights or a wrong order of columns by far more."""

Known = Sequence[Mapping[str, Any]]
"""Of each user `user_id`, `now_ms`, and of the list `video_ids`, `scores` and `probabilities`."""


def known_answers(bundle: Bundle) -> Known:
    """The lists of some users of a bundle, and of one that nothing is known of.

    Args:
        bundle: Whole; no event log is read.
    """
    recommender = _recommender(bundle)
    now_ms = just_after(bundle)
    return [
        _known(recommender.recommend(user_id, _length(bundle), now_ms=now_ms))
        for user_id in _user_ids(bundle)
    ]


ASKED = Asked(index=index_facts, known=known_answers)
"""What publishing asks a bundle."""


def check_known(bundle: Bundle) -> None:
    """Asks a bundle what it knows the answers of.

    Raises:
        InputError: It answers otherwise, or has no answers that can be read.
    """
    recommender = _recommender(bundle)
    for known in bundle.known or []:
        try:
            user_id, now_ms = str(known["user_id"]), int(known["now_ms"])
            video_ids = list(map(str, known["video_ids"]))
            listed = recommender.recommend(user_id, _length(bundle), now_ms=now_ms)
            scored = recommender.score(user_id, video_ids, now_ms=now_ms) if video_ids else None
            expected = np.array(known["scores"], np.float64)
            chances = {task: np.array(p, np.float64) for task, p in known["probabilities"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _refused(bundle, f"its known answers cannot be read ({error!r})") from None
        # Videos of like scores may change places, so places are compared by their scores.
        _compare(bundle, user_id, "the list's scores", _scores(listed.videos), expected)
        videos = () if scored is None else scored.videos
        _compare(bundle, user_id, "the scores of the listed videos", _scores(videos), expected)
        for task, wanted in chances.items():
            there = [video.probabilities.get(task, np.nan) for video in videos]
            _compare(bundle, user_id, f"the probabilities of {task}", np.array(there), wanted)


def _compare(
    bundle: Bundle, user_id: str, what: str, there: np.ndarray, expected: np.ndarray
) -> None:
    if there.shape == expected.shape and np.allclose(there, expected, TOLERANCE, TOLERANCE):
        return
    if there.shape != expected.shape:
        told = f"{len(there)} for {len(expected)}"
    else:
        place = int(np.argmax(np.nan_to_num(np.abs(there - expected), nan=np.inf)))
        told = f"{there[place]:.6g} for {expected[place]:.6g} at place {place}"
    raise _refused(bundle, f"of user {user_id!r} {what} are not those of its publishing: {told}")


def _refused(bundle: Bundle, reason: str) -> InputError:
    return InputError(f"bundle {bundle.version}: {reason}; publish again")


def _recommender(bundle: Bundle) -> ServingRecommender:
    """Without a log, without what is drawn, and in the order of retrieval."""
    settings = bundle.config.serve.model_copy(update={"explore": 0.0, "rank": "retrieval"})
    config = bundle.config.model_copy(update={"serve": settings})
    return ServingRecommender(replace(bundle, config=config), seed=0)


def _user_ids(bundle: Bundle) -> list[str]:
    return [*some_users(bundle, NUM_USERS), NOBODY]


def _length(bundle: Bundle) -> int:
    return min(K, bundle.config.serve.max_k, bundle.config.serve.max_videos)


def _known(answer: Answer) -> Mapping[str, Any]:
    tasks = answer.videos[0].probabilities if answer.videos else {}
    return {
        "user_id": answer.user_id,
        "now_ms": answer.now_ms,
        "video_ids": [video.video_id for video in answer.videos],
        "scores": _scores(answer.videos).tolist(),
        "probabilities": {
            task: [video.probabilities[task] for video in answer.videos] for task in tasks
        },
    }


def _scores(videos: Sequence[ScoredVideo]) -> np.ndarray:
    return np.array([video.score for video in videos], np.float64)
