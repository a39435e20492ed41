"""Ready-made content vectors: a column of the video table that stands in for the video files.

Shapes: N videos, M of them with a vector, Z numbers of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.arrays import open_array, write_array
from recsys.data.clip_store import ClipRows
from recsys.data.values import rows_of_lists
from recsys.errors import InputError

NO_VECTOR = -1
"""Row of a video without a vector."""


def read_vectors(column: pa.Array | pa.ChunkedArray, source: str) -> npt.NDArray[np.float32]:
    """The vectors (N, Z) of a column, each of length √Z; NaN where a video has none.

    A video has none where the list is missing or empty, or holds nothing but missing numbers.

    Args:
        column: Lists of numbers.
        source: What to call the column in an error.

    Raises:
        InputError: They differ in length, are empty, or hold something that is no finite number.

    >>> read_vectors(pa.chunked_array([[[3.0, 4.0], None]]), "videos: v").round(2).tolist()
    [[0.8500000238418579, 1.1299999952316284], [nan, nan]]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.cast(pa.large_list(pa.float32()))
    numbers = np.asarray(array.flatten().fill_null(np.nan))
    rows = rows_of_lists(array)
    there = np.bincount(rows[~np.isnan(numbers)], minlength=len(array)) > 0
    lengths = np.unique(np.asarray(array.value_lengths().fill_null(0))[there])
    if len(lengths) != 1:
        widths = ", ".join(map(str, lengths[:5])) or "none"
        raise InputError(
            f"{source}: vectors of {widths} numbers; all must have the same length, at least 1"
        )
    values = numbers[there[rows]].reshape(-1, lengths[0])
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(there)[~np.isfinite(values).all(1)][0])
        raise InputError(f"{source}: row {place} has a value that is no finite number; correct it")
    vectors = np.full((len(array), lengths[0]), np.nan, dtype=np.float32)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    vectors[there] = values * np.sqrt(lengths[0]) / np.maximum(norm, 1e-12)
    return vectors


def write_vectors(vectors: npt.NDArray[np.float32], path: str) -> None:
    """Writes RUN/prepare/vectors.npy."""
    write_array([vectors], path, shape=vectors.shape)


@dataclass(frozen=True)
class Vectors:
    """RUN/prepare/vectors.npy: the vector of each video (N, Z)."""

    values: npt.NDArray[np.float32]

    @classmethod
    def read(cls, path: str) -> Vectors:
        """Maps the vectors of a file on this machine, and reads those of another."""
        return cls(open_array(path, np.float32))

    @property
    def dim(self) -> int:
        """Width Z of the vectors."""
        return int(self.values.shape[1])

    def rows(self) -> ClipRows:
        """(N,) the row of each video's vector; `NO_VECTOR` where it has none."""
        there = ~np.isnan(self.values[:, 0])
        return ClipRows(np.where(there, np.arange(len(there)), NO_VECTOR))

    def take(self, rows: ClipRows) -> npt.NDArray[np.float32]:
        """Reads the vectors of some rows as features of clips of one frame: (M, 1, Z)."""
        return self.values[rows][:, None]
