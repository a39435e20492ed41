"""The first reader: decord, for sound files in the common containers.

decord hides what goes wrong: it repeats frames that it cannot decode and writes FFmpeg's complaints
to stderr. So whatever appears on stderr while it works sends the file to the second reader, which
can tell what is damaged. In the sandbox process stderr is a file made for that.
"""

from __future__ import annotations

import os
import stat
from typing import Literal

import av  # noqa: F401 (before decord, or PyAV would run on decord's FFmpeg)
import decord
import numpy as np

from recsys.decode.contract import Clip, ClipSpec, NotThisReader, VideoFacts, VideoFile
from recsys.decode.pyav_reader import Video
from recsys.decode.sampling import plan_geometry

FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers that decord is given: it seeks exactly in them, and none opens another file."""

_ANY_FAILED_FRAME = 1e-9  # decord's fault_tol: the smallest share that is not "any number"


def read(
    file: VideoFile, spec: ClipSpec, video: Video, *, device: Literal["cpu", "cuda"] = "cpu"
) -> Clip:
    """Reads a clip by decord, at the frames that the packets' times say.

    Raises:
        NotThisReader: decord cannot read it, or not exactly.
    """
    facts = video.facts
    _check(file, facts)
    timeline = video.timeline()
    if timeline is None or timeline.end_s > spec.max_duration_s:
        raise NotThisReader("the packets' times are not usable")
    indices = timeline.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)
    decord.logging.set_level(decord.logging.ERROR)
    geometry = plan_geometry(facts.coded, facts.pixel_aspect, 0, size=spec.size, fit=spec.fit)
    if geometry.cut:
        raise NotThisReader("the frame is too long and narrow to resize whole")
    before = _stderr_size()
    try:
        reader = decord.VideoReader(
            f"file:{file.path}",
            decord.gpu(0) if device == "cuda" else decord.cpu(0),
            width=geometry.scale_width,
            height=geometry.scale_height,
            num_threads=1,
            fault_tol=_ANY_FAILED_FRAME,
        )
        if len(reader) != len(timeline.starts_s):
            raise NotThisReader("decord counts the frames in another way")
        frames = reader.get_batch(indices).asnumpy()
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError) as error:
        raise NotThisReader(f"decord: {error}") from error
    if _stderr_size() != before:
        raise NotThisReader("decord complained")
    return Clip(
        frames=geometry.square(frames),
        times_s=timeline.starts_s[indices].astype(np.float32),
        duration_s=timeline.end_s,
        reader="decord" if device == "cpu" else "decord_cuda",
    )


def is_first(spec: ClipSpec, facts: VideoFacts) -> bool:
    """Whether decord is asked before PyAV.

    decord decodes every frame between a key frame and a sampled one, PyAV leaves out those that no
    other frame needs. So decord comes first where there are none of these: no frame is shown in
    another order than decoded in, and it is not only key frames that are wanted.
    """
    if spec.reader == "auto":
        return spec.sampling != "keyframes" and not facts.reorders
    return spec.reader == "decord"


def _check(file: VideoFile, facts: VideoFacts) -> None:
    """Raises NotThisReader for what decord is known not to read, or not exactly."""
    if file.path is None:
        raise NotThisReader("decord reads local files only")
    if facts.format_name not in FORMATS:
        raise NotThisReader(f"decord is not given {facts.format_name} files")
    if facts.orientation != (0, False):
        raise NotThisReader("the frame must be turned")
    if facts.duration_s is None:
        raise NotThisReader("the file does not say how long it is")


def _stderr_size() -> int:
    """Bytes written to stderr so far where it is a file; 0 where it is a terminal or pipe."""
    status = os.fstat(2)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
