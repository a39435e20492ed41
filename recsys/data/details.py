"""What people are shown of each video, and no model sees: its title, its poster, its length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa

from recsys.data.storage import local_path
from recsys.schema import files_schema


@dataclass(frozen=True)
class Details:
    """What is shown of N videos, row 0 (unknown) among them."""

    table: pa.Table
    """(N,) of `details_schema`: what the user's own table says."""
    files: pa.Table
    """(N,) of `files_schema`: what decode saw of their files."""

    @classmethod
    def of(cls, table: pa.Table) -> Details:
        """Of videos whose files nobody has looked at."""
        nothing = [pa.nulls(len(table), kind) for kind in files_schema().types]
        return cls(table, pa.table(nothing, schema=files_schema()))

    def title(self, row: int) -> str | None:
        """What people call a video."""
        title: str | None = self.table.column("title")[row].as_py()
        return title

    def poster(self, row: int) -> str | None:
        """Path or URI of the picture that the user gave."""
        poster: str | None = self.table.column("poster")[row].as_py()
        return poster

    def duration_s(self, row: int) -> float | None:
        """Length of a video's file, in seconds."""
        duration: float | None = self.files.column("duration_s")[row].as_py()
        return None if duration is None or not math.isfinite(duration) else round(duration, 3)

    def has_picture(self, row: int) -> bool:
        """Whether decode made a picture of a video."""
        return bool(self.files.column("poster")[row].is_valid)

    def picture(self, row: int) -> bytes | None:
        """The picture that decode made of a video, a WebP file."""
        picture: bytes | None = self.files.column("poster")[row].as_py()
        return picture


def arrow_file(table: pa.Table) -> bytes:
    """A table as an Arrow file, which can be mapped into memory: few of many rows are asked for."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def open_arrow_file(path: str, data: bytes) -> pa.Table:
    """An Arrow file, mapped where it lies on this machine's disk; else of the bytes given."""
    place = local_path(path)
    source = pa.BufferReader(data) if place is None else pa.memory_map(place)
    return pa.ipc.open_file(source).read_all()
