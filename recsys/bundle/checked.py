"""A folder of files that are what they were when they were written: sizes and sha256 beside it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from recsys.data.arrays import NumberT, write_pieces
from recsys.data.storage import exists, join, local_path, open_input, remove, replace_file
from recsys.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Facts = Mapping[str, Any]
"""`bytes` and `sha256` of a file."""
BLOCK = 1 << 20
"""Bytes of a file that are in memory at once while it is only checked."""


class CheckedWriter:
    """Writes files into a folder (path or URI) and remembers what they are."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files: dict[str, Facts] = {}

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; `name` may have folders in it."""
        with self._open(name) as file:
            file.write(data)

    def write_array(
        self, name: str, pieces: Iterable[npt.NDArray[NumberT]], *, shape: tuple[int, ...]
    ) -> None:
        """Writes a `.npy` file, which `CheckedReader.array` maps; it is never held as a whole.

        Args:
            name: With the ending.
            pieces: At least one, one after the other along the first axis, all of one type.
            shape: Of the whole.
        """
        with self._open(name) as file:
            write_pieces(pieces, cast(IO[bytes], file), shape=shape)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a Parquet file."""
        with self._open(name) as file:
            pq.write_table(table, pa.PythonFile(file, "w"), compression="zstd")

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes a safetensors file, by way of a temporary one: it is never held as a whole."""
        with tempfile.TemporaryDirectory(prefix="recsys-tensors-") as folder:
            place = os.path.join(folder, "tensors")
            safetensors.torch.save_file(dict(tensors), place)
            with open(place, "rb") as source, self._open(name) as file:
                shutil.copyfileobj(source, file, BLOCK)

    def write_mapped(self, name: str, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Writes an Arrow file, which `CheckedReader.mapped` maps; it is never held as a whole.

        Args:
            name: With the ending.
            parts: Rows that follow each other.
            schema: Of all parts.
        """
        with self._open(name) as file, pa.ipc.new_file(pa.PythonFile(file, "w"), schema) as sink:
            for part in parts:
                sink.write_table(part)

    def remove(self, name: str) -> None:
        """Takes back a file that it wrote."""
        del self.files[name]
        remove(join(self.folder, name))

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[_Hashed]:
        with replace_file(join(self.folder, name)) as file:
            hashed = _Hashed(file)
            yield hashed
        self.files[name] = hashed.facts()


class _Hashed(io.RawIOBase):
    """A file that knows what was written into it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self._digest, self._bytes = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Buffer) -> int:
        """Writes all of it."""
        self._digest.update(data)
        written = self._file.write(data)
        self._bytes += written
        return written

    def facts(self) -> Facts:
        """Of all that was written."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


class CheckedReader:
    """Reads files of a folder: the bytes that are checked are those that are used."""

    def __init__(self, folder: str, files: Mapping[str, Facts]) -> None:
        self._folder = folder
        self._files = files
        self._checked: set[str] = set()

    @property
    def names(self) -> Set[str]:
        """The files that the folder should have."""
        return self._files.keys()

    def path(self, name: str) -> str:
        """Where a file lies."""
        return join(self._folder, name)

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            InputError: It is missing, or is not what was written.
        """
        return b"".join(self._blocks(name, -1))

    def check(self, name: str) -> None:
        """Raises as `read` does; the file is never held as a whole."""
        for _ in self._blocks(name, BLOCK):
            pass

    def array(self, name: str, *, writable: bool = False) -> npt.NDArray[Any]:
        """An array of a `.npy` file, checked as in `read`.

        On this machine it is mapped, so that all processes share it: what was checked is what is
        used for as long as nobody writes to the file, and versions are never written to again.

        Args:
            name: With the ending.
            writable: Whether PyTorch, which warns of others, may have it. What is written stays in
                this process; so Linux refuses it for a file that is larger than the memory.
        """
        local = local_path(self.path(name))
        if local is None:
            return np.asarray(np.load(io.BytesIO(self.read(name)), allow_pickle=False))
        self.check(name)
        mode: Literal["c", "r"] = "c" if writable else "r"
        return np.asarray(np.load(local, mmap_mode=mode, allow_pickle=False))

    def mapped(self, name: str) -> pa.Table:
        """The table of an Arrow file, checked as in `read`, and on this machine mapped."""
        local = local_path(self.path(name))
        if local is None:
            return pa.ipc.open_file(pa.BufferReader(self.read(name))).read_all()
        self.check(name)
        return pa.ipc.open_file(pa.memory_map(local)).read_all()

    def table(self, name: str) -> pa.Table:
        """A Parquet file's content, checked as in `read`."""
        local = local_path(self.path(name))
        if local is None:
            return pq.read_table(pa.BufferReader(self.read(name)))
        self.check(name)
        with pq.ParquetFile(local, memory_map=True) as file:
            return file.read()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file, checked as in `read`, and on this machine mapped."""
        local = local_path(self.path(name))
        if local is None:
            return safetensors.torch.load(self.read(name))
        self.check(name)
        return safetensors.torch.load_file(local)

    def check_rest(self) -> None:
        """Checks the files that nothing was read from."""
        for name in self.names - self._checked:
            self.check(name)

    def _blocks(self, name: str, size: int) -> Iterator[bytes]:
        """A file's content, `size` bytes each, or all at once (-1); then it is checked."""
        path, digest, num_bytes = self.path(name), hashlib.sha256(), 0
        if name not in self._files:
            raise InputError(f"{path}: the manifest does not list this file; publish again")
        if not exists(path):
            raise InputError(f"{path}: the file is missing; copy the bundle again or publish again")
        try:
            with open_input(path) as file:
                while block := file.read(size):
                    digest.update(block)
                    num_bytes += len(block)
                    yield block
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        expected = self._files[name]
        if num_bytes != expected["bytes"]:
            raise InputError(
                f"{path}: {num_bytes} bytes, the manifest says {expected['bytes']}; copy it again"
            )
        if digest.hexdigest() != expected["sha256"]:
            raise InputError(f"{path}: sha256 is not the manifest's, the file was changed")
        self._checked.add(name)


def sync_folders(folder: str) -> None:
    """Makes the names of new files durable; object stores have no such step."""
    local = local_path(folder)
    if local is None:
        return
    for place, _, _ in os.walk(local):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
