"""What a ranking is measured against: users, their relevant and known videos, and the catalogue.

Shapes: U users, N video rows (row 0 is "unknown" and is never ranked).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.rerank import padded_lists


@dataclass(frozen=True)
class Csr:
    """Lists of whole numbers, one after the other: list i is `values[offsets[i]:offsets[i + 1]]`.

    >>> lists = Csr.from_lists([[3, 1], [], [2]])
    >>> lists.lengths.tolist()
    [2, 0, 1]
    >>> [part.tolist() for part in lists.pairs(0, 2)]
    [[0, 0], [3, 1]]
    """

    offsets: NDArray[np.int64]
    """Shape (lists + 1)."""
    values: NDArray[np.int32]

    def __post_init__(self) -> None:
        ends = self.offsets[[0, -1]].tolist() if len(self.offsets) else None
        if ends != [0, len(self.values)] or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets must rise from 0 to the number of values")

    @classmethod
    def from_lists(cls, lists: Sequence[Iterable[int]]) -> Csr:
        """Makes one of ordinary lists."""
        arrays = [np.asarray(list(values), dtype=np.int32) for values in lists]
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        values = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        return cls(offsets.astype(np.int64), values)

    @classmethod
    def empty(cls, num_lists: int) -> Csr:
        """`num_lists` empty lists."""
        return cls(np.zeros(num_lists + 1, np.int64), np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of values of each list."""
        return np.diff(self.offsets)

    @property
    def list_of_value(self) -> NDArray[np.int64]:
        """Which list each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def pairs(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(list number counted from `start`, value) of every value of lists `start` to `stop`."""
        owners = np.repeat(np.arange(stop - start), self.lengths[start:stop])
        return owners, self.values[self.offsets[start] : self.offsets[stop]]

    def has_duplicates(self) -> bool:
        """Whether any list holds a value twice."""
        keys = np.sort(self.list_of_value << 32 | self.values)
        return bool((keys[1:] == keys[:-1]).any())

    def padded(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The lists as rows of equal length and the length-1 weight of each: `padded_lists`."""
        return padded_lists(self.offsets, self.values)

    def select(self, lists: NDArray[np.int64]) -> Csr:
        """The lists with these numbers, in this order."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths[lists])]).astype(np.int64)
        return Csr(offsets, self.values[self.places(lists)])

    def places(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `values` those of these lists are, one list after the other."""
        lengths = self.lengths[lists]
        begins = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(self.offsets[:-1][lists] - begins, lengths)


@dataclass(frozen=True)
class Videos:
    """The catalogue, one entry a video row; the entries of row 0 are never looked at."""

    cold_N: NDArray[np.bool_]
    """True where a video has no training event."""
    popularity_N: NDArray[np.int64]
    """Positive events before the test cut."""
    creator_row_N: NDArray[np.int32] | None = None
    """0 is an unknown creator."""
    categories: Csr | None = None
    """N lists of category rows, of all category columns together."""
    age_days_N: NDArray[np.float64] | None = None
    """Days from a video's first event to the test cut: negative for one that came later, NaN where
    it is not known."""

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
    relevant: Csr
    """U lists of video rows: test positives on videos without an earlier positive of that user."""
    known: Csr
    """U lists of video rows: positives before the test cut; may hold one several times."""
    videos: Videos
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
