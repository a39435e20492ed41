"""What must be finished before what, by hand.

Rows 1 to 3 are a course in order; 4 requires 1 and 3; 6 belongs to a course and requires nothing.
"""

import numpy as np
import pytest

from recsys.data.lessons import NO_LESSONS, Lesson, Lessons
from recsys.data.ragged import Ragged
from recsys.schema import lesson_schema

LESSONS = Lessons.of(
    {
        1: Lesson("maths", 1, ()),
        2: Lesson("maths", 2, (1,)),
        3: Lesson("maths", 3, (2,)),
        4: Lesson(None, None, (3, 1, 3)),
        6: Lesson("art", None, ()),
    }
)


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("finished", "locked"),
    [
        ((), [2, 3, 4]),
        ((1,), [3, 4]),
        ((3,), [2, 3, 4]),
        ((3, 1), [3]),  # it was finished out of order
        ((2, 5, 99), [2, 4]),
    ],
)
def test_a_lesson_is_locked_until_all_that_it_requires_is_finished(
    finished: tuple[int, ...], locked: list[int]
) -> None:
    assert LESSONS.locked(rows(*finished)).tolist() == locked
    missing = LESSONS.missing(rows(*finished))
    assert LESSONS.rows[missing.lengths > 0].tolist() == locked


def test_what_a_lesson_waits_for() -> None:
    missing = LESSONS.missing(rows(2, 3))
    assert [missing[place].tolist() for place in range(5)] == [[], [1], [], [1], []]


def test_each_user_has_locks_of_their_own() -> None:
    known = Ragged.from_lists([[], [1, 1], [1, 2, 3]])
    assert [part.tolist() for part in map(LESSONS.locked_for(known).__getitem__, range(3))] == [
        [2, 3, 4],
        [3, 4],
        [],
    ]


@pytest.mark.parametrize("at_once", [1, 500, 1 << 24])
def test_many_users_are_looked_at_together(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    required = [rng.choice(60, rng.integers(0, 4), replace=False) for _ in range(40)]
    lessons = Lessons.of(
        {10 + i: Lesson("maths", i, tuple(rows.tolist())) for i, rows in enumerate(required)}
    )
    finished = [rng.choice(70, rng.integers(0, 50)) for _ in range(30)]
    expected = [lessons.locked(rows).tolist() for rows in finished]
    monkeypatch.setattr("recsys.data.lessons.AT_ONCE", at_once)
    monkeypatch.setattr(Lessons, "locked", None)  # nobody is asked for alone
    locked = lessons.locked_for(Ragged.from_lists(finished))
    assert [locked[user].tolist() for user in range(30)] == expected
    assert 0 < locked.lengths.min() and len(set(locked.lengths.tolist())) > 3


def test_a_catalogue_without_lessons_locks_nothing() -> None:
    assert NO_LESSONS.locked(rows()).tolist() == []
    assert NO_LESSONS.locked_for(Ragged.from_lists([[1], []])).lengths.tolist() == [0, 0]
    assert NO_LESSONS.unreachable().tolist() == []


def test_the_table_gives_the_same_lessons_back() -> None:
    table = LESSONS.to_table()
    assert table.schema.equals(lesson_schema())
    again = Lessons.from_table(table)
    assert [again.one(row) for row in range(8)] == [LESSONS.one(row) for row in range(8)]
    assert again.one(4) == Lesson(None, None, (1, 3)) and again.one(5) is None
    assert Lessons.from_table(NO_LESSONS.to_table()).locked(rows()).tolist() == []


def test_changes_add_replace_and_take_away() -> None:
    changed = LESSONS.with_changes({2: None, 4: Lesson("maths", 4, (6,)), 9: Lesson("art", 1, ())})
    assert changed.rows.tolist() == [1, 3, 4, 6, 9]
    assert changed.locked(rows(2)).tolist() == [4]


@pytest.mark.parametrize(
    ("required", "never"),
    [
        ({1: (), 2: (1,), 3: (2,)}, []),
        ({1: (1,)}, [1]),
        ({1: (2,), 2: (1,), 3: (2,), 4: (9,)}, [1, 2, 3]),
    ],
)
def test_lessons_that_require_each_other_are_never_reached(
    required: dict[int, tuple[int, ...]], never: list[int]
) -> None:
    lessons = Lessons.of({row: Lesson("c", None, needed) for row, needed in required.items()})
    assert lessons.unreachable().tolist() == never
