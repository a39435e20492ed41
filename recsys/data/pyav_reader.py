"""The second reader: PyAV, for everything that FFmpeg can read, damaged files among it.

It also looks at a file before decord does: container, size, turn, limits. FFmpeg gets the bytes
through Python and may open nothing else, so a playlist that calls itself a video leads nowhere.

A file is demuxed once. Of its packets only those are decoded that the sampled frames need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from recsys.data.contract import (
    ByteStream,
    Clip,
    ClipSpec,
    Deadline,
    ReadError,
    VideoFacts,
    VideoFile,
)
from recsys.data.formats import FORMAT_WHITELIST, STILL_FORMATS
from recsys.data.packets import WHOLE, Entry, PacketList, by_rate, in_time_order
from recsys.data.sampling import Timeline, decode_ranges
from recsys.data.scaling import Resizer, orientation

_MAX_DEMUX_ERRORS = 64
_MAX_MESSAGE = 500
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_BUFFER_BYTES = 128 * 1024
_DEFAULT_RATE = 25.0

# What a damaged file makes FFmpeg raise; PyAV's errors are OSErrors or ValueErrors by their kind.
_ERRORS = (av.error.FFmpegError, OSError, ValueError)


class Video:
    """An open file; `facts` says what it is, `read` gives its clip.

    Raises:
        ReadError: On entering, where the file is no video or breaks a limit of `spec`.
    """

    facts: VideoFacts

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
            self._packets = PacketList(self._demux)
            self._first = self._first_frame()
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
        """Opens the file at its start."""
        if self._container is not None:
            self._container.close()
        try:
            self._container = av.open(
                ByteStream(self._file, self._name),
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
                options={
                    "format_whitelist": FORMAT_WHITELIST,
                    "protocol_whitelist": "none",
                    "max_pixels": str(self._spec.max_pixels),
                },
            )
        except _ERRORS as error:
            raise self._opening_error(error) from None
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            raise self._no_stream()
        self._check_head()
        self._stream.codec_context.thread_count = 1

    def _opening_error(self, error: Exception) -> ReadError:
        said = self._said() or str(error)
        if "not on whitelist" in said:
            return ReadError("unsupported_format", "FFmpeg takes it for a format not opened here")
        return ReadError("not_video", said)

    def _no_stream(self) -> ReadError:
        if any(stream.type == "video" for stream in self._container.streams):
            return ReadError("unsupported_codec", "FFmpeg has no decoder for the video's codec")
        return ReadError("no_video_stream", "the file holds no video stream")

    def _check_head(self) -> None:
        """Refuses what the file's own head shows to be over a limit."""
        still = self._container.format.name in STILL_FORMATS
        still = still or bool(self._stream.disposition.value & _ATTACHED_PICTURE)
        if still and not self._spec.still_images:
            raise ReadError("still_image", "a picture, not a video; decode.still_images takes it")
        duration_s = self._said_duration()
        if duration_s is not None:
            self._check_duration(duration_s)
        width, height = self._stream.width or 0, self._stream.height or 0
        if width * height > self._spec.max_pixels:
            limit = f"max_pixels={self._spec.max_pixels}"
            raise ReadError("too_many_pixels", f"{width}x{height} is over {limit}")

    def _check_duration(self, duration_s: float) -> None:
        if duration_s > self._spec.max_duration_s:
            limit = f"max_duration_s={self._spec.max_duration_s:g}"
            raise ReadError("too_long", f"{duration_s:.1f} s is over {limit}")

    def _said_duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base:
            return float(stream.duration * stream.time_base)
        if self._container.duration is not None:
            return float(self._container.duration) / 1e6
        return None

    def _first_frame(self) -> Any:
        """The first frame: by the first key packet alone or, where that gives none, by all."""
        first_key = next((packet for packet in self._packets.head() if packet.is_keyframe), None)
        frames: list[Any] = []
        if first_key is not None:
            frames = [*self._decode(first_key), *self._decode(None)]
            self._stream.codec_context.flush_buffers()
        frame = frames[0] if frames else next((frame for _, frame in self._frames()), None)
        if frame is None:
            raise self._no_frames()
        return frame

    def _look(self) -> VideoFacts:
        return VideoFacts(
            format_name=self._container.format.name,
            coded=(self._first.width, self._first.height),
            pixel_aspect=float(self._stream.sample_aspect_ratio or 1),
            orientation=orientation(self._first),
            reorders=bool(self._stream.codec_context.has_b_frames),
            duration_s=self._said_duration(),
        )

    def _no_frames(self) -> ReadError:
        said = self._said()
        if "max pixel count" in said:
            return ReadError("too_many_pixels", f"max_pixels={self._spec.max_pixels}: {said}")
        if "Cannot allocate memory" in said:
            return ReadError("too_much_memory", said)
        return ReadError("no_frames", said or "no frame could be decoded")

    def read(self) -> Clip:
        """The clip.

        Raises:
            ReadError: No frame can be decoded, or a limit is broken.
        """
        self._resize = Resizer(
            self._spec.size,
            fit=self._spec.fit,
            pixel_aspect=self.facts.pixel_aspect,
            orientation=self.facts.orientation,
        )
        clip = self._read_by_packets()
        if clip is not None and not clip.damaged:
            return clip
        try:
            return self._read_all()
        except ReadError:
            if clip is None:
                raise
            return clip

    def timeline(self) -> Timeline | None:
        """When the packets say that frames are on show; None where they do not say it."""
        planned = self._packets.timeline(self._tick_s())
        return planned and planned[0]

    def _tick_s(self) -> float:
        return float(self._stream.time_base or 1)

    def _read_by_packets(self) -> Clip | None:
        """Decodes no more than the sampled frames need; None where one of them does not come."""
        planned = self._packets.timeline(self._tick_s())
        if planned is None:
            return None
        timeline, places = planned
        indices = self._pick(timeline)
        ticks = self._packets.ticks()
        wanted = {int(ticks[place]): int(place) for place in places[indices].tolist()}
        images: dict[int, NDArray[np.uint8]] = {}
        if self._first.pts in wanted:
            self._keep(images, self._first.pts, self._first)
        left = [place for tick, place in wanted.items() if tick not in images]
        ranges = decode_ranges(np.array(left, np.int64), self._packets.key_places(), ticks)
        for _, frame in self._frames(ranges, only=set(left)):
            if frame.pts in wanted:
                self._keep(images, frame.pts, frame)
        if len(images) < len(wanted):
            return None
        squares = [images[int(ticks[place])] for place in places[indices].tolist()]
        return self._clip(squares, timeline, indices)

    def _read_all(self) -> Clip:
        """Decodes everything, and samples the frames that there are."""
        entries = [
            Entry(frame.pts, bool(frame.key_frame), frame.duration or 0)
            for _, frame in self._frames()
        ]
        if not entries:
            raise self._no_frames()
        rate = float(self._stream.average_rate or 0) or _DEFAULT_RATE
        timeline, order = in_time_order(entries, self._tick_s()) or by_rate(entries, rate)
        indices = self._pick(timeline)
        wanted = set(order[indices].tolist())
        images: dict[int, NDArray[np.uint8]] = {}
        for number, (_, frame) in enumerate(self._frames()):
            if number in wanted:
                self._keep(images, number, frame)
            if len(images) == len(wanted):
                break
        numbers = [number for number in order[indices].tolist() if number in images]
        if not numbers:
            raise self._no_frames()
        # A frame that the filters do not take is stood in for by the one before it.
        near = [
            max((n for n in images if n <= number), default=numbers[0])
            for number in order[indices].tolist()
        ]
        return self._clip([images[number] for number in near], timeline, indices)

    def _pick(self, timeline: Timeline) -> NDArray[np.int64]:
        self._check_duration(timeline.end_s)
        spec = self._spec
        return timeline.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)

    def _keep(self, images: dict[int, NDArray[np.uint8]], key: int, frame: Any) -> None:
        try:
            images[key] = self._resize(frame)
        except _ERRORS as error:
            self._errors.append(f"scale: {error}")

    def _clip(
        self, squares: list[NDArray[np.uint8]], timeline: Timeline, indices: NDArray[np.int64]
    ) -> Clip:
        said = self._said()
        return Clip(
            frames=np.stack(squares),
            times_s=timeline.starts_s[indices].astype(np.float32),
            duration_s=timeline.end_s,
            reader="pyav",
            damaged=bool(said),
            message=said,
        )

    def _demux(self) -> Iterator[Any]:
        """Opens the file and gives the video's packets, behind errors as far as it goes."""
        self._open()
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _MAX_DEMUX_ERRORS:
            self._deadline.check()
            try:
                packet = next(packets, None)
            except _ERRORS as error:
                failures += 1
                self._complain(self._container.format.name, error)
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def _frames(
        self, ranges: Any = WHOLE, *, only: set[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """(place of the packet that set it free, frame) of all frames that decode.

        With `only` (places of packets) other frames that no frame needs are not decoded.
        """
        for place, packet in self._packets.walk(ranges):
            context = self._stream.codec_context
            needed = only is None or place in only
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in self._decode(packet):
                yield place, frame
            if packet is None:
                context.flush_buffers()

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that a packet sets free; None gives those still held back."""
        self._deadline.check()
        context = self._stream.codec_context
        try:
            return list(context.decode(packet))
        except _ERRORS as error:
            self._complain(context.name, error)
            return []

    def _complain(self, name: str, error: Exception) -> None:
        self._errors.append(f"{name}: {getattr(error, 'strerror', None) or error}")

    def _said(self) -> str:
        """What the container and the video's decoder complained of, in one line."""
        lines = [f"{name}: {text.strip()}" for _, name, text in self._logs if self._ours(name)]
        return "; ".join(dict.fromkeys([*lines, *self._errors]))[:_MAX_MESSAGE]

    def _ours(self, name: str) -> bool:
        if self._stream is None:
            return True
        return name in ("IMGUTILS", self._container.format.name, self._stream.codec_context.name)
