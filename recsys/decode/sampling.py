"""Which frames of a video become its clip, and how a frame becomes a square: arithmetic only.

Times are seconds from the first frame on; `starts_s` are the sorted start times of all N frames,
a frame is shown from its start to the next one's, the last one until `end_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.decode.clock import Doubts

Sampling = Literal["uniform", "keyframes", "auto"]
Fit = Literal["crop", "letterbox"]

TIE_S = 1e-6
"""A frame that starts this little after the time asked for is taken: sums of fractions differ."""

MAX_STRETCH = 16
"""Longest side of a resized frame, in target sizes, that is still resized whole before the cut."""


def uniform_indices(starts_s: NDArray[np.float64], end_s: float, num: int) -> NDArray[np.int64]:
    """The frames on show in the middle of each of `num` equal parts of the video.

    Part i of the span from the first start to `end_s` has its middle at (i + 0.5) / num of it; the
    frame on show there is the last one that starts no later. A video of fewer than `num` frames
    repeats some, and frames that stay on longer (variable frame rate) are taken more often.

    >>> uniform_indices(np.arange(8.0), 8.0, 4).tolist()
    [1, 3, 5, 7]
    >>> uniform_indices(np.array([0.0, 1.0, 2.0, 3.0, 10.0]), 20.0, 4).tolist()
    [2, 3, 4, 4]
    """
    middles = starts_s[0] + (np.arange(num) + 0.5) * ((end_s - starts_s[0]) / num)
    indices = np.searchsorted(starts_s, middles + TIE_S, side="right") - 1
    return np.clip(indices, 0, len(starts_s) - 1).astype(np.int64)


def keyframe_indices(key_indices: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """`num` key frames: entry floor((i + 0.5) · K / num) of the K there are, for i from 0 on.

    More than `num` are thinned evenly; fewer repeat, in time order.

    >>> keyframe_indices(np.array([0, 48, 96]), 6).tolist()
    [0, 0, 48, 48, 96, 96]
    >>> keyframe_indices(np.arange(8) * 10, 2).tolist()
    [20, 60]
    """
    picks = ((np.arange(num) + 0.5) * (len(key_indices) / num)).astype(np.int64)
    return key_indices[picks]


def within_budget(
    indices: NDArray[np.int64], key_indices: NDArray[np.int64], budget: int
) -> NDArray[np.int64]:
    """Moves frames towards their key frames until no more than about `budget` must be decoded.

    A frame at i needs all frames from the last key frame k ≤ i on, so a run between two key frames
    costs as many as its furthest frame lies from its start, plus one. Where the sum is over the
    budget, each distance i - k shrinks by the same share, rounded down; the key frames themselves
    are always decoded.

    >>> within_budget(np.array([50, 150, 250]), np.array([0, 100, 200]), 33).tolist()
    [10, 110, 210]
    """
    runs = np.clip(np.searchsorted(key_indices, indices, side="right") - 1, 0, None)
    keys = np.minimum(key_indices[runs], indices)
    distances = indices - keys
    furthest = np.zeros(len(key_indices), np.int64)
    np.maximum.at(furthest, runs, distances)
    free, cost = budget - len(np.unique(runs)), int(furthest.sum())
    if cost <= free:
        return indices
    return keys + distances * max(free, 0) // cost


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a video are on show: N sorted starts in seconds, and which are key.

    `doubts` says where the file's own times could not be taken.
    """

    starts_s: NDArray[np.float64]
    end_s: float
    key_indices: NDArray[np.int64]
    doubts: Doubts = Doubts()

    def at_steady_rate(self, step_s: float | None = None) -> FrameTimes:
        """The same frames, each on show for `step_s`, whatever their times say.

        Without `step_s` it is the median of the times that they are on show.
        """
        steps = np.diff(self.starts_s, append=self.end_s)
        step = float(np.median(steps)) if step_s is None else step_s
        starts_s = np.arange(len(steps), dtype=np.float64) * step
        return FrameTimes(starts_s, len(steps) * step, self.key_indices, self.doubts)

    def pick(self, num: int, sampling: Sampling, *, auto_max_frames: int) -> NDArray[np.int64]:
        """Indices of the `num` frames that a way of sampling takes, in time order.

        `auto` takes key frames where there are at least `num`, else it samples uniformly within
        `auto_max_frames` decoded frames. A file that marks no key frame is sampled uniformly.
        """
        num_keys = len(self.key_indices)
        if num_keys and (sampling == "keyframes" or (sampling == "auto" and num_keys >= num)):
            return keyframe_indices(self.key_indices, num)
        indices = uniform_indices(self.starts_s, self.end_s, num)
        if sampling == "auto" and num_keys:
            return within_budget(indices, self.key_indices, auto_max_frames)
        return indices


def decode_ranges(
    wanted: NDArray[np.int64], key_packets: NDArray[np.int64], ranks: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """The runs of packets that must be decoded to have the wanted frames.

    A frame needs every packet from the last key packet on. One that is shown before that key frame
    (a leading picture of an open group) needs the group before as well.

    Args:
        wanted: Places of the wanted frames' packets, in decoding order.
        key_packets: Sorted places of the key packets.
        ranks: (N,) how many frames are shown before each packet's own.

    Returns:
        Sorted (start, stop) that neither overlap nor touch.

    >>> keys, ranks = np.array([0, 10, 20, 30]), np.arange(40)
    >>> decode_ranges(np.array([3, 7, 12, 35]), keys, ranks)
    [(0, 8), (10, 13), (30, 36)]
    >>> ranks[[20, 21]] = [21, 20]  # packet 21 is shown before its key frame, 20
    >>> decode_ranges(np.array([21]), keys, ranks)
    [(10, 22)]
    """
    ranges: list[tuple[int, int]] = []
    for place in np.sort(wanted).tolist():
        run = int(np.searchsorted(key_packets, place, side="right")) - 1
        if run > 0 and ranks[place] < ranks[key_packets[run]]:
            run -= 1
        start = int(key_packets[run]) if run >= 0 else 0
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((start, place + 1))
    return ranges


@dataclass(frozen=True)
class Geometry:
    """How an upright `scale_width` × `scale_height` frame becomes `size` × `size`.

    `turns` are the quarter turns counterclockwise that make the coded frame upright. A positive
    `left` or `top` is cut away (crop), a negative one is black added (letterbox). `cut` is the part
    (width, height) of the coded frame's centre that is used at all, None for the whole.
    """

    size: int
    turns: int
    scale_width: int
    scale_height: int
    cut: tuple[int, int] | None = None

    @property
    def left(self) -> int:
        """Columns cut away (positive) or added (negative) on the left."""
        return _half(self.scale_width - self.size)

    @property
    def top(self) -> int:
        """Rows cut away (positive) or added (negative) at the top."""
        return _half(self.scale_height - self.size)

    @property
    def coded_scale(self) -> tuple[int, int]:
        """(width, height) after resizing and before the turns."""
        if self.turns % 2:
            return self.scale_height, self.scale_width
        return self.scale_width, self.scale_height

    def square(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cuts or pads upright, resized frames (…, scale_height, scale_width, 3) to the square."""
        top, left = max(self.top, 0), max(self.left, 0)
        inner = frames[..., top : top + self.size, left : left + self.size, :]
        if inner.shape[-3:-1] == (self.size, self.size):
            return np.ascontiguousarray(inner)
        out = np.zeros((*frames.shape[:-3], self.size, self.size, 3), np.uint8)
        top, left = max(-self.top, 0), max(-self.left, 0)
        height, width = inner.shape[-3:-1]
        out[..., top : top + height, left : left + width, :] = inner
        return out


def plan_geometry(
    coded: tuple[int, int], pixel_aspect: float, turns: int, *, size: int, fit: Fit
) -> Geometry:
    """The geometry of a coded frame.

    Args:
        coded: Width and height in the file, in pixels.
        pixel_aspect: Width of a pixel over its height (sample aspect ratio).
        turns: Quarter turns counterclockwise that make the frame upright.
        size: Height and width wanted.
        fit: `crop` brings the short side to `size`, `letterbox` the long one.

    >>> plan_geometry((640, 360), 1.0, 0, size=112, fit="crop").coded_scale
    (199, 112)
    >>> plan_geometry((720, 576), 16 / 15, 1, size=112, fit="letterbox").coded_scale
    (112, 84)
    """
    cut = None
    if fit == "crop":
        cut = _cut_of(coded, pixel_aspect)
    width, height = cut or coded
    shown_width, shown_height = width * pixel_aspect, float(height)
    if turns % 2:
        shown_width, shown_height = shown_height, shown_width
    sides = (shown_width, shown_height)
    scale = size / (min(sides) if fit == "crop" else max(sides))
    least = size if fit == "crop" else 1
    return Geometry(
        size=size,
        turns=turns % 4,
        scale_width=max(least, round(shown_width * scale)),
        scale_height=max(least, round(shown_height * scale)),
        cut=cut,
    )


def _cut_of(coded: tuple[int, int], pixel_aspect: float) -> tuple[int, int] | None:
    """For a very long and narrow frame its middle, or it would be resized to millions of pixels."""
    width, height = coded
    ratio = width * pixel_aspect / height
    if ratio > MAX_STRETCH:
        return max(1, round(height * MAX_STRETCH / pixel_aspect)), height
    if ratio < 1 / MAX_STRETCH:
        return width, max(1, round(width * pixel_aspect * MAX_STRETCH))
    return None


def _half(extra: int) -> int:
    """Half of `extra`, towards zero, so that cut and padding are symmetric."""
    return int(extra / 2)
