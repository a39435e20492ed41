"""The picture that stands for a video before it plays: one good frame, as WebP.

Shapes: S frames of a clip, H × W pixels (equal), C colours.
"""

from __future__ import annotations

import dataclasses

import av
import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import ClipSpec

CANDIDATES = 3
"""Key frames that are looked at: the first may be black, or a title."""
LEAST_CONTRAST = 12.0
"""Standard deviation of brightness from which on a frame shows something, of 255."""
QUALITY = "80"


def poster_spec(clip: ClipSpec, size: int) -> ClipSpec:
    """What is read for a poster: few key frames, since nothing must be decoded before them."""
    return dataclasses.replace(
        clip, frames=CANDIDATES, size=size, sampling="keyframes", fit="crop", reader="auto"
    )


def make_poster(frames_SHWC: NDArray[np.uint8]) -> bytes:
    """The first frame that shows something, or else the one that shows most, as a WebP file."""
    contrast_S = frames_SHWC[:, ::4, ::4].mean(-1).std((1, 2))  # a sixteenth of it tells as much
    shows = np.flatnonzero(contrast_S >= LEAST_CONTRAST)
    best = shows[0] if len(shows) else contrast_S.argmax()
    return encode_webp(frames_SHWC[best])


def encode_webp(picture_HWC: NDArray[np.uint8]) -> bytes:
    """An RGB picture as a WebP file; the same picture gives the same bytes."""
    height, width = picture_HWC.shape[:2]
    encoder = av.CodecContext.create("libwebp", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = 1  # of one picture, which PyAV wants to know
    encoder.options = {"quality": QUALITY, "compression_level": "2"}  # twice as fast, 5 % larger
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
    packets = [*encoder.encode(frame.reformat(format="yuv420p")), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
