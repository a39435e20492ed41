"""Decoding on a GPU, where the worker has one that can, behind the same contract as the readers.

decord's own CUDA decoder comes first (its wheels have none, a build from source may), then
torchcodec's, then the CPU. What the hardware cannot read goes on to the CPU readers.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import Clip, ClipSpec, NotThisReader, VideoFile
from recsys.decode.pyav_reader import Video
from recsys.decode.sampling import Geometry, plan_geometry

if TYPE_CHECKING:
    from torch import Tensor

Decoder = Literal["decord_cuda", "torchcodec_cuda", "cpu"]

_GPU_DEVICES = ("nvidia[0-9]*", "nvidia-caps/*", "nvidiactl", "dxg", "nvhost-gpu", "nvgpu/*/*")
"""Of any number, a slice of one (MIG), under a container's runtime, under WSL, and of a Jetson."""

_GPU_NAME = r"\d+|(GPU|MIG)-.+"


@dataclass(frozen=True)
class WorkerHas:
    """What a decoding process finds on its machine."""

    gpu: bool = False
    decord_cuda: bool = False
    torchcodec_cuda: bool = False


def choose_decoder(has: WorkerHas) -> Decoder:
    """The best decoder of a worker.

    >>> choose_decoder(WorkerHas(gpu=True, decord_cuda=True, torchcodec_cuda=True))
    'decord_cuda'
    >>> choose_decoder(WorkerHas(gpu=True, torchcodec_cuda=True))
    'torchcodec_cuda'
    >>> choose_decoder(WorkerHas(gpu=False, torchcodec_cuda=True))
    'cpu'
    """
    if has.gpu and has.decord_cuda:
        return "decord_cuda"
    if has.gpu and has.torchcodec_cuda:
        return "torchcodec_cuda"
    return "cpu"


def look_around(
    environment: Mapping[str, str] | None = None, *, devices: str = "/dev"
) -> WorkerHas:
    """Looks for a GPU that this process may use, and for decoders that can.

    Neither torch nor torchcodec is imported where there is none.

    Args:
        environment: Variables that hide GPUs; without it those of this process.
        devices: Folder of the machine's devices.
    """
    if not may_use_cuda(os.environ if environment is None else environment, devices=devices):
        return WorkerHas()
    return WorkerHas(
        gpu=True, decord_cuda=_decord_has_cuda(), torchcodec_cuda=_torchcodec_has_cuda()
    )


def may_use_cuda(environment: Mapping[str, str], *, devices: str = "/dev") -> bool:
    """Whether the machine has a GPU of NVIDIA's that is not hidden from this process.

    An AMD GPU (`/dev/kfd`) is none of these: no decoder here can use it.

    >>> may_use_cuda({"CUDA_VISIBLE_DEVICES": "-1"})
    False
    """
    # CUDA takes the GPUs that are named before the first that there is not.
    first = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not re.fullmatch(_GPU_NAME, first):
        return False
    return any(glob.glob(os.path.join(glob.escape(devices), name)) for name in _GPU_DEVICES)


def _decord_has_cuda() -> bool:
    import decord

    try:
        decord.nd.empty((1,), ctx=decord.gpu(0))
    except decord.DECORDError:
        return False
    return True


def _torchcodec_has_cuda() -> bool:
    if importlib.util.find_spec("torchcodec") is None:
        return False
    try:
        import torch
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # its FFmpeg libraries may be missing
        return False
    return torch.version.cuda is not None and torch.cuda.is_available()


def read_by_torchcodec(
    file: VideoFile, spec: ClipSpec, video: Video, *, device: str = "cuda"
) -> Clip:
    """Reads a clip by torchcodec.

    Raises:
        NotThisReader: torchcodec cannot read it, or not exactly.
    """
    planned = video.timeline()
    if file.path is None or planned is None or video.facts.orientation != (0, False):
        raise NotThisReader("torchcodec is given upright local files with frame times")
    geometry = plan_geometry(
        video.facts.coded, video.facts.pixel_aspect, 0, size=spec.size, fit=spec.fit
    )
    if geometry.cut:
        raise NotThisReader("the frame is too long and narrow to resize whole")
    timeline = planned
    indices = timeline.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)
    try:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(file.path, device=device, num_ffmpeg_threads=1)
        batch = decoder.get_frames_at(indices.tolist())
    except (ImportError, RuntimeError, ValueError, IndexError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotThisReader("torchcodec failed", said[:200]) from error
    starts_s = batch.pts_seconds.numpy() - decoder.metadata.begin_stream_seconds
    if not np.allclose(starts_s, timeline.starts_s[indices], atol=1e-3):
        raise NotThisReader("torchcodec counts the frames in another way")
    return Clip(
        frames=geometry.square(_resize(batch.data, geometry)),
        times_s=timeline.starts_s[indices].astype(np.float32),
        duration_s=timeline.end_s,
        reader=f"torchcodec_{device}",
    )


def _resize(frames_NCHW: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """(N, 3, H, W) uint8 on any device → (N, scale_height, scale_width, 3) uint8."""
    from torch.nn.functional import interpolate

    size = (geometry.scale_height, geometry.scale_width)
    small = interpolate(frames_NCHW.float(), size=size, mode="bicubic", antialias=True)
    pixels: NDArray[np.uint8] = small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels
