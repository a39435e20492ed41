"""What becomes of a batch of videos: a row each, a clip or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.decode.contract import Clip

SAID = pa.map_(pa.string(), pa.string())
"""What readers that were asked before said of a file, and what its captions lack, by reason."""


@dataclass
class Row:
    """What became of a video: a clip, or a reason why there is none."""

    uri: str
    clip: Clip | None = None
    values: NDArray[np.number] | None = None
    """What is stored of the clip, flat: its frames, uint8, or their features, float16."""
    poster: bytes | None = None
    captions: bytes | None = None
    """Its own text track as WebVTT."""
    reason: str | None = None
    message: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    stamp: str | None = None
    decode_s: float = 0.0
    """Seconds that a decoding process was busy with it."""
    encode_s: float = 0.0
    """Its share of the seconds that the encoder was busy with its batch."""

    def keep(self, values: NDArray[np.number]) -> None:
        """Takes what is stored of the clip in the place of its frames."""
        assert self.clip is not None
        self.values, self.clip.frames = values.reshape(-1), self.clip.frames[:0]


def table_of(rows: Sequence[Row], *, frames: int, width: int, features: bool) -> pa.Table:
    """The rows as a table.

    Args:
        rows: In their order.
        frames: T of each clip.
        width: Numbers that are stored of each frame.
        features: Whether they are float16 features or the uint8 pixels themselves.
    """
    clips = [row.clip for row in rows]
    values = [row.values for row in rows]
    times = [clip.times_s if clip else None for clip in clips]
    dtype: np.dtype[np.number] = np.dtype(np.float16 if features else np.uint8)
    return pa.table(
        {
            "uri": _column(rows, "uri", pa.string()),
            "features" if features else "frames": fixed_lists(values, frames * width, dtype),
            "times_s": fixed_lists(times, frames, np.dtype(np.float32)),
            "duration_s": _column(clips, "duration_s", pa.float32()),
            "poster": _column(rows, "poster", pa.binary()),
            "captions": _column(rows, "captions", pa.large_binary()),
            "note": pa.array([clip and _note(clip) for clip in clips], pa.string()),
            "reader": _column(clips, "reader", pa.string()),
            "why": _column(clips, "why", pa.string()),
            "said": pa.array([clip and list(clip.said.items()) for clip in clips], SAID),
            "reason": _column(rows, "reason", pa.string()),
            "message": _column(rows, "message", pa.string()),
            "size_bytes": _column(rows, "size_bytes", pa.int64()),
            "sha256": _column(rows, "sha256", pa.string()),
            "stamp": _column(rows, "stamp", pa.string()),
            "decode_s": _column(rows, "decode_s", pa.float64()),
            "encode_s": _column(rows, "encode_s", pa.float64()),
        }
    )


def _note(clip: Clip) -> str:
    return "damaged" if clip.damaged else ""


def _column(things: Sequence[object], field: str, kind: pa.DataType) -> pa.Array:
    """One field of each thing, null where there is none."""
    return pa.array([None if thing is None else getattr(thing, field) for thing in things], kind)


def fixed_lists(
    rows: Sequence[NDArray[np.number] | None], width: int, dtype: np.dtype[np.number]
) -> pa.Array:
    """Rows of `width` numbers as fixed-size lists, null where there are none."""
    values = np.zeros((len(rows), width), dtype)
    for place, row in enumerate(rows):
        if row is not None:
            values[place] = row
    mask = pa.array([row is None for row in rows], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=mask)
