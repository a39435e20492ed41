"""From a decoded frame to an upright square, by FFmpeg's own filters, before any copy is made."""

from __future__ import annotations

import math

import av
import numpy as np
from numpy.typing import NDArray

from recsys.decode.sampling import Fit, Geometry, plan_geometry

_KNOWN_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""RGB, BT.709, none said, FCC, BT.601 (two), SMPTE 240M, BT.2020; others are shown as if none was
said, as players do."""


class Resizer:
    """Makes squares of decoded frames; its filters are those that decord uses, pixel for pixel.

    Args:
        size: Height and width of the square.
        fit: How a frame that is not square is fitted.
        pixel_aspect: Width of a pixel over its height.
        orientation: Quarter turns counterclockwise that make a frame upright, and whether it is
            mirrored left to right first.
    """

    def __init__(self, size: int, *, fit: Fit, pixel_aspect: float, orientation: tuple[int, bool]):
        self._size = size
        self._fit = fit
        self._pixel_aspect = pixel_aspect
        self._turns, self._mirrored = orientation
        self._shape: tuple[object, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame as (S, S, 3) uint8 RGB.

        Raises:
            av.error.FFmpegError: The filters do not take the frame.
        """
        shape = (frame.width, frame.height, frame.format.name, frame.colorspace)
        if shape != self._shape:  # the size may change in mid-stream
            self._geometry = plan_geometry(
                (frame.width, frame.height),
                self._pixel_aspect,
                self._turns,
                size=self._size,
                fit=self._fit,
            )
            self._graph = _filters(frame, self._geometry)
            self._shape = shape
        self._graph.vpush(frame)
        image = self._graph.vpull().to_ndarray()
        if self._mirrored:
            image = image[:, ::-1]
        return self._geometry.square(np.rot90(image, self._turns))


def _filters(frame: av.VideoFrame, geometry: Geometry) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
    ]
    if geometry.cut:
        nodes.append(graph.add("crop", "{}:{}".format(*geometry.cut)))
    nodes.append(graph.add("setparams", _colours(frame)))
    nodes.append(graph.add("scale", "{}:{}".format(*geometry.coded_scale)))
    before = geometry.cut or (frame.width, frame.height)
    layout = rgb_layout(before, geometry.coded_scale)
    nodes += [graph.add("format", layout), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def rgb_layout(before: tuple[int, int], after: tuple[int, int]) -> str:
    """How RGB lies in memory when the scaler makes it, by FFmpeg's name.

    Where a width is odd the scaler makes each pixel's colours by themselves, and in planes many at
    a time: the same values in 0.6 × the time. Frames that keep their size it makes otherwise.

    Args:
        before: Width and height that are scaled.
        after: What they become.

    >>> rgb_layout((640, 360), (199, 112)), rgb_layout((640, 360), (112, 63))
    ('gbrp', 'rgb24')
    """
    return "gbrp" if after[0] % 2 and after != before else "rgb24"


def _colours(frame: av.VideoFrame) -> str:
    """What the scaler is told of a frame's colours: its matrix, where it has the formula for it.

    Transfer and primaries stay as they are in any case, but it refuses frames with rare ones.
    """
    told = "color_trc=unknown:color_primaries=unknown"
    return told if knows_matrix(frame) else f"{told}:colorspace=unknown"


def knows_matrix(frame: av.VideoFrame) -> bool:
    """Whether the scaler has the formula of a frame's colour matrix (ITU-T H.273, table 4)."""
    return int(frame.colorspace) in _KNOWN_MATRICES


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """(quarter turns counterclockwise, mirrored before) that make a frame upright.

    Of its display matrix, which turns the picture clockwise by atan2(b, a) in a plane whose y axis
    points down (ISO/IEC 14496-12, 6.2.2). Turns between quarters go to the nearest.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data
        return round(frame.rotation / 90) % 4, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.float64)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return -round(math.atan2(b, a) / (math.pi / 2)) % 4, mirrored
