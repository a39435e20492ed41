"""The first reader: decord, for sound files in the common containers.

decord hides what goes wrong: it repeats frames that it cannot decode, makes something of frames
whose references are missing, and writes FFmpeg's complaints to stderr. So it is not asked where a
look at the packets shows that they cannot be trusted, its count and times of the frames must be the
packets' own, and whatever appears on stderr while it works sends the file to the second reader,
which can tell what is damaged. In the sandbox process stderr is a file made for that.
"""

from __future__ import annotations

import os
import stat
from typing import Literal

import av  # noqa: F401 (before decord, or PyAV would run on decord's FFmpeg)
import decord
import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import (
    Clip,
    ClipSpec,
    Deadline,
    FileFacts,
    NotThisReader,
    require_path,
)
from recsys.decode.pyav_reader import OpenVideo
from recsys.decode.sampling import FrameTimes, Geometry, plan_geometry

FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers that decord is given: it seeks exactly in them, and none opens another file."""

_SAME_TIME_S = 2e-3  # Matroska's times are whole milliseconds
_ANY_FAILED_FRAME = 1e-9  # decord's fault_tol: the smallest share that is not "any number"


def read(video: OpenVideo, *, device: Literal["cpu", "cuda"] = "cpu") -> Clip:
    """Reads a clip by decord, at the frames that the packets' times say.

    Raises:
        NotThisReader: decord cannot read it, or not exactly.
    """
    spec, path = video.spec, require_path(video.file, "decord")
    _check(video)
    frame_times = video.sound(video.frame_times())
    indices = frame_times.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)
    coded, aspect = video.facts.coded, video.facts.pixel_aspect
    geometry = plan_geometry(coded, aspect, 0, size=spec.size, fit=spec.fit)
    if geometry.cut:
        raise NotThisReader("the frame is too long and narrow to resize whole")
    decord.logging.set_level(decord.logging.ERROR)
    before = _stderr_size()
    try:
        reader = decord.VideoReader(
            f"file:{path}",
            decord.gpu(0) if device == "cuda" else decord.cpu(0),
            width=geometry.scale_width,
            height=geometry.scale_height,
            num_threads=1,
            fault_tol=_ANY_FAILED_FRAME,
        )
        _check_times(reader, frame_times)
        frames = _frames(reader, indices, geometry, video.deadline)
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError) as error:
        raise NotThisReader("decord failed", _first_line(error)) from error
    if _stderr_size() != before:
        raise NotThisReader("decord complained of the file")
    return Clip(
        frames=geometry.square(frames),
        times_s=frame_times.starts_s[indices].astype(np.float32),
        duration_s=frame_times.end_s,
        reader="decord" if device == "cpu" else "decord_cuda",
    )


def _check_times(reader: decord.VideoReader, frame_times: FrameTimes) -> None:
    """Raises NotThisReader where decord's frames are not those of the packets."""
    num = len(frame_times.starts_s)
    if len(reader) != num:
        raise NotThisReader("decord counts the frames in another way")
    starts_s = reader.get_frame_timestamp(np.arange(num))[:, 0]
    if np.abs(starts_s - starts_s[0] - frame_times.starts_s).max() > _SAME_TIME_S:
        raise NotThisReader("decord has other frame times")


def _frames(
    reader: decord.VideoReader, indices: NDArray[np.int64], geometry: Geometry, deadline: Deadline
) -> NDArray[np.uint8]:
    """The frames at sorted indices, resized; (T, scale_height, scale_width, 3).

    FFmpeg pads the rows of a picture to 16, 32 or 64 bytes, as the CPU likes it, and decord takes
    what is in a row, over the width, for the number of colours: it gives six where a row of 32
    pixels is padded to 192 bytes, and its batches then fail ("from_size == to_size"). So each frame
    is asked for alone, and the padding is cut away.
    """
    height, width = geometry.scale_height, geometry.scale_width
    numbers, places = np.unique(indices, return_inverse=True)
    frames = []
    for number in numbers.tolist():
        deadline.check()
        rows = reader[number].asnumpy().reshape(height, -1)
        frames.append(rows[:, : 3 * width].reshape(height, width, 3))
    return np.stack(frames)[places]


def choice(spec: ClipSpec, facts: FileFacts) -> tuple[bool, str]:
    """Whether decord is asked before PyAV, and why.

    decord reads the whole file's packets once more, and decodes frames that no other needs. PyAV
    does neither, so that `fastest` asks it alone, and for key frames everybody does.
    """
    if spec.reader in ("decord", "pyav"):
        return spec.reader == "decord", f"decode.reader={spec.reader}"
    if spec.sampling == "keyframes":
        return False, "only key frames are wanted"
    if spec.reader == "fastest":
        return False, "PyAV reads a file's packets once and leaves out frames that no other needs"
    return True, "exact"


def _check(video: OpenVideo) -> None:
    """Raises NotThisReader for what decord is known not to read, or not exactly."""
    facts = video.facts
    if facts.format_name not in FORMATS:
        raise NotThisReader(f"decord is not given {facts.format_name} files")
    if facts.orientation != (0, False):
        raise NotThisReader("the frame must be turned")
    if facts.duration_s is None:
        raise NotThisReader("the file does not say how long it is")
    video.require_sound()


def _first_line(error: BaseException) -> str:
    """What decord's error says first, without the place in its source and the time of day."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rsplit("] ", 1)[-1].split(": ", 1)[-1][:200]


def _stderr_size() -> int:
    """Bytes written to stderr so far where it is a file; 0 where it is a terminal or pipe."""
    status = os.fstat(2)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
