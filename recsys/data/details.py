"""What people are shown of each video, and no model sees: its title, its poster, its length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.schema import files_schema


@dataclass(frozen=True)
class Details:
    """What is shown of N videos, row 0 (unknown) among them."""

    table: pa.Table
    """(N,) of `details_schema`: what the user's own table says."""
    files: pa.Table
    """(N,) of `files_schema`: what decode saw of their files."""

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

    def duration_per_s(self, durations: npt.NDArray[np.float64]) -> float | None:
        """A second in the unit of a table's durations; None where no video has both.

        No setting says the unit. It is the median, over the videos, of the duration in the table
        over that of the file.

        Args:
            durations: (N,) of the user's own table, NaN where it says none.
        """
        seconds = np.asarray(self.files.column("duration_s").fill_null(np.nan), np.float64)
        known = (seconds > 0) & (durations > 0)
        return float(np.median(durations[known] / seconds[known])) if known.any() else None

    def has_picture(self, row: int) -> bool:
        """Whether decode made a picture of a video."""
        return bool(self.files.column("poster")[row].is_valid)

    def picture(self, row: int) -> bytes | None:
        """The picture that decode made of a video, a WebP file."""
        picture: bytes | None = self.files.column("poster")[row].as_py()
        return picture

    def has_captions(self, row: int) -> bool:
        """Whether a video's file has a text track of its own."""
        return bool(self.files.column("captions")[row].is_valid)

    def captions(self, row: int) -> bytes | None:
        """The text track of a video's file, as WebVTT."""
        captions: bytes | None = self.files.column("captions")[row].as_py()
        return captions


def unseen_files(num: int) -> pa.Table:
    """The table of `files_schema` of videos whose files nobody has looked at."""
    nothing = [pa.nulls(num, kind) for kind in files_schema().types]
    return pa.table(nothing, schema=files_schema())
