"""Times of frames that a file's clock gets wrong, worked out by hand."""

import pytest

from recsys.decode.clock import Doubts, mend

STEADY = [0, 10, 20, 30, 40, 50, 60, 70]
NEVER = 1e9


def _mended(ticks: list[int | None], jump: float = NEVER, *, pauses: bool = True) -> list[float]:
    mended = mend(ticks, jump=jump, pauses=pauses)
    assert mended is not None
    return [round(tick, 6) for tick in mended.ticks.tolist()]


@pytest.mark.parametrize("wild", [9000, 75, 23, -5, -9000, 0])
@pytest.mark.parametrize("place", [1, 2, 4, 6])
def test_one_wild_time_is_one_bad_time(place: int, wild: int) -> None:
    ticks: list[int | None] = [tick + 1000 for tick in STEADY]
    ticks[place] = 1000 + wild
    mended = _mended(ticks)
    assert mended[:place] == STEADY[:place]
    assert mended[place + 1 :] == STEADY[place + 1 :]
    assert STEADY[place - 1] < mended[place] < STEADY[place + 1]


def test_a_wild_first_frame_comes_a_step_before_the_second() -> None:
    assert _mended([5000, 10, 20, 30]) == [0.0, 10.0, 20.0, 30.0]


def test_a_wild_last_frame_is_told_where_clocks_do_jump() -> None:
    assert _mended([0, 10, 20, 5000], 100, pauses=False) == [0.0, 10.0, 20.0, 30.0]
    assert _mended([0, 10, 20, 5000], 100) == [0.0, 10.0, 20.0, 5000.0]  # a pause


def test_two_wild_frames_in_a_row() -> None:
    assert _mended([0, 10, 900, 910, 40, 50]) == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]


def test_equal_and_missing_times_are_spread_between_their_neighbours() -> None:
    assert _mended([0, 10, 10, 10, 10, 50]) == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    assert _mended([None, 10, None, None, 40, None]) == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]


def test_times_written_as_zero_where_they_are_missing() -> None:
    assert _mended([5, 15, 0, 35, 0, 0, 0, 75]) == STEADY


def test_a_pair_of_one_time_leaves_a_variable_rate_alone() -> None:
    assert _mended([0, 1, 2, 2, 4, 104, 204, 304]) == [0, 1, 2, 3, 4, 104, 204, 304]


def test_of_a_pair_the_one_beside_the_longer_step_is_wrong() -> None:
    assert _mended([0, 20, 20, 30, 40]) == [0, 10, 20, 30, 40]
    assert _mended([0, 10, 10, 30, 40]) == [0, 10, 20, 30, 40]
    assert _mended([0, 30, 30, 30, 40]) == [0, 10, 20, 30, 40]
    # At an end, and where the clock starts anew, there is no step to tell by.
    assert _mended([0, 10, 20, 20]) == [0, 10, 20, 30]
    anew: list[int | None] = [0, 20, 40, 60, 60, 0, 20, 40, 60]
    assert _mended(anew, 1000) == [0, 20, 40, 60, 80, 100, 120, 140, 160]


@pytest.mark.parametrize("start", [7000, 5, -300, 33])
def test_a_clock_that_starts_anew_goes_on_a_step_later(start: int) -> None:
    ticks = [0, 10, 20, 30, *(start + tick for tick in (0, 10, 20, 30))]
    assert _mended(ticks, 1000, pauses=start != 7000) == (
        [0, 10, 20, 30, 33, 43, 53, 63] if start == 33 else STEADY
    )


def test_two_jumps_and_a_wild_time_between_them() -> None:
    ticks: list[int | None] = [0, 10, 20, 700, 710, 9999, 730, 100, 110, 120]
    mended = mend(ticks, jump=100, pauses=False)
    assert mended is not None
    assert mended.ticks.tolist() == [10.0 * number for number in range(10)]
    assert mended.doubts == Doubts(num_wild=1, num_jumps=2)


def test_a_burst_of_wild_times_is_a_clock_of_its_own() -> None:
    assert _mended([0, 10, 9000, 9010, 9020, 50, 60, 70], 1000) == STEADY


def test_slides_are_no_jumps() -> None:
    slides: list[int | None] = [0, 150, 300, 450]
    assert _mended(slides, 100, pauses=False) == slides


def test_no_clock() -> None:
    for ticks in ([], [None, None], [3, 3, 3], [None, 4]):
        assert mend(ticks, jump=NEVER, pauses=True) is None
    assert _mended([7]) == [0.0]


def test_what_is_said_of_it() -> None:
    assert str(Doubts()) == "" and not Doubts()
    assert str(Doubts(2, 1, 3)) == "frame times: 2 wild, 1 missing or equal, 3 jumps of the clock"
    assert not Doubts(num_filled=4).is_broken and Doubts(num_jumps=1).is_broken
