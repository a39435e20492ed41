"""The second reader: PyAV, for everything that FFmpeg can read, damaged files among it.

It also looks at a file before decord does: container, size, turn, limits. FFmpeg gets the bytes
through Python and may open nothing else, so a playlist that calls itself a video leads nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from recsys.data.formats import FORMAT_WHITELIST, STILL_FORMATS
from recsys.data.readers import (
    ByteStream,
    Clip,
    ClipSpec,
    Deadline,
    ReadError,
    Timeline,
    VideoFile,
)
from recsys.data.sampling import Geometry, plan_geometry

_MAX_DEMUX_ERRORS = 64
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC


@dataclass(frozen=True)
class VideoFacts:
    """What a look at a file's head and first frame tells.

    `turns` are quarter turns counterclockwise that make a frame upright, after mirroring it left to
    right where `mirrored`.
    """

    format_name: str
    codec: str
    coded: tuple[int, int]
    pixel_aspect: float
    turns: int
    mirrored: bool
    duration_s: float | None


class Video:
    """An open file; `read` gives its clip.

    Raises:
        ReadError: On entering, where the file is no video or breaks a limit of `spec`.
    """

    def __init__(self, file: VideoFile, spec: ClipSpec, *, name: str, deadline: Deadline):
        self._file = file
        self._spec = spec
        self._name = name
        self._deadline = deadline
        self._errors: list[str] = []
        self._capture = av.logging.Capture(local=False)
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        self._logs = self._capture.__enter__()
        try:
            self._open()
            self.facts = self._look()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.__exit__(None, None, None)
        if self._container is not None:
            self._container.close()

    def _open(self) -> None:
        """Opens the file from its start; done again for every pass over it."""
        if self._container is not None:
            self._container.close()
        try:
            self._container = av.open(
                ByteStream(self._file, self._name),
                metadata_errors="replace",
                options={
                    "format_whitelist": FORMAT_WHITELIST,
                    "protocol_whitelist": "none",
                    "max_pixels": str(self._spec.max_pixels),
                },
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._opening_error(error) from None
        stream = self._container.streams.best("video")
        if stream is None:
            raise ReadError("no_video_stream", "the file holds no video stream")
        stream.codec_context.thread_count = 1
        self._stream = stream

    def _opening_error(self, error: Exception) -> ReadError:
        said = self._said() or str(error)
        if "not on whitelist" in said:
            return ReadError("unsupported_format", "FFmpeg takes it for a format not opened here")
        if isinstance(error, MemoryError):
            return ReadError("too_much_memory", said)
        return ReadError("not_video", said)

    def _look(self) -> VideoFacts:
        """Decodes up to the first frame, for the turn and the true size."""
        stream, still = self._stream, self._container.format.name in STILL_FORMATS
        if (still or stream.disposition.value & _ATTACHED_PICTURE) and not self._spec.still_images:
            raise ReadError("still_image", "a picture, not a video; decode.still_images takes it")
        duration_s = self._said_duration()
        if duration_s is not None and duration_s > self._spec.max_duration_s:
            limit = f"max_duration_s={self._spec.max_duration_s:g}"
            raise ReadError("too_long", f"{duration_s:.1f} s is over {limit}")
        frame = next(self._frames(), None)
        if frame is None:
            raise self._no_frames()
        self._errors.clear()  # the pass that reads the clip finds them again
        turns, mirrored = _orientation(frame)
        return VideoFacts(
            format_name=self._container.format.name,
            codec=stream.codec_context.name,
            coded=(frame.width, frame.height),
            pixel_aspect=float(stream.sample_aspect_ratio or 1) or 1.0,
            turns=turns,
            mirrored=mirrored,
            duration_s=duration_s,
        )

    def _no_frames(self) -> ReadError:
        said = self._said()
        if "max pixel count" in said:
            limit = f"max_pixels={self._spec.max_pixels}"
            return ReadError("too_many_pixels", f"{said} ({limit})")
        if "Cannot allocate memory" in said:
            return ReadError("too_much_memory", said)
        return ReadError("no_frames", said or "no frame could be decoded")

    def _said_duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base:
            return float(stream.duration * stream.time_base)
        if self._container.duration is not None:
            return float(self._container.duration) / 1e6
        return None

    def read(self) -> Clip:
        """The clip.

        Raises:
            ReadError: No frame can be decoded, or a limit is broken.
        """
        timeline = self._packet_timeline()
        if timeline is not None:
            clip = self._read_at(*timeline)
            if clip is not None:
                return clip
        timeline = self._frame_timeline()
        clip = self._read_at(*timeline)
        if clip is None:
            raise self._no_frames()
        return clip

    def _packet_timeline(self) -> tuple[Timeline, NDArray[np.int64]] | None:
        """The timeline by the packets' times, without decoding; None where they have none."""
        self._open()
        packets = [
            (packet.pts, packet.is_keyframe, packet.duration or 0)
            for packet in self._packets()
            if packet.size
        ]
        if not packets or any(pts is None for pts, _, _ in packets):
            return None
        return _timeline(packets, float(self._stream.time_base))

    def _frame_timeline(self) -> tuple[Timeline, NDArray[np.int64]]:
        """The timeline by all frames that decode."""
        self._open()
        frames = [(frame.pts, frame.key_frame, frame.duration or 0) for frame in self._frames()]
        if any(pts is None for pts, _, _ in frames) and frames:
            frames = [(index, key, 1) for index, (_, key, _) in enumerate(frames)]
        timeline = _timeline(frames, float(self._stream.time_base or 1)) if frames else None
        if timeline is None:
            raise self._no_frames()
        return timeline

    def _read_at(self, timeline: Timeline, ticks: NDArray[np.int64]) -> Clip | None:
        """Decodes the picked frames; None where one of them cannot be had."""
        indices = timeline.pick(self._spec)
        wanted = {int(tick) for tick in ticks[indices]}
        self._open()
        resize = Resizer(self._spec, self.facts)
        images: dict[int, NDArray[np.uint8]] = {}
        for frame in self._frames(wanted=wanted):
            if frame.pts in wanted:
                images[frame.pts] = resize(frame)
                if len(images) == len(wanted):
                    break
        if len(images) < len(wanted):
            return None
        said = self._said()
        return Clip(
            frames=np.stack([images[int(tick)] for tick in ticks[indices]]),
            times_s=timeline.starts_s[indices].astype(np.float32),
            duration_s=timeline.end_s,
            reader="pyav",
            damaged=bool(said),
            message=said,
        )

    def _packets(self) -> Iterator[Any]:
        """The video's packets; goes on behind an error as long as the container can."""
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _MAX_DEMUX_ERRORS:
            self._deadline.check()
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                failures += 1
                self._errors.append(f"{self._container.format.name}: {error.strerror or error}")
                packets = self._container.demux(self._stream)
                continue
            yield packet

    def _frames(self, wanted: set[int] | None = None) -> Iterator[Any]:
        """The frames that decode, in time order.

        With `wanted` (times in ticks) frames that no other frame needs are not decoded, unless
        they are wanted.
        """
        context = self._stream.codec_context
        for packet in self._packets():
            if wanted is not None:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, OSError) as error:
                self._errors.append(f"{context.name}: {error.strerror or error}")
                continue
            yield from frames

    def _said(self) -> str:
        """What the container and the video's decoder complained of, in one line."""
        names = {"IMGUTILS"}
        if self._container is not None:
            names.add(self._container.format.name)
        if self._stream is not None:
            names.add(self._stream.codec_context.name)
        everyone = self._stream is None
        lines = [
            f"{name}: {text.strip()}" for _, name, text in self._logs if everyone or name in names
        ]
        return "; ".join(dict.fromkeys([*lines, *self._errors]))[:500]


class Resizer:
    """Makes squares of decoded frames by FFmpeg's own filters, as decord does."""

    def __init__(self, spec: ClipSpec, facts: VideoFacts):
        self._spec = spec
        self._facts = facts
        self._shape: tuple[object, ...] = ()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """The frame as (S, S, 3) uint8 RGB, upright."""
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:  # the size may change in mid-stream
            self._shape = shape
            self._geometry = plan_geometry(
                (frame.width, frame.height),
                self._facts.pixel_aspect,
                self._facts.turns,
                size=self._spec.size,
                fit=self._spec.fit,
            )
            self._graph = _scaling_graph(frame, self._geometry)
        self._graph.vpush(frame)
        image = self._graph.vpull().to_ndarray()
        if self._facts.mirrored:
            image = image[:, ::-1]
        upright = np.rot90(image, self._geometry.turns)
        return np.ascontiguousarray(self._geometry.square(upright))


def _scaling_graph(frame: Any, geometry: Geometry) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
    ]
    if geometry.cut:
        width, height = geometry.cut
        nodes.append(graph.add("crop", f"{width}:{height}"))
    width, height = geometry.coded_scale
    nodes += [graph.add("scale", f"{width}:{height}"), graph.add("format", "rgb24")]
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def _timeline(
    entries: list[tuple[int, bool, int]], tick_s: float
) -> tuple[Timeline, NDArray[np.int64]] | None:
    """Of (time, is key, duration) in ticks; None where two frames have the same time."""
    entries = sorted(entries)
    ticks = np.array([pts for pts, _, _ in entries], np.int64)
    if (np.diff(ticks) <= 0).any():
        return None
    last = entries[-1][2] or (int(np.median(np.diff(ticks))) if len(ticks) > 1 else 1)
    keys = np.flatnonzero([key for _, key, _ in entries]).astype(np.int64)
    starts_s = (ticks - ticks[0]) * tick_s
    return Timeline(starts_s, float(starts_s[-1] + last * tick_s), keys), ticks


def _orientation(frame: Any) -> tuple[int, bool]:
    """(quarter turns counterclockwise, mirrored) of the frame's display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.float64)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    # The matrix turns the picture clockwise by atan2(b, a), in a plane whose y axis points down.
    clockwise = round(math.atan2(b, a) / (math.pi / 2)) if a or b else 0
    return -clockwise % 4, mirrored
