"""Clips by torchcodec's CUDA build, behind the same contract as those on the cores.

Its frames are RGB already and are resized on the device, by another filter than FFmpeg's: their
pixels are near, not equal.

Shapes: N frames, H × W pixels as coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import Clip, NotThisReader, require_path
from recsys.decode.hardware.choice import require_plain
from recsys.decode.pyav_reader import OpenVideo
from recsys.decode.sampling import FrameTimes, Geometry

if TYPE_CHECKING:
    from torch import Tensor

_SAME_TIME_S = 2e-3  # Matroska's times are whole milliseconds
_FRAMES_AT_A_TIME = 16
"""Whole frames that lie on the device at a time: 0.4 GB of 4K."""


@dataclass(frozen=True)
class _Wanted:
    """What is to be read of a file that the hardware may read."""

    path: str
    frame_times: FrameTimes
    indices: NDArray[np.int64]
    geometry: Geometry

    def clip(self, frames: NDArray[np.uint8], reader: str) -> Clip:
        """The clip of the wanted frames, resized and in their order."""
        return Clip(
            frames=self.geometry.square(frames),
            times_s=self.frame_times.starts_s[self.indices].astype(np.float32),
            duration_s=self.frame_times.end_s,
            reader=reader,
        )


def read_by_torchcodec(video: OpenVideo, *, device: str = "cuda") -> Clip:
    """Reads a clip by torchcodec.

    Raises:
        NotThisReader: torchcodec cannot read it, or not exactly.
    """
    wanted = _wanted(video)
    try:
        frames = np.concatenate(list(_by_torchcodec(wanted, video, device)))
    except (ImportError, RuntimeError, ValueError, IndexError) as error:
        raise NotThisReader("torchcodec failed", _first_line(error)) from error
    return wanted.clip(frames, f"torchcodec_{device}")


def _by_torchcodec(wanted: _Wanted, video: OpenVideo, device: str) -> Iterator[NDArray[np.uint8]]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(wanted.path, device=device, num_ffmpeg_threads=1)
    for start in range(0, len(wanted.indices), _FRAMES_AT_A_TIME):
        video.deadline.check()
        some = wanted.indices[start : start + _FRAMES_AT_A_TIME]
        batch = decoder.get_frames_at(some.tolist())
        starts_s = batch.pts_seconds.numpy() - decoder.metadata.begin_stream_seconds
        if not np.allclose(starts_s, wanted.frame_times.starts_s[some], atol=_SAME_TIME_S):
            raise NotThisReader("torchcodec counts the frames in another way")
        yield _resize(batch.data, wanted.geometry)


def _wanted(video: OpenVideo) -> _Wanted:
    """What is to be read; raises NotThisReader for what the hardware is not given."""
    spec, geometry = video.spec, require_plain(video.spec, video.facts)
    path = require_path(video.file, "hardware")
    video.require_sound()
    frame_times = video.sound(video.frame_times())
    indices = frame_times.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)
    return _Wanted(path, frame_times, indices, geometry)


def _resize(frames_N3HW: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """(N, 3, H, W) uint8 on any device → (N, scale_height, scale_width, 3) uint8."""
    from torch.nn.functional import interpolate

    size = (geometry.scale_height, geometry.scale_width)
    small = interpolate(frames_N3HW.float(), size=size, mode="bicubic", antialias=True)
    pixels: NDArray[np.uint8] = small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
