"""Event times: the one place that finds their unit and says which of them cannot be.

The unit of a column of numbers is told from the bulk of the times, the median over all files, so
that a few wild ones do not turn seconds into milliseconds. Where the bulk are dates, a time before
1980 or more than a day after now cannot be: it is a missing time that a writer put a number for
(0, -1, -2^63, the year 9999) or a clock gone wrong. Times that count from a start of their own may
be anything from 0 on. A timestamp without a zone is UTC.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.config.data import SplitConfig
from recsys.data.ragged import IntArray
from recsys.data.values import plain
from recsys.errors import InputError

UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
DAY_MS = 24 * 3600 * 1000
FIRST_DATE_MS = 3652 * DAY_MS
"""1980: what lies before it is no date of a viewing."""
LAST_DATE_MS = 47482 * DAY_MS
"""2100."""
_UNITS_BELOW = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))


@dataclass(frozen=True)
class TimeSample:
    """Some of a file's times, to tell the unit of all by."""

    path: str
    unit: str | None
    """Of a timestamp column; None of numbers."""
    values: npt.NDArray[np.float64]
    """In the file's own unit, missing ones left out."""
    num_rows: int
    """Of the file."""


@dataclass(frozen=True)
class EventTimes:
    """How event times are read: their unit, and the span that they lie in."""

    unit: str
    """Of a column of numbers, and of a split's cuts that are integers."""
    told_by: str
    """Where the unit comes from, for people."""
    low_ms: int
    """The first time that can be."""
    high_ms: int
    """The first time after all that can be."""

    def read(self, column: pa.ChunkedArray, name: str) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Times in milliseconds since 1970, rounded down, and which of them are missing."""
        array = plain(column, name)
        unit = array.type.unit if pa.types.is_timestamp(array.type) else self.unit
        missing = np.asarray(array.is_null())
        return to_ms(array, unit), missing

    def possible(self, time_ms: IntArray) -> npt.NDArray[np.bool_]:
        """Which times (E,), in milliseconds since 1970, lie in the span that times can have."""
        return (time_ms >= self.low_ms) & (time_ms < self.high_ms)


def to_ms(array: pa.Array, unit: str) -> IntArray:
    """Times as milliseconds since 1970, rounded down; 0 for a missing one.

    >>> to_ms(pa.array([1.5, None, 2.0**80]), "s").tolist() == [1500, 0, 2**63 - 2**10]
    True
    """
    if pa.types.is_timestamp(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    values = np.asarray(array.fill_null(0))
    if values.dtype == np.uint64:
        values = values.astype(np.float64)
    if np.issubdtype(values.dtype, np.floating):
        scaled = np.floor(values * UNITS_MS[unit])
        return np.clip(scaled, -(2.0**63), 2.0**63 - 2**10).astype(np.int64)
    values = values.astype(np.int64)
    if unit == "s":
        most = 2**63 // 1000 - 1
        return np.clip(values, -most, most) * 1000
    return values // round(1 / UNITS_MS[unit])


def find_times(samples: Iterable[TimeSample], given: str, setting: str) -> EventTimes:
    """The unit of the times and the span that they can lie in.

    Args:
        samples: Of all files.
        given: `data.time_unit`.
        setting: Names the events in an error.

    Raises:
        InputError: Files have different units, or the bulk of the times cannot be.
    """
    samples = list(samples)
    own = next((sample.unit for sample in samples if sample.unit), None)
    # Zeros and negative numbers stand for missing times, however many they are.
    kept = [(sample, sample.values[sample.values > 0]) for sample in samples]
    kept = [(sample, values) for sample, values in kept if len(values)]
    if own:
        unit, told_by = own, "the column's type"
    elif given != "auto":
        unit, told_by = given, "data.time_unit"
    else:
        unit, told_by = _unit_of_files(kept, setting), "the size of the times"
    scaled = [(sample, values * UNITS_MS[sample.unit or unit]) for sample, values in kept]
    return EventTimes(unit, told_by, *_span(_median(scaled), unit, setting))


def _unit_of_files(kept: list[tuple[TimeSample, npt.NDArray[np.float64]]], setting: str) -> str:
    unit = guess_unit(_median(kept))
    paths: dict[str, str] = {}
    for sample, values in kept:
        middle = float(np.median(values))
        its_unit = guess_unit(middle)
        if _is_date(middle * UNITS_MS[its_unit]):
            paths.setdefault(its_unit, sample.path)
    if len(paths) > 1:
        (one, path), (other, other_path) = list(paths.items())[:2]
        raise InputError(
            f"{setting}: the times of {path} look like {one}, those of {other_path} like {other}; "
            "write all in one unit"
        )
    return unit


def _median(parts: list[tuple[TimeSample, npt.NDArray[np.float64]]]) -> float:
    """The median of all files' times, each file weighing as many rows as it has; 0 of none."""
    if not parts:
        return 0.0
    values = np.concatenate([values for _, values in parts])
    weights = np.concatenate(
        [np.full(len(values), sample.num_rows / len(sample.values)) for sample, values in parts]
    )
    order = np.argsort(values)
    heavier = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(heavier, heavier[-1] / 2)])


def _now_ms() -> float:
    return time.time() * 1000


def _is_date(time_ms: float) -> bool:
    return FIRST_DATE_MS <= time_ms < _now_ms() + DAY_MS


def _span(middle_ms: float, unit: str, setting: str) -> tuple[int, int]:
    """The times that can be, told from the median."""
    if middle_ms >= LAST_DATE_MS:
        year = 1970 + middle_ms / DAY_MS / 365.25
        raise InputError(
            f"{setting}: read in {unit}, the median of the times lies in the year {year:.0f}; "
            "set data.time_unit to their unit (s, ms, us or ns)"
        )
    low = FIRST_DATE_MS if middle_ms >= FIRST_DATE_MS else 0
    return low, int(_now_ms()) + DAY_MS if _is_date(middle_ms) else LAST_DATE_MS


def guess_unit(size: float) -> str:
    """Unit of an epoch time, told from its size (good for times after 1973).

    >>> guess_unit(1_651_507_200), guess_unit(1_651_507_200_000)
    ('s', 'ms')
    """
    return next((unit for below, unit in _UNITS_BELOW if size < below), "ns")


def to_native_time(value: int | datetime, unit: str) -> int:
    """A split's cut as an integer in `unit` (`s`, `ms`, `us` or `ns`); a naive date is UTC.

    >>> to_native_time(datetime(1970, 1, 2), "ms")
    86400000
    """
    if isinstance(value, int):
        return value
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit])


def cuts_ms(split: SplitConfig, unit: str, newest_ms: float) -> tuple[float, float] | None:
    """When validation and test begin, in milliseconds; None for leave-one-out.

    >>> days = SplitConfig(valid_days=2, test_days=1)
    >>> [cut / DAY_MS for cut in cuts_ms(days, "ms", 10 * DAY_MS)]
    [7.0, 9.0]

    Args:
        split: With moments, or with days before the newest event.
        unit: Of moments that are integers.
        newest_ms: Time of the newest event.

    Raises:
        InputError: The test begins first.
    """
    if split.valid_days is not None and split.test_days is not None:
        test = newest_ms - split.test_days * DAY_MS
        return test - split.valid_days * DAY_MS, test
    if split.valid_from is None or split.test_from is None:
        return None
    valid, test = (
        to_native_time(value, unit) * UNITS_MS[unit]
        for value in (split.valid_from, split.test_from)
    )
    if valid >= test:
        raise InputError(
            f"split.valid_from={split.valid_from} is not before split.test_from={split.test_from}; "
            "the validation events come before the test events"
        )
    return valid, test


def date_text(time_ms: float) -> str:
    """A time for people, in UTC.

    >>> date_text(1_714_521_600_000)
    '2024-05-01 00:00:00'
    """
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
