import numpy as np
import pyarrow as pa
import pytest

from recsys.data.ragged import Ragged, flat_values, union

OFFSETS = {"32 bits": pa.list_(pa.int32()), "64 bits": pa.large_list(pa.int32())}


@pytest.mark.parametrize("kind", OFFSETS.values(), ids=OFFSETS)
def test_columns_of_lists_in_chunks_are_read_as_one(kind: pa.DataType) -> None:
    """A slice begins within its values; a null is an empty list."""
    first = pa.array([[9, 9], [5, 6], None], kind).slice(1)
    column = pa.chunked_array([first, pa.array([], kind), pa.array([[], [7]], kind)])
    ragged = Ragged.from_arrow(column)
    assert ragged.offsets.tolist() == [0, 2, 2, 2, 3]
    assert ragged.values.tolist() == [5, 6, 7]
    assert flat_values(column, np.int64).dtype == np.int64


def test_a_column_without_chunks_is_empty() -> None:
    column = pa.chunked_array([], pa.list_(pa.int32()))
    assert len(Ragged.from_arrow(column)) == 0


def test_large_lists_are_used_where_they_lie() -> None:
    lists = pa.array([[5, 6], [], [7]], pa.large_list(pa.int32()))
    ragged = Ragged.from_arrow(lists)
    assert (ragged.offsets.tolist(), ragged.values.tolist()) == ([0, 2, 2, 3], [5, 6, 7])
    assert np.shares_memory(ragged.offsets, np.asarray(lists.offsets))
    assert np.shares_memory(ragged.values, np.asarray(lists.values))


@pytest.mark.parametrize("kind", OFFSETS.values(), ids=OFFSETS)
def test_lists_that_begin_later_or_are_missing_are_told_apart(kind: pa.DataType) -> None:
    lists = pa.array([[9, 9], [5, 6], None, [7]], kind)
    for part, offsets in ((lists, [0, 2, 4, 4, 5]), (lists.slice(1, 1), [0, 2])):
        ragged = Ragged.from_arrow(part)
        assert ragged.offsets.tolist() == offsets
        assert ragged[len(ragged) - 1].tolist() == ([5, 6] if len(part) == 1 else [7])


def test_a_union_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(-50, 50, size).astype(np.int32) for size in (0, 1, 200)]
    assert union(*parts).tolist() == np.unique(np.concatenate(parts)).tolist()
    assert union(parts[0]).tolist() == []
    assert union(*parts).dtype == np.int32
