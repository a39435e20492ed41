"""The choice between a clip's readers, behind one contract.

`read_clip` runs inside the sandbox process (`recsys.decode.sandbox`), so it imports no ray and no
torch. decord reads what it reads exactly; PyAV reads all the rest, and whatever decord complained
about. Both give the same pixels: the same scaling filter, the same frames. Each clip says why it
was its reader that read it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

from recsys.decode import decord_reader, pyav_reader
from recsys.decode.contract import (
    FALLBACK,
    Clip,
    ClipSpec,
    Deadline,
    NotThisReader,
    ReadError,
    VideoFile,
)
from recsys.decode.hardware import nvdec, torchcodec_reader
from recsys.decode.hardware.choice import Decoder, is_asked, why_not_hardware


def read_clip(
    file: VideoFile, spec: ClipSpec, *, name: str = "video", decoder: Decoder = "cpu"
) -> Clip:
    """Reads the clip of a file: by hardware where there is any, by decord, by PyAV.

    Args:
        file: The file.
        spec: Which frames, and within which bounds.
        name: What the file is called; a last resort for formats without marks of their own.
        decoder: What this machine decodes with.

    Raises:
        ReadError: The file gives no clip, or breaks a limit of `spec`.
    """
    deadline = Deadline(spec.max_decode_s)
    with pyav_reader.OpenVideo(file, spec, name=name, deadline=deadline) as video:
        known = functools.partial(replace, has_captions=video.facts.has_captions)
        fallbacks: list[str] = []
        said: dict[str, str] = {}
        for reader, read, why in _before_pyav(video, decoder):
            try:
                return known(read(), why="; ".join([*fallbacks, why]), said=said)
            except NotThisReader as error:
                if reader == spec.reader:  # and no other is asked
                    raise ReadError("unsupported_codec", str(error)) from None
                fallbacks.append(f"{FALLBACK}{reader}: {error.reason}")
                if error.detail:
                    said[error.reason] = error.detail
        why = decord_reader.choice(spec, video.facts)[1]
        return known(video.read(), why="; ".join(fallbacks) or why, said=said)


def _before_pyav(
    video: pyav_reader.OpenVideo, decoder: Decoder
) -> Iterator[tuple[str, Callable[[], Clip], str]]:
    """Readers that are asked first: their names, how they read, and why they are asked."""
    if is_asked(decoder, video.spec.reader):
        read = functools.partial(_IN_HARDWARE[decoder], video)
        yield decoder, read, "the worker has a GPU"
    is_first, why = decord_reader.choice(video.spec, video.facts)
    if is_first:
        yield "decord", functools.partial(decord_reader.read, video), why


def _decord_on_gpu(video: pyav_reader.OpenVideo) -> Clip:
    """A clip by a decord that was built with CUDA."""
    refused = why_not_hardware(video.spec, video.facts)
    if refused:
        raise NotThisReader(refused)
    return decord_reader.read(video, device="cuda")


_IN_HARDWARE: dict[Decoder, Callable[[pyav_reader.OpenVideo], Clip]] = {
    "decord_cuda": _decord_on_gpu,
    "pynvvideocodec": nvdec.read_by_pynvvideocodec,
    "torchcodec_cuda": torchcodec_reader.read_by_torchcodec,
}
