import numpy as np
import pyarrow as pa
import pytest

from recsys.data.ragged import Ragged, flat_values

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
