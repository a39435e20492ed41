"""The unit of event times, and which of them cannot be."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import InputError
from recsys.prepare.times import DAY_MS, EventTimes, TimeSample, find_times, guess_unit, to_ms

MAY_2022 = 1_651_507_200
NAN = float("nan")


def times_of(*files: list[float], given: str = "auto", unit: str | None = None) -> EventTimes:
    samples = [
        TimeSample(f"{number}.parquet", unit, np.array(values, np.float64), len(values))
        for number, values in enumerate(files)
    ]
    return find_times(samples, given, "data.events=x")


def test_guess_unit_between_1974_and_2286() -> None:
    for year in (1974, 2024, 2286):
        seconds = int(datetime(year, 1, 1).timestamp())
        guessed = [guess_unit(seconds * scale) for scale in (1, 10**3, 10**6, 10**9)]
        assert guessed == ["s", "ms", "us", "ns"], year


@pytest.mark.parametrize(
    ("array", "unit"),
    [
        (pa.array([7, -2]), "s"),
        (pa.array([7, -2], pa.int32()), "s"),
        (pa.array([7.0009, -2]), "s"),
        (pa.array([7000, -2000]), "ms"),
        (pa.array([7000.9, -1999.1]), "ms"),
        (pa.array([7_000_999, -1_999_999]), "us"),
        (pa.array([7_000_999_999, -1_999_999_999]), "ns"),
    ],
)
def test_times_become_milliseconds_rounded_down(array: pa.Array, unit: str) -> None:
    assert to_ms(array, unit).tolist() == [7000, -2000]
    if pa.types.is_int64(array.type):
        stamps = array.cast(pa.timestamp(unit))
        assert to_ms(stamps, unit).tolist() == [7000, -2000]


def test_missing_and_wild_times_do_not_wrap_around() -> None:
    wild = [-(2**63), 2**63 - 1, None]
    for unit in ("s", "ms"):
        low, high, missing = to_ms(pa.array(wild, pa.int64()), unit).tolist()
        assert low < -(10**17) and high > 10**17 and missing == 0
    low, high, none = to_ms(pa.array([-float("inf"), 1e300, None]), "s").tolist()
    assert low < -(10**17) and high > 10**17 and none == 0
    assert to_ms(pa.array([2**64 - 1], pa.uint64()), "ms")[0] > 10**17


def test_the_unit_is_that_of_the_bulk() -> None:
    wild = [-(2.0**63), 0, -1, 253_402_300_799, 2.0**62]
    for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")):
        times = times_of([*wild, *[MAY_2022 * scale] * 6], wild)
        assert (times.unit, times.told_by) == (unit, "the size of the times")


def test_a_file_weighs_as_many_rows_as_it_has() -> None:
    small = [TimeSample(f"{i}.parquet", None, np.array([5e10]), 1) for i in range(9)]
    large = TimeSample("large.parquet", None, np.array([MAY_2022] * 3, np.float64), 100)
    assert find_times([*small, large], "auto", "x").high_ms > MAY_2022 * 1000


def test_which_dates_can_be() -> None:
    times = times_of([MAY_2022] * 3)
    column = pa.array(
        [None, -(2**63), -1, 0, 1, 315_532_800, MAY_2022, 253_402_300_799], pa.int64()
    )
    time_ms, missing = times.read(column, "time")
    assert missing.tolist() == [True] + [False] * 7
    assert times.possible(time_ms)[1:].tolist() == [False] * 4 + [True, True, False]
    now = pa.array([datetime.now().timestamp() + hours * 3600 for hours in (1, 30)])
    assert times.possible(times.read(now, "time")[0]).tolist() == [True, False]
    for nothing in (pa.array([NAN]), pa.nulls(1)):
        assert times.read(nothing, "time")[1].tolist() == [True]


def test_stamps_of_each_file_have_their_own_unit() -> None:
    times = times_of([MAY_2022 * 1e3], unit="ms")
    assert (times.unit, times.told_by) == ("ms", "the column's type")
    for unit, scale in (("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        for zone in (None, "Asia/Shanghai"):
            stamps = pa.array([MAY_2022 * scale], pa.timestamp(unit, tz=zone))
            assert times.read(stamps, "time")[0].tolist() == [MAY_2022 * 1000]


def test_times_from_a_start_of_their_own_begin_at_0() -> None:
    """Steps, or seconds since the first event, as some public data sets have them."""
    times = times_of([0, 1, 2, 3, 50_000])
    time_ms, _ = times.read(pa.array([-1, 0, 3, 253_402_300_799]), "time")
    assert times.possible(time_ms).tolist() == [False, True, True, False]
    assert times_of([0, 0]).unit == times_of([]).unit == "s"


def test_a_bulk_in_the_future_is_taken_up_to_2100() -> None:
    times = times_of([2_500_000_000] * 3)  # the year 2049
    time_ms, _ = times.read(pa.array([0, 2_600_000_000, 4_200_000_000]), "time")
    assert times.possible(time_ms).tolist() == [False, True, False]
    assert times.low_ms > 0 and times.high_ms > 70 * 365 * DAY_MS


def test_a_unit_that_puts_the_bulk_where_it_cannot_be_is_refused() -> None:
    message = "data.events=x: read in s, the median of the times lies in the year 54303; set data."
    with pytest.raises(InputError, match=message):
        times_of([MAY_2022 * 1e3], given="s")
