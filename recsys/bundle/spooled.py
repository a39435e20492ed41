"""Arrays of a bundle that come part by part, and the ids whose rows they are.

    FOLDER/ids.npy, id_ends.npy     ids as UTF-8, and where each begins and ends
    FOLDER/<name>.npy               what belongs to them

They go through temporary files, since how long they are is known at the end, and are mapped when
they are read: what nobody asks for takes no memory of a server's own.

Shapes: U ids.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.data.places import Ids

BLOCK = 1 << 22
"""Bytes of a temporary file that are in memory at once."""
ENDS = "ends"
"""Arrays whose names end so rise from 0: a part's go on from where the part before it ended."""
ID_NAMES = ("ids", "id_ends")

Array = npt.NDArray[Any]


def write_parts(writer: CheckedWriter, folder: str, parts: Iterable[Mapping[str, Array]]) -> None:
    """Writes arrays into a folder of a bundle, each the parts' own one after the other.

    Args:
        writer: Of the bundle.
        folder: Its name in there.
        parts: By name, all of the same names; at least one. One at a time is in memory.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-bundle-") as aside:
        spools: dict[str, _Spool] = {}
        for part in parts:
            for name, array in part.items():
                if name not in spools:
                    spools[name] = _Spool(Path(aside, name), array)
                elif name.endswith(ENDS):
                    spools[name].append(array[1:] + spools[name].last)
                else:
                    spools[name].append(array)
        for name, spool in spools.items():
            writer.write_array(f"{folder}/{name}.npy", spool.pieces(), shape=spool.shape)


def read_arrays(files: CheckedReader, folder: str, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of a folder by name, mapped where they lie on this machine's disk.

    Raises:
        InputError: A file is missing, or not what was written.
    """
    return {name: files.array(f"{folder}/{name}.npy") for name in names}


def id_arrays(column: pa.ChunkedArray) -> dict[str, Array]:
    """The ids of a part, as `ID_NAMES`: their bytes (uint8), and their ends (U + 1, int64)."""
    ids, ends = Ids(column).text()
    return {"ids": ids, "id_ends": ends}


def ids_of(arrays: Mapping[str, Array]) -> Ids:
    """The ids that `id_arrays` made into arrays, without a copy of them."""
    ends = arrays["id_ends"]
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(arrays["ids"])]
    return Ids(pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers))


class _Spool:
    """An array in a temporary file, to which others are appended."""

    def __init__(self, path: Path, first: Array) -> None:
        self._path, self._dtype, self._row = path, first.dtype, first.shape[1:]
        self._num_rows, self.last = 0, 0
        self.append(first)

    def append(self, array: Array) -> None:
        """Adds rows."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(array, self._dtype).data)
        self._num_rows += len(array)
        if array.ndim == 1 and len(array):
            self.last = array[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""
        return self._num_rows, *self._row

    def pieces(self) -> Iterator[Array]:
        """All rows, some at a time; at least one piece."""
        width = math.prod(self._row)
        if not width * self._num_rows:
            yield np.zeros(self.shape, self._dtype)
            return
        step = max(1, BLOCK // (width * self._dtype.itemsize)) * width
        with self._path.open("rb") as file:
            while len(piece := np.fromfile(file, self._dtype, step)):
                yield piece.reshape(-1, *self._row)
