"""Opening a video file by FFmpeg, so that it opens nothing else, and hearing what it says of it.

FFmpeg gets the bytes through Python, may open no address and no second file, and knows no playlist,
device or text format; a playlist that calls itself a video leads nowhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

import av

from recsys.decode.contract import ByteStream, ClipSpec, ReadError, VideoFile
from recsys.decode.formats import FORMAT_WHITELIST, NAMED_STILLS, STILL_BY_NAME, STILL_FORMATS

# What a damaged file makes FFmpeg raise; PyAV's errors are OSErrors or ValueErrors by their kind.
FFMPEG_ERRORS = (av.error.FFmpegError, OSError, ValueError)

_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_BUFFER_BYTES = 128 * 1024
_MAX_MESSAGE = 500
_LEAST_BYTES_PER_S = 500.0


class Complaints:
    """FFmpeg's error messages while a file is open, and errors that were caught."""

    def __init__(self) -> None:
        self._capture = av.logging.Capture(local=False)
        self._caught: list[str] = []
        self.sources: set[str] | None = None
        """The parts of FFmpeg that are listened to; None for all."""

    def __enter__(self) -> Self:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        self._logs = self._capture.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.__exit__(None, None, None)

    def forget(self) -> None:
        """Starts anew."""
        self._logs.clear()
        self._caught.clear()

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """What is said meanwhile does not count; for trials that may fail."""
        num_logs, num_caught = len(self._logs), len(self._caught)
        yield
        del self._logs[num_logs:]
        del self._caught[num_caught:]

    def add(self, source: str, error: Exception | str) -> None:
        """Notes an error that was caught."""
        self._caught.append(f"{source}: {getattr(error, 'strerror', None) or error}")

    def text(self) -> str:
        """All that was said, in one line; empty where nothing was."""
        lines = [
            f"{source}: {text.strip()}"
            for _, source, text in self._logs
            if self.sources is None or source in self.sources
        ]
        return "; ".join(dict.fromkeys([*lines, *self._caught]))[:_MAX_MESSAGE]


def open_video(
    file: VideoFile, spec: ClipSpec, *, name: str, complaints: Complaints, edits: bool = True
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Opens a file at its start.

    Args:
        file: The file.
        spec: Its limits are kept.
        name: What the file is called; FFmpeg looks at the ending where the bytes tell too little.
        complaints: Open; from now on listens to the container and the video's decoder only.
        edits: Whether the edit list of an MP4 is followed: which frames it shows, and when.

    Returns:
        PyAV's container and the best video stream.

    Raises:
        ReadError: It is no video or its head shows that it breaks a limit.
    """
    container = _open(file, spec, name, complaints, edits)
    try:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise _no_stream(container)
        complaints.sources = {"IMGUTILS", container.format.name, stream.codec_context.name}
        _check_head(container, stream, spec, file.size)
    except ReadError:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    return container, stream


def _open(
    file: VideoFile, spec: ClipSpec, name: str, complaints: Complaints, edits: bool
) -> av.container.InputContainer:
    # An ending may make it a format that is not opened; some pictures are known by nothing else.
    by_name = name.lower().endswith(NAMED_STILLS)
    other_way = (name, STILL_BY_NAME) if by_name else ("video", None)
    for known_as, format_name in ((name, None), other_way):
        try:
            return av.open(
                ByteStream(file, known_as),
                format=format_name,
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
                options={
                    "format_whitelist": FORMAT_WHITELIST,
                    "protocol_whitelist": "none",
                    "max_pixels": str(spec.max_pixels),
                    "ignore_editlist": str(int(not edits)),
                },
            )
        except FFMPEG_ERRORS as error:
            said = complaints.text() or str(error)
            if "not on whitelist" not in said:
                raise ReadError("not_video", said) from None
            complaints.forget()
    raise ReadError("unsupported_format", "FFmpeg takes it for a format that is not opened here")


def _no_stream(container: av.container.InputContainer) -> ReadError:
    if any(stream.type == "video" for stream in container.streams):
        return ReadError("unsupported_codec", "FFmpeg cannot tell or does not know the codec")
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    return ReadError("no_video_stream", f"the file holds no video, but {kinds}")


def _check_head(
    container: av.container.InputContainer, stream: av.VideoStream, spec: ClipSpec, file_bytes: int
) -> None:
    still = container.format.name in STILL_FORMATS
    still = still or bool(stream.disposition.value & _ATTACHED_PICTURE)
    if still and not spec.still_images:
        raise ReadError("still_image", "a picture, not a video; decode.still_images takes it")
    duration_s = said_duration(container, stream) or 0.0
    if can_last(duration_s, file_bytes):  # else the head is wrong, and the packets will tell
        check_duration(duration_s, spec)
    width, height = stream.width or 0, stream.height or 0
    if width * height > spec.max_pixels:
        raise ReadError("too_many_pixels", f"{width}x{height} is over max_pixels={spec.max_pixels}")


def can_last(duration_s: float, file_bytes: int) -> bool:
    """Whether a file is large enough for the length that it claims.

    >>> can_last(100000.0, 4 * 10**9), can_last(100000.0, 10**6)
    (True, False)
    """
    return duration_s * _LEAST_BYTES_PER_S < file_bytes


def check_duration(duration_s: float, spec: ClipSpec) -> None:
    """Raises ReadError("too_long") where a duration is over the limit."""
    if duration_s > spec.max_duration_s:
        limit = f"max_duration_s={spec.max_duration_s:g}"
        raise ReadError("too_long", f"{duration_s:.1f} s is over {limit}")


def said_duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """What the file's head says of its length in seconds; None where it is silent."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(container.duration) / 1e6
    return None
