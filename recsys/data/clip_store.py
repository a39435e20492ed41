"""Clips read back by row: what training workers use. Imports no ray.

Shapes: N videos, M of them with a clip, S frames of a clip, Z features of a frame.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, NewType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.run_folder import REPORT
from recsys.data.storage import as_url, join
from recsys.errors import InputError
from recsys.schema import files_schema

if TYPE_CHECKING:
    import lance

ClipRows = NewType("ClipRows", NDArray[np.int64])
"""Rows of a clip store, which are not video rows; `NO_CLIP` for a video without a clip."""
ClipArray = NDArray[np.number]
"""uint8 frames, or features as float16 or float32."""
NO_CLIP = -1
"""Row of a video that has no clip."""


class ClipStore:
    """OUT/clips.lance, opened for random reads.

    Args:
        path: The Lance dataset, a path or address.

    Raises:
        InputError: It is not there.

    Attributes:
        frame_shape: Shape of what a row holds: (S, size, size, 3) frames or (S, Z) features.
        stores_features: Whether rows are features.
    """

    def __init__(self, path: str):
        self._path = path
        self._open()
        names = self._dataset.schema.names
        self.stores_features = "features" in names
        self._column = "features" if self.stores_features else "frames"
        self._dtype: np.dtype[np.number] = np.dtype(
            np.float16 if self.stores_features else np.uint8
        )
        frames = self._dataset.schema.field("times_s").type.list_size
        width = self._dataset.schema.field(self._column).type.list_size
        if self.stores_features:
            self.frame_shape: tuple[int, ...] = (frames, width // frames)
        else:
            size = round((width // frames // 3) ** 0.5)
            self.frame_shape = (frames, size, size, 3)
        self._uris: pa.ChunkedArray = self._dataset.to_table(columns=["uri"]).column("uri")

    def _open(self) -> None:
        import lance

        try:
            self._dataset: lance.LanceDataset = lance.dataset(as_url(self._path))
        except (OSError, ValueError):
            raise InputError(f"{self._path}: no clips there; run recsys decode first") from None

    def __getstate__(self) -> dict[str, str]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["_path"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._uris)

    def uris(self) -> list[str]:
        """The addresses of the videos that have a clip, by row."""
        uris: list[str] = self._uris.to_pylist()
        return uris

    def rows_of(self, uris: Sequence[str | None] | pa.ChunkedArray) -> ClipRows:
        """(N,) rows of videos; `NO_CLIP` where a video has no clip or no address."""
        if not isinstance(uris, pa.ChunkedArray):
            uris = pa.chunked_array([pa.array(uris, pa.string())])
        places = pc.index_in(uris, value_set=self._uris, skip_nulls=True)
        rows = pc.cast(places, pa.int64()).fill_null(NO_CLIP)
        return ClipRows(np.asarray(rows, np.int64))

    def take(self, rows: ClipRows) -> ClipArray:
        """Reads the clips of some rows.

        Returns:
            (M, S, size, size, 3) uint8 RGB frames, or (M, S, Z) float16 features.

        Raises:
            IndexError: A row is not in the store; `NO_CLIP` is none either.
        """
        wanted = np.asarray(rows, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows lie in 0..{len(self) - 1}, not {wanted.min()}..{wanted.max()}")
        unique, back = np.unique(wanted, return_inverse=True)
        if not len(unique):
            return np.empty((0, *self.frame_shape), self._dtype)
        column = self._dataset.take(unique, columns=[self._column]).column(0)
        values = _values(column).reshape(len(unique), *self.frame_shape)
        return (
            values
            if len(unique) == len(wanted) and (back == range(len(back))).all()
            else values[back]
        )

    def files(self, rows: ClipRows) -> pa.Table:
        """What is known of M videos' files: the table of `files_schema`.

        Raises:
            InputError: They were decoded before all of it was kept.
        """
        names = files_schema().names
        missing = [name for name in names if name not in self._dataset.schema.names]
        if missing:
            report = join(posixpath.dirname(self._path), REPORT)
            raise InputError(
                f"{self._path}: an older recsys made it, without {', '.join(missing)}; remove "
                f"{report}, by which decode is up to date, and run `recsys decode` again"
            )
        table = self._dataset.take(np.asarray(rows, np.int64), columns=names)
        return table.cast(files_schema())

    def times_s(self, rows: ClipRows) -> NDArray[np.float32]:
        """(M, S) times of the frames from the video's first on, in seconds."""
        column = self._dataset.take(np.asarray(rows, np.int64), columns=["times_s"]).column(0)
        times = _values(column).astype(np.float32, copy=False)
        return times.reshape(len(rows), self.frame_shape[0])


def _values(column: pa.ChunkedArray) -> ClipArray:
    """The numbers of a fixed-size list column, without a copy where it is one piece."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
