"""What is missing, and what a value is called, whatever type its column has."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.values import (
    MISSING_FLAG,
    all_missing,
    as_durations,
    as_flags,
    as_ids,
    as_labels,
    as_numbers,
    as_tags,
    family,
    plain,
)
from recsys.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, None], pa.int8()),
        pa.array([7, None], pa.uint64()),
        pa.array([7.0, NAN]),
        pa.array([7.0, None], pa.float32()),
        pa.array(np.array([7, NAN], np.float16)),
        pa.array([Decimal("7.00"), None]),
        pa.array(["7", None], pa.large_string()),
        pa.array(["7", ""]),
        pa.array(["7", " \t"], pa.string_view()),
        pa.array(["7", None]).dictionary_encode(),
        pa.array([7.0, NAN]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["7", None])),
        pa.array([7, None]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_one_label_and_one_missing_value_whatever_the_type(column: pa.Array) -> None:
    chunks = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    for read in (as_labels, as_ids):
        assert read(column, "x").to_pylist() == ["7", None]
        assert read(chunks, "x").to_pylist() == ["7", None]
    assert as_tags(column, "x").to_pylist() == [["7"], []]


def test_a_column_without_a_type_is_all_missing() -> None:
    nothing = pa.nulls(2)
    assert as_ids(nothing, "x").to_pylist() == as_labels(nothing, "x").to_pylist() == [None, None]
    assert as_ids(nothing, "x").type == pa.string()
    assert as_tags(nothing, "x").to_pylist() == [[], []]
    assert as_flags(nothing, "x").tolist() == [MISSING_FLAG] * 2
    assert np.isnan(as_durations(nothing, "x")).all() and np.isnan(as_numbers(nothing, "x")).all()
    assert all_missing(nothing, "x") and all_missing(pa.array([NAN, None]), "x")
    assert not all_missing(pa.array([NAN, 0.0]), "x")


def test_text_that_says_nothing_is_text() -> None:
    words = ["nan", "NaT", "None", "NULL", "NA", "<NA>"]
    assert as_ids(pa.array(words), "x").to_pylist() == words


def test_one_missing_value_does_not_change_the_others() -> None:
    """pandas makes floats of whole numbers for want of a null."""
    large = [10_000_000_003.0, 2.0**53, -1.0, -0.0]
    expected = ["10000000003", "9007199254740992", "-1", "0"]
    assert as_ids(pa.array([*large, NAN]), "x").to_pylist() == [*expected, None]
    assert as_labels(pa.array([*large, 0.5]), "x").to_pylist() == [*expected, "0.5"]


def test_labels_with_fractions_are_called_alike_by_all_types() -> None:
    halves: list[Any] = [
        pa.array([2.5, 1e300]),
        pa.array([2.5, NAN], pa.float32()),
        pa.array([Decimal("2.500")]),
    ]
    assert {as_labels(column, "x")[0].as_py() for column in halves} == {"2.5"}
    whole = pa.array([Decimal("10.00"), Decimal("-0.50"), Decimal("100.00")])
    assert as_labels(whole, "x").to_pylist() == ["10", "-0.5", "100"]
    assert as_labels(pa.array([Decimal(10) ** 30], pa.decimal128(38, 0)), "x")[0].as_py() == (
        "1" + "0" * 30
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, 1.5]), "column 'user' holds 1.5; allowed is text or an integer"),
        (pa.array([Decimal("1.5")]), "column 'user' holds 1.5; allowed is text or an integer"),
        (pa.array([2.0**53 + 2]), "holds 9007199254740994 as a double, which is exact up to 9007"),
        (pa.array([2.0**24 + 2], pa.float32()), "holds 16777218 as a float, which is exact up to"),
        (pa.array(np.array([2050], np.float16)), "holds 2050 as a halffloat, which is exact up to"),
        (pa.array([1.5, 2.5]).dictionary_encode(), "holds 1.5; allowed"),
        (pa.array([float("inf")]), "holds inf as a double"),
        (pa.array([b"caf\xe9"]).view(pa.string()), "column 'user' holds text that is not UTF-8"),
    ],
)
def test_ids_that_may_stand_for_others_are_refused(column: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        as_ids(column, "user")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float64(), 2),
        pa.list_(pa.int16()),
        pa.list_(pa.string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
    ids=str,
)
def test_lists_of_tags_of_all_types(kind: pa.DataType) -> None:
    inner = kind.value_type
    values: list[Any] = ["1", "2"] if family(inner) == "text" else [1, 2]
    if pa.types.is_floating(inner):
        values += [NAN]
    rows = [[values[0], None], None, values[-2:]]
    column = pa.chunked_array([pa.array(rows, kind), pa.array(rows[1:], kind)])
    last = ["2"] if pa.types.is_floating(inner) else ["1", "2"]
    assert as_tags(column, "x").to_pylist() == [["1"], [], last, [], last]
    assert as_tags(column.slice(2), "x").to_pylist() == [last, [], last]


@pytest.mark.parametrize(
    "kind", [pa.bool_(), pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(22, 2)]
)
def test_flags_of_every_type_say_when_one_is_missing(kind: pa.DataType) -> None:
    column = pa.array([1, 0, None]).cast(kind)
    assert as_flags(column, "click").tolist() == [1, 0, MISSING_FLAG]
    assert as_flags(column.dictionary_encode(), "click").tolist() == [1, 0, MISSING_FLAG]
    assert as_flags(pa.array([1.0, NAN]), "click").tolist() == [1, MISSING_FLAG]


@pytest.mark.parametrize(("value", "shown"), [(2, "2"), (-1, "-1"), (0.5, "0.5")])
def test_another_flag_is_named(value: float, shown: str) -> None:
    with pytest.raises(InputError, match=f"column 'click' holds {shown}; allowed are 0 and 1"):
        as_flags(pa.array([1.0, value, 0.0]), "click")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(22, 2)])
def test_durations_of_every_type_say_when_one_is_missing(kind: pa.DataType) -> None:
    column = pa.array([7, 0, None]).cast(kind)
    np.testing.assert_array_equal(as_durations(column, "seconds"), [7, 0, NAN])


@pytest.mark.parametrize(("value", "shown"), [(-2.0, "-2"), (float("inf"), "inf")])
def test_an_impossible_duration_is_named(value: float, shown: str) -> None:
    message = f"column 'seconds' holds {shown}; allowed are 0 to 1e\\+15; correct it"
    with pytest.raises(InputError, match=message):
        as_durations(pa.array([1.0, value]), "seconds")


def test_plain_leaves_whole_columns_alone() -> None:
    column = pa.array([1.0, 2.0])
    assert plain(column, "x").equals(column)
