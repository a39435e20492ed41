"""What a ranking is measured against: users, their relevant and known videos, and the catalogue.

Shapes: U users, N video rows (row 0 is "unknown" and is never ranked).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.data.lessons import NO_LESSONS, Lessons
from recsys.data.ragged import Ragged
from recsys.errors import InputError


@dataclass(frozen=True)
class VideoTable:
    """The catalogue, one entry a video row; the entries of row 0 are never looked at."""

    cold_N: NDArray[np.bool_]
    """True where a video has no training event."""
    popularity_N: NDArray[np.int64]
    """Positive events before the test cut."""
    creator_row_N: NDArray[np.int32] | None = None
    """0 is an unknown creator."""
    categories: Ragged | None = None
    """N lists of category rows, of all category columns together."""
    age_days_N: NDArray[np.float64] | None = None
    """Days from a video's first event to the test cut: negative for one that came later, NaN where
    it is not known."""
    lessons: Lessons = NO_LESSONS
    """What must be finished before what."""

    def __post_init__(self) -> None:
        for name in ("popularity_N", "creator_row_N", "categories", "age_days_N"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self):
                raise ValueError(f"{name} has {len(value)} entries, but there are {len(self)}")
        if self.categories is not None and self.categories.has_duplicates():
            raise ValueError("categories has a row twice for one video")

    def __len__(self) -> int:
        return len(self.cold_N)

    def is_new(self, days: float) -> NDArray[np.bool_]:
        """Which videos were first seen at most `days` before the test cut, or not at all (N)."""
        assert self.age_days_N is not None
        age = self.age_days_N
        return np.isnan(age) | (age <= days)


@dataclass(frozen=True)
class RankingSet:
    """Test users with what they liked in the test and what they were known to like before it."""

    user_ids: Sequence[str]
    relevant: Ragged
    """U lists of video rows: test positives on videos without an earlier positive of that user."""
    known: Ragged
    """U lists of video rows: positives before the test cut; may hold one several times."""
    videos: VideoTable
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Group column → a name a user, None where it is not known."""

    def __post_init__(self) -> None:
        sizes = {"relevant": len(self.relevant), "known": len(self.known)}
        sizes |= {f"groups[{name!r}]": len(values) for name, values in self.groups.items()}
        for name, size in sizes.items():
            if size != self.num_users:
                raise ValueError(f"{name} has {size} entries, but there are {self.num_users} users")
        if not self.num_users or (self.relevant.lengths == 0).any():
            raise InputError(
                "the test part has no user with a new positive event, or one without was passed "
                "on; move split.test_from earlier or check data.columns.positive"
            )
        self._check_rows()

    def _check_rows(self) -> None:
        """Wrong rows are a mistake of the caller's, not of the user's."""
        for name, rows in (("relevant", self.relevant.values), ("known", self.known.values)):
            if len(rows) and (rows.min() < 0 or rows.max() >= len(self.videos)):
                raise ValueError(f"{name} has a video row outside 0…{len(self.videos) - 1}")
        if (self.relevant.values == 0).any():
            raise ValueError("relevant has video row 0, which stands for unknown videos")
        if self.relevant.has_duplicates():
            raise ValueError("relevant has a video twice in one user's list")

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @property
    def num_videos(self) -> int:
        """N, row 0 included."""
        return len(self.videos)

    def left_out(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(user counted from `start`, row) of what the lists of some users must not hold.

        That is what they liked before, and the lessons that were still locked to them.
        """
        users, rows = self.known.pairs(start, stop)
        finished = self.known.select(np.arange(start, stop))
        more_users, locked = self.videos.lessons.locked_for(finished).pairs(0, stop - start)
        return np.concatenate([users, more_users]), np.concatenate([rows, locked])

    def num_relevant(self, mask_N: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many relevant videos each user has among some (U)."""
        counted = self.relevant.list_of_value[mask_N[self.relevant.values]]
        return np.bincount(counted, minlength=self.num_users)

    def select(self, users: NDArray[np.int64]) -> RankingSet:
        """The same set with these users only, by number."""
        groups = {name: [names[user] for user in users] for name, names in self.groups.items()}
        ids = [self.user_ids[user] for user in users]
        return RankingSet(
            ids, self.relevant.select(users), self.known.select(users), self.videos, groups
        )
