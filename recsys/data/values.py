"""What a column's values mean: the one place that says when one is missing, and what it is called.

Missing is a null, a NaN (which numpy, pandas and polars write into a column of floats for want of a
null) and text that is empty or blank. Nothing else is: the text "nan" is a text like any other.

A number is called by its value and not by its type: 1, 1.0, Decimal("1.00") and a category of them
are the label "1", so that tables of two weeks match whose writers chose different types.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError

LONGEST = 1e15
MISSING_FLAG = -1
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
"""Up to here a float of the type tells every whole number from its neighbours."""


def inner_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values: of a dictionary (a pandas category) that of its entries."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def family(kind: pa.DataType) -> str:
    """What a type's values are: types of one family can be taken together and nothing is lost.

    `missing` goes with everything: a writer that met no value knows no type.

    >>> family(pa.int32()), family(pa.dictionary(pa.int8(), pa.large_string())), family(pa.null())
    ('number', 'text', 'missing')
    """
    kind = inner_type(kind)
    is_ = pa.types
    if is_.is_null(kind):
        return "missing"
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "text"
    if is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        return "number"
    if is_.is_boolean(kind):
        return "truth"
    if is_.is_timestamp(kind):
        return "timestamp"
    return "other"


def is_list(kind: pa.DataType) -> bool:
    """Whether a type's values are lists."""
    is_ = pa.types
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def plain(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """A column as one array of its own values, null wherever one is missing; text as `string`.

    Raises:
        InputError: It holds text that is not UTF-8.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if family(array.type) == "text":
        return _without_blanks(array.cast(pa.string()), name)
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    if pa.types.is_floating(array.type):
        nan = pc.is_nan(array)
        if pc.any(nan).as_py():
            array = pc.if_else(nan, pa.scalar(None, array.type), array)
    return array


def _without_blanks(array: pa.Array, name: str) -> pa.Array:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raise InputError(
            f"column {name!r} holds text that is not UTF-8; write it as UTF-8"
        ) from None
    blank = pc.or_(pc.equal(pc.binary_length(array), 0), pc.utf8_is_space(array))
    return pc.if_else(blank, pa.scalar(None, array.type), array) if pc.any(blank).as_py() else array


def as_labels(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """Values as text, null where one is missing: names of creators, categories, groups.

    >>> as_labels(pa.array([2.0, float("nan"), 2.5]), "age").to_pylist()
    ['2', None, '2.5']
    >>> as_labels(pa.array([True, None]), "vip").to_pylist()
    ['true', None]
    """
    array = plain(column, name)
    if pa.types.is_decimal(array.type):
        text = array.cast(pa.string())
        return pc.replace_substring_regex(text, r"\.?0+$", "") if array.type.scale > 0 else text
    if not pa.types.is_floating(array.type):
        return array.cast(pa.string())
    whole = pc.and_(pc.equal(pc.trunc(array), array), pc.less(pc.abs(array), 2.0**63))
    digits = pc.if_else(whole, array, pa.scalar(0, array.type)).cast(pa.int64()).cast(pa.string())
    return digits if pc.all(whole).as_py() else pc.if_else(whole, digits, array.cast(pa.string()))


def as_ids(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """Ids as text, null where one is missing; a float stands for the whole number that it is.

    Raises:
        InputError: One is no whole number, or a float so large that it may stand for several.

    >>> as_ids(pa.array([10_000_000_003.0, None, float("nan")]), "user_id").to_pylist()
    ['10000000003', None, None]
    """
    kind = inner_type(column.type)
    array = plain(column, name)
    if kind in _EXACT:
        fraction = array.filter(pc.not_equal(pc.trunc(array), array))
        coarse = array.filter(pc.greater(pc.abs(array), float(_EXACT[kind])))
        if len(coarse):
            raise InputError(
                f"column {name!r} holds {coarse[0].as_py():.0f} as a {kind}, which is exact up to "
                f"{_EXACT[kind]} only: other ids may have become the same; write it as integers "
                "or text"
            )
    else:
        array = as_labels(array, name)
        fraction = array.filter(pc.match_substring(array, ".")) if pa.types.is_decimal(kind) else ()
    if len(fraction):
        raise InputError(
            f"column {name!r} holds {fraction[0]}; allowed is text or an integer; correct it"
        )
    return as_labels(array, name)


def as_tags(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """Each row's tags, without missing ones: of lists, or of text cut at its commas.

    >>> as_tags(pa.array([["b", None, " a"], None, []]), "tag").to_pylist()
    [['b', 'a'], [], []]
    >>> as_tags(pa.array(["b, a,,", "nan"]), "tag").to_pylist()
    [['b', 'a'], ['nan']]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not is_list(array.type):
        array = pc.split_pattern(as_labels(array, name), ",")
    array = array.cast(pa.large_list(array.type.value_type))
    rows = rows_of_lists(array)
    tags = pc.utf8_trim_whitespace(as_labels(pc.list_flatten(array), name))
    there = pc.fill_null(pc.greater(pc.binary_length(tags), 0), False)
    offsets = np.searchsorted(rows[np.asarray(there)], np.arange(len(array) + 1))
    return pa.LargeListArray.from_arrays(pa.array(offsets), tags.filter(there))


def rows_of_lists(lists: pa.Array) -> npt.NDArray[np.int64]:
    """The row that each value of flattened lists comes from."""
    # Not list_parent_indices: a missing list of a fixed size has values that flattening leaves out.
    lengths = np.asarray(lists.value_lengths().fill_null(0), np.int64)
    return np.repeat(np.arange(len(lists)), lengths)


def as_numbers(column: pa.Array | pa.ChunkedArray, name: str) -> npt.NDArray[np.float64]:
    """Numbers, NaN where one is missing."""
    numbers = plain(column, name).cast(pa.float64(), safe=False).fill_null(np.nan)
    return np.asarray(numbers)


def as_flags(column: pa.Array | pa.ChunkedArray, name: str) -> npt.NDArray[np.int8]:
    """0/1 values, `MISSING_FLAG` where one is missing.

    Raises:
        InputError: There is another value.

    >>> as_flags(pa.array([True, None]), "clicked").tolist()
    [1, -1]
    """
    values = as_numbers(column, name)
    there = ~np.isnan(values)
    wrong = values[there & (values != 0) & (values != 1)]
    if len(wrong):
        raise InputError(f"column {name!r} holds {wrong[0]:g}; allowed are 0 and 1; convert it")
    return np.where(there, values, MISSING_FLAG).astype(np.int8)


def as_durations(column: pa.Array | pa.ChunkedArray, name: str) -> npt.NDArray[np.float32]:
    """Numbers from 0 on, NaN where one is missing.

    Raises:
        InputError: There is a negative or infinite one.
    """
    values = as_numbers(column, name)
    wrong = values[(values < 0) | (values > LONGEST)]
    if len(wrong):
        raise InputError(
            f"column {name!r} holds {wrong[0]:g}; allowed are 0 to {LONGEST:g}; correct it"
        )
    return values.astype(np.float32)


def all_missing(column: pa.Array | pa.ChunkedArray, name: str) -> bool:
    """Whether a column holds no value at all."""
    array = plain(column, name)
    return bool(array.null_count == len(array))
