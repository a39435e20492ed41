"""How far a user is in the catalogue's courses: what is finished, what is open, what comes next.

A lesson is finished by a positive event with it, and locked while something that it requires is
not (`data/lessons.py`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass

from recsys.data.ragged import IntArray
from recsys.serve.http.messages import Described
from recsys.serve.retrieve.catalogue import Catalogue


@dataclass(config=Described)
class CourseLesson:
    """A lesson of a course, as one user has it."""

    video_id: str
    lesson: float | None
    """Its place in the course."""
    finished: bool
    locked: bool
    """Whether something that it requires is not finished: it is not recommended yet."""
    waits_for: list[str]
    """The ids of what it requires and is not finished; of a finished one too."""


@dataclass(config=Described)
class Course:
    """A course, as one user has it."""

    course: str
    num_finished: int
    next_video_id: str | None
    """The first of its lessons that is neither finished nor locked."""
    lessons: list[CourseLesson]
    """In their order."""


@dataclass(config=Described)
class CoursesResponse:
    """The answer of /v1/courses: begun ones first, the last touched at the top; done ones last."""

    version: str
    user_id: str
    num_courses: int
    """Of the catalogue."""
    courses: list[Course]


def courses_of(
    catalogue: Catalogue, finished: IntArray, liked: IntArray, now_ms: int
) -> list[Course]:
    """All courses that have a lesson which may be shown, in the order of `CoursesResponse`.

    Args:
        catalogue: With the lessons.
        finished: Rows that the user has finished.
        liked: The same, the newest first, as far back as a history goes.
        now_ms: When.
    """
    done = set(finished.tolist())
    ages = {row: age for age, row in reversed(list(enumerate(liked.tolist())))}
    keyed = []
    for name, lessons in _in_order(catalogue, finished, now_ms).items():
        shown = [
            CourseLesson(video_id, number, row in done, locked=bool(waits_for), waits_for=waits_for)
            for row, video_id, number, waits_for in lessons
        ]
        num_finished = sum(one.finished for one in shown)
        following = [one.video_id for one in shown if not (one.finished or one.locked)]
        course = Course(name, num_finished, following[0] if following else None, shown)
        begun = 0 < num_finished < len(shown)
        touched = min(ages.get(row, len(ages)) for row, *_ in lessons)
        keyed.append((not begun, num_finished == len(shown), touched, name, course))
    return [course for *_, course in sorted(keyed, key=lambda one: one[:4])]


class _Listed(NamedTuple):
    """A lesson that may be shown."""

    row: int
    video_id: str
    number: float | None
    waits_for: list[str]


def _in_order(catalogue: Catalogue, finished: IntArray, now_ms: int) -> dict[str, list[_Listed]]:
    """Each course's lessons in their order; those without a place last."""
    lessons, missing = catalogue.lessons, catalogue.missing(finished, now_ms)
    listed = np.flatnonzero(~np.isin(lessons.rows, catalogue.unlisted(now_ms)))
    places = listed[np.argsort(lessons.numbers[listed], kind="stable")]
    ids = catalogue.videos.ids_of(lessons.rows[places])
    missing_ids = catalogue.videos.ids_of(missing.values.astype(np.int64))
    courses: dict[str, list[_Listed]] = defaultdict(list)
    for place, video_id in zip(places.tolist(), ids, strict=True):
        name, number = lessons.courses[place], float(lessons.numbers[place])
        if name is not None:
            waits_for = missing_ids[missing.offsets[place] : missing.offsets[place + 1]]
            place_in_course = None if np.isnan(number) else number
            courses[name].append(
                _Listed(int(lessons.rows[place]), video_id, place_in_course, waits_for)
            )
    return courses
