"""Which of a GPU's decoders a process has, and which files it is given.

decord's own CUDA decoder comes first (its wheels have none, a build from source may), then NVIDIA's
PyNvVideoCodec, then torchcodec's CUDA build. What the hardware is not given, and what it cannot
read, goes on to the readers on the cores.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from recsys.decode.contract import ClipSpec, FileFacts, NotThisReader, Reader
from recsys.decode.sampling import Geometry, plan_geometry

Decoder = Literal["decord_cuda", "pynvvideocodec", "torchcodec_cuda", "cpu"]

HARDWARE_CODECS = frozenset(
    {"av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "vp8", "vp9"}
)
"""FFmpeg's names of what NVDEC reads; which of them a card has its driver says, file by file."""

HARDWARE_PIXELS = frozenset({"yuv420p", "yuvj420p"})
"""8 bits in 4:2:0: more bits, or more colour, only some cards read, each in its own way."""

_GPU_DEVICES = ("nvidia[0-9]*", "nvidia-caps/*", "nvidiactl", "dxg", "nvhost-gpu", "nvgpu/*/*")
"""Of any number, a slice of one (MIG), under a container's runtime, under WSL, and of a Jetson."""

_GPU_NAME = r"\d+|(GPU|MIG)-.+"


@dataclass(frozen=True)
class WorkerHas:
    """What a decoding process finds on its machine."""

    gpu: bool = False
    decord_cuda: bool = False
    pynvvideocodec: bool = False
    torchcodec_cuda: bool = False


def choose_decoder(has: WorkerHas) -> Decoder:
    """The best decoder of a worker.

    >>> choose_decoder(WorkerHas(gpu=True, decord_cuda=True, torchcodec_cuda=True))
    'decord_cuda'
    >>> choose_decoder(WorkerHas(gpu=True, pynvvideocodec=True, torchcodec_cuda=True))
    'pynvvideocodec'
    >>> choose_decoder(WorkerHas(gpu=True, torchcodec_cuda=True))
    'torchcodec_cuda'
    >>> choose_decoder(WorkerHas(gpu=False, torchcodec_cuda=True))
    'cpu'
    """
    if has.gpu and has.decord_cuda:
        return "decord_cuda"
    if has.gpu and has.pynvvideocodec:
        return "pynvvideocodec"
    if has.gpu and has.torchcodec_cuda:
        return "torchcodec_cuda"
    return "cpu"


def is_asked(decoder: Decoder, reader: Reader) -> bool:
    """Whether a decoder runs on a GPU and is asked where a config says `decode.reader`.

    >>> is_asked("decord_cuda", "decord"), is_asked("pynvvideocodec", "decord")
    (True, False)
    """
    if decoder == "decord_cuda":
        return reader != "pyav"
    return decoder != "cpu" and reader in ("auto", "fastest")


def why_not_hardware(spec: ClipSpec, facts: FileFacts) -> str:
    """Why a file is left to the cores, one of few reasons; empty where the hardware is given it."""
    if facts.codec not in HARDWARE_CODECS:
        return f"hardware reads no {facts.codec or 'unnamed codec'}"
    if facts.pixel_format not in HARDWARE_PIXELS:
        return f"hardware is given 8-bit 4:2:0 alone, not {facts.pixel_format}"
    if facts.coded[0] * facts.coded[1] < spec.hardware_pixels:
        return "small frames are quicker on a core"
    return ""


def require_plain(spec: ClipSpec, facts: FileFacts) -> Geometry:
    """How a file's frames are resized, where hardware is given the file.

    Decoders there hide what goes wrong, as decord does, so that only plain files are theirs.

    Raises:
        NotThisReader: It is not, and why.
    """
    refused = why_not_hardware(spec, facts)
    if refused:
        raise NotThisReader(refused)
    if facts.orientation != (0, False):
        raise NotThisReader("the frame must be turned")
    geometry = plan_geometry(facts.coded, facts.pixel_aspect, 0, size=spec.size, fit=spec.fit)
    if geometry.cut:
        raise NotThisReader("the frame is too long and narrow to resize whole")
    return geometry


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
        gpu=True,
        decord_cuda=_decord_has_cuda(),
        pynvvideocodec=_pynvvideocodec_works(),
        torchcodec_cuda=_torchcodec_has_cuda(),
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


def _pynvvideocodec_works() -> bool:
    if importlib.util.find_spec("PyNvVideoCodec") is None:
        return False
    try:
        import PyNvVideoCodec  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # the driver's libraries may be missing
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
