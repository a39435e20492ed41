"""What users liked before the test: all that baselines are made of, and the days they are tuned on.

Shapes: A users, E events, P positives, N video rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.ragged import Ragged, union
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.schema import VALID

DAY_MS = 86_400_000
TUNED_SCORES, FEWEST_USERS, MOST_USERS = 2**25, 500, 5000
"""Validation users are taken until their scores are so many, but so many at least and at most."""


@dataclass(frozen=True)
class Likes:
    """Positive events of A users, one user after the other."""

    lists: Ragged
    """A lists of video rows, in order of time; may hold one several times."""
    time_ms: NDArray[np.int64]
    """When each happened (P)."""
    split: NDArray[np.int8]
    """TRAIN or VALID (P)."""
    share_of_users: float = 1.0
    """Of all users, those whose likes these are."""

    def before(self, split: int) -> Likes:
        """Those of earlier splits, of the same users."""
        kept = self.split < split
        ends = np.concatenate([[0], np.cumsum(kept)])
        lists = Ragged(ends[self.lists.offsets], self.lists.values[kept])
        return Likes(lists, self.time_ms[kept], self.split[kept], self.share_of_users)

    def recent(self, half_life_days: float, num_videos: int) -> NDArray[np.float64]:
        """Each video's count, recent ones counting more (N); the newest of all is the present."""
        now = int(self.time_ms.max(initial=0)) + 1
        return recent_counts(
            self.lists.values,
            self.time_ms,
            cut_ms=now,
            half_life_days=half_life_days,
            num_videos=num_videos,
        )

    def validation(self, videos: VideoTable, *, seed: int) -> RankingSet | None:
        """Users who liked something new in the validation days, drawn at random.

        They are what a baseline's settings may be chosen by; None where there are none.
        """
        owner, is_valid = self.lists.list_of_value, self.split == VALID
        keys = owner << 32 | self.lists.values
        new = union(keys[is_valid & (self.lists.values > 0)])
        new = new[~np.isin(new, keys[~is_valid])]
        users = union(new >> 32)
        if not len(users):
            return None
        most = min(max(TUNED_SCORES // len(videos), FEWEST_USERS), MOST_USERS)
        users = np.sort(np.random.default_rng(seed).permutation(users)[:most])
        new = new[np.isin(new >> 32, users)]
        offsets = np.append(np.searchsorted(new >> 32, users), len(new))
        relevant = Ragged(offsets.astype(np.int64), (new & 0xFFFFFFFF).astype(np.int32))
        known = self.before(VALID).lists
        counts = np.bincount(known.values, minlength=len(videos))
        then = VideoTable(np.zeros(len(videos), np.bool_), counts, lessons=videos.lessons)
        return RankingSet([str(user) for user in users], relevant, known.select(users), then)


def recent_counts(
    video_row_E: NDArray[np.int32],
    time_ms_E: NDArray[np.int64],
    *,
    cut_ms: int,
    half_life_days: float,
    num_videos: int,
) -> NDArray[np.float64]:
    """Σ 2^(-age / half life) over each video's events before `cut_ms` (N).

    >>> times = np.array([0, DAY_MS, 9 * DAY_MS])
    >>> rows = np.array([1, 1, 1], np.int32)
    >>> recent_counts(rows, times, cut_ms=2 * DAY_MS, half_life_days=1, num_videos=2).tolist()
    [0.0, 0.75]
    """
    before = time_ms_E < cut_ms
    age_days = (cut_ms - time_ms_E[before]) / DAY_MS
    weights = 0.5 ** (age_days / half_life_days)
    return np.bincount(video_row_E[before], weights, num_videos).astype(np.float64)
