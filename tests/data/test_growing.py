import numpy as np

from recsys.data.growing import Growing, GrowingLists
from recsys.data.ragged import Ragged


def test_one_row_after_the_other_moves_the_others_seldom() -> None:
    numbers = Growing(np.arange(1000))
    rooms = set()
    for row in range(1000, 2000):
        numbers.append(np.array([row]))
        rooms.add(len(numbers._room))
    assert numbers.now.tolist() == list(range(2000))
    assert rooms == {1126, 1267, 1426, 1605, 1806, 2032}  # an eighth more than was wanted


def test_what_was_given_away_has_no_more_rows() -> None:
    numbers = Growing(np.array([[1, 2]]))
    numbers.append(np.array([[3, 4]]))
    before = numbers.now
    numbers.append(np.array([[5, 6]]))
    assert before.tolist() == [[1, 2], [3, 4]]
    assert numbers.now.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_rows_that_nobody_has_set_are_zero() -> None:
    numbers = Growing(np.array([True]))
    numbers.put(np.array([3]), np.array([True]))
    numbers.reach(5)
    numbers.reach(2)
    assert numbers.now.tolist() == [True, False, False, True, False]


def test_nothing_is_put() -> None:
    numbers = Growing(np.array([7]))
    numbers.put(np.zeros(0, np.int64), np.zeros(0, np.int64))
    numbers.append(np.zeros(0, np.int64))
    assert numbers.now.tolist() == [7]


def lists_of(lists: GrowingLists) -> list[list[int]]:
    selected = lists.select(np.arange(len(lists)))
    return [selected[place].tolist() for place in range(len(selected))]


def test_lists_that_follow_and_lists_in_their_place() -> None:
    lists = GrowingLists(Ragged.from_lists([[1]]))
    for number, values in enumerate([[2, 3], [], [4]], 1):
        lists.put(np.array([number]), Ragged.from_lists([values]))
    assert lists_of(lists) == [[1], [2, 3], [], [4]]
    lists.put(np.array([2, 4]), Ragged.from_lists([[5], [6, 7]]))
    assert lists_of(lists) == [[1], [2, 3], [5], [4], [6, 7]]
    lists.put(np.array([5]), Ragged.from_lists([[8]]))
    assert lists_of(lists) == [[1], [2, 3], [5], [4], [6, 7], [8]]
    assert (lists.later.offsets.tolist(), lists.later.values.tolist()) == (
        [0, 2, 3, 4, 6, 7],
        [2, 3, 5, 4, 6, 7, 8],
    )
