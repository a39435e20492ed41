"""The choice between a clip's readers, behind one contract.

`read_clip` runs inside the sandbox process (`recsys.decode.sandbox`), so it imports no ray and no
torch. decord reads what it reads exactly and no slower; PyAV reads all the rest, and whatever
decord complained about. Both give the same pixels: the same scaling filter, the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recsys.decode import decord_reader, hardware, pyav_reader
from recsys.decode.contract import Clip, ClipSpec, Deadline, NotThisReader, ReadError, VideoFile


def read_clip(
    file: VideoFile, spec: ClipSpec, *, name: str = "video", decoder: hardware.Decoder = "cpu"
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
    with pyav_reader.Video(file, spec, name=name, deadline=deadline) as video:
        for read in _before_pyav(file, spec, video, decoder):
            try:
                return read()
            except NotThisReader as error:
                if spec.reader == "decord":
                    raise ReadError("unsupported_codec", str(error)) from None
        return video.read()


def _before_pyav(
    file: VideoFile, spec: ClipSpec, video: pyav_reader.Video, decoder: hardware.Decoder
) -> Iterator[Callable[[], Clip]]:
    if decoder == "decord_cuda" and spec.reader != "pyav":
        yield lambda: decord_reader.read(file, spec, video, device="cuda")
    if decoder == "torchcodec_cuda" and spec.reader == "auto":
        yield lambda: hardware.read_by_torchcodec(file, spec, video)
    if decord_reader.is_first(spec, video.facts):
        yield lambda: decord_reader.read(file, spec, video)
