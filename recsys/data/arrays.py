"""Arrays in `.npy` files: written piece by piece, and mapped: the processes of a node share them.

A mapped array takes no memory of a process's own: the system reads the parts that are looked at and
keeps each once for all. A file on another filesystem cannot be mapped and is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt

from recsys.data.storage import local_path, open_input, replace_file
from recsys.errors import InputError

NumberT = TypeVar("NumberT", bound=np.number)


def open_array(path: str, dtype: type[NumberT]) -> npt.NDArray[NumberT]:
    """Opens an array for reading only: mapped where the file lies on this machine.

    Raises:
        InputError: There is no such file, or it holds numbers of another type.
    """
    local = local_path(path)
    with open_input(path) as file:
        array = np.load(file) if local is None else np.load(local, mmap_mode="r")
    if array.dtype != dtype:
        raise InputError(f"{path}: holds {array.dtype}, not {np.dtype(dtype)}; make it again")
    return np.asarray(array)


def write_array(
    pieces: Iterable[npt.NDArray[NumberT]], path: str, *, shape: tuple[int, ...], sync: bool = True
) -> None:
    """Writes an array that is never held as a whole.

    Args:
        pieces: One after the other along the first axis, all of one type.
        path: Path or URI of the file.
        shape: Of the whole.
        sync: As of `replace_file`.

    Raises:
        ValueError: The pieces together have another shape.
    """
    with replace_file(path, sync=sync) as file:
        write_pieces(pieces, file, shape=shape)


def write_pieces(
    pieces: Iterable[npt.NDArray[NumberT]], file: IO[bytes], *, shape: tuple[int, ...]
) -> None:
    """Writes an array into an open file, as `write_array` does."""
    rows, has_header = 0, False
    for piece in pieces:
        if not has_header:
            descr = np.lib.format.dtype_to_descr(piece.dtype)
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            has_header = True
        rows += len(piece)
        file.write(np.ascontiguousarray(piece).data)
    if rows != shape[0]:
        raise ValueError(f"{rows} rows were written of {shape[0]}")
