"""Lessons: which course a video belongs to, its place there, and what must be finished before it.

The one rule of what is locked: whoever has not had a positive event with every video that a lesson
requires is not shown the lesson. Evaluation leaves it out of the lists by this rule, and a server
does.

Shapes: R lessons, N videos, U users, B of them at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.ragged import IntArray, Ragged
from recsys.schema import lesson_schema

AT_ONCE = 1 << 24
"""Pairs of a user and a video that are looked at together, a byte each."""


class Lesson(NamedTuple):
    """What is said of one lesson."""

    course: str | None
    number: float | None
    """Its place in the course: smaller ones come first."""
    required: tuple[int, ...]
    """Rows of the videos that must be finished before it."""


@dataclass(frozen=True)
class Lessons:
    """The videos that belong to a course or require others; all the rest are not in it.

    >>> lessons = Lessons.of({5: Lesson("maths", 1, ()), 6: Lesson("maths", 2, (5,))})
    >>> lessons.locked(np.array([], np.int64)).tolist(), lessons.locked(np.array([5])).tolist()
    ([6], [])
    """

    rows: IntArray
    """(R,) sorted video rows."""
    courses: Sequence[str | None]
    """(R,)."""
    numbers: npt.NDArray[np.float64]
    """(R,) places in the courses; NaN where none is said."""
    required: Ragged
    """R lists of the video rows that must be finished before."""

    @classmethod
    def of(cls, lessons: Mapping[int, Lesson]) -> Lessons:
        """Of lessons by their video rows."""
        rows = sorted(lessons)
        said = [lessons[row] for row in rows]
        numbers = [np.nan if one.number is None else one.number for one in said]
        return cls(
            rows=np.array(rows, np.int64),
            courses=[one.course for one in said],
            numbers=np.array(numbers, np.float64),
            required=Ragged.from_lists([sorted(set(one.required)) for one in said]),
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Lessons:
        """Reads a table of `lesson_schema`."""
        return cls(
            rows=np.asarray(table.column("video_row"), np.int64),
            courses=table.column("course").to_pylist(),
            numbers=np.asarray(table.column("lesson").fill_null(np.nan), np.float64),
            required=Ragged.from_arrow(table.column("required_rows")),
        )

    def to_table(self) -> pa.Table:
        """A table of `lesson_schema`."""
        required = [self.required[place].tolist() for place in range(len(self))]
        numbers = pa.array(self.numbers, from_pandas=True)
        return pa.table([self.rows, self.courses, numbers, required], schema=lesson_schema())

    def __len__(self) -> int:
        return len(self.rows)

    def one(self, video_row: int) -> Lesson | None:
        """What is said of a video; None where it is no lesson."""
        place = int(np.searchsorted(self.rows, video_row))
        if place == len(self) or self.rows[place] != video_row:
            return None
        number = float(self.numbers[place])
        required = tuple(self.required[place].tolist())
        return Lesson(self.courses[place], None if np.isnan(number) else number, required)

    def with_changes(self, changes: Mapping[int, Lesson | None]) -> Lessons:
        """The same with some lessons new, another or (None) none any more."""
        all_of_them = {row: self.one(row) for row in self.rows.tolist()} | dict(changes)
        return Lessons.of({row: one for row, one in all_of_them.items() if one is not None})

    def locked(self, finished: npt.NDArray[np.integer]) -> IntArray:
        """The sorted rows of the lessons that require a video that is not among these rows."""
        done = np.isin(self.required.values, finished)
        num_done = np.bincount(self.required.list_of_value[done], minlength=len(self))
        return self.rows[num_done < self.required.lengths]

    def missing(self, finished: npt.NDArray[np.integer]) -> Ragged:
        """R lists: the sorted rows that each lesson requires and that are not among these rows.

        >>> lessons = Lessons.of({5: Lesson("maths", 1, ()), 6: Lesson("maths", 2, (4, 5))})
        >>> [rows.tolist() for rows in map(lessons.missing(np.array([4])).__getitem__, range(2))]
        [[], [5]]
        """
        left = ~np.isin(self.required.values, finished)
        owners, rows = self.required.list_of_value[left], self.required.values[left]
        return Ragged.of_sets(owners, rows, len(self))

    def locked_for(self, finished: Ragged) -> Ragged:
        """`locked` for each of U users, by what each has finished."""
        required = self.required
        asking = np.flatnonzero(required.lengths)
        if not len(asking) or not len(finished):
            return Ragged.empty(len(finished))
        num_rows = 1 + int(max(required.values.max(), finished.values.max(initial=0)))
        step = max(1, AT_ONCE // max(num_rows, len(required.values)))
        lengths, locked = [], []
        for start in range(0, len(finished), step):
            owners, rows = finished.pairs(start, min(start + step, len(finished)))
            is_missing_BN = np.ones((min(step, len(finished) - start), num_rows), np.bool_)
            is_missing_BN[owners, rows] = False
            of_lessons = np.logical_or.reduceat(
                is_missing_BN[:, required.values], required.offsets[asking], axis=1
            )
            lengths.append(of_lessons.sum(1))
            locked.append(self.rows[asking[of_lessons.nonzero()[1]]])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return Ragged(offsets, np.concatenate(locked).astype(np.int32))

    def unreachable(self) -> IntArray:
        """The sorted rows of the lessons that nobody can ever come to: they require each other."""
        locked = self.rows[self.required.lengths > 0]
        while len(locked):
            others = np.setdiff1d(self.required.values, locked)
            still = np.intersect1d(self.locked(others), locked, assume_unique=True)
            if len(still) == len(locked):
                break
            locked = still
        return locked


NO_LESSONS = Lessons.of({})
"""Of a catalogue without courses."""
