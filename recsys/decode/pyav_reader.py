"""The second reader: PyAV, for everything that FFmpeg can read, damaged files among it.

It also looks at a file before decord does. A file is demuxed once; of its packets only those are
decoded that the sampled frames need. Where one of these frames does not come, or FFmpeg complains,
everything is decoded and the frames are sampled among those that there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.decode.containers import (
    FFMPEG_ERRORS,
    Complaints,
    can_last,
    check_duration,
    open_video,
    said_duration,
)
from recsys.decode.contract import Clip, ClipSpec, Deadline, ReadError, VideoFacts, VideoFile
from recsys.decode.packets import (
    WHOLE,
    Entry,
    PacketList,
    by_rate,
    in_time_order,
    steady_timeline,
)
from recsys.decode.sampling import Timeline, decode_ranges
from recsys.decode.scaling import Resizer, orientation

INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers whose index has an entry for every packet."""
_MAX_DEMUX_ERRORS = 64
_DEFAULT_RATE = 25.0
_OUT_OF_MEMORY = ("Cannot allocate memory", "get_buffer() failed")


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
        self._complaints = Complaints()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        self._complaints.__enter__()
        try:
            self._packets = PacketList(self._demux)
            self._first = self._first_frame()
            self.facts = self._look()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._complaints.__exit__()
        if self._container is not None:
            self._container.close()

    def _first_frame(self) -> Any:
        """The first frame: by the first key packet alone or, where that gives none, by all."""
        first_key = next((packet for packet in self._packets.head() if packet.is_keyframe), None)
        frames: list[Any] = []
        if first_key is not None:
            frames = [*self._decode(first_key), *self._decode(None)]
            self._stream.codec_context.flush_buffers()
        frame = frames[0] if frames else next(self._frames(), None)
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
            duration_s=said_duration(self._container, self._stream),
        )

    def _no_frames(self) -> ReadError:
        said = self._complaints.text()
        if "max pixel count" in said:
            return ReadError("too_many_pixels", f"max_pixels={self._spec.max_pixels}: {said}")
        if any(text in said for text in _OUT_OF_MEMORY):
            return ReadError("too_much_memory", said)
        return ReadError("no_frames", said or "no frame could be decoded")

    def timeline(self) -> Timeline | None:
        """When the packets say that frames are on show; None where they do not say it."""
        if self.facts.format_name in INDEXED and not self.facts.reorders:
            index = list(self._stream.index_entries)
            # In a fragmented file the index is that of the fragments read so far.
            if len(index) == self._stream.frames:
                steady = steady_timeline(index, self._tick_s())
                if steady is not None:
                    return steady
        planned = self._packets.timeline(self._tick_s())
        return planned and planned[0]

    def _tick_s(self) -> float:
        return float(self._stream.time_base or 1)

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

    def _read_by_packets(self) -> Clip | None:
        """Decodes no more than the sampled frames need; None where one of them does not come."""
        planned = self._packets.timeline(self._tick_s())
        if planned is None:
            return None
        timeline, places = self._steady(planned[0]), planned[1]
        indices = self._pick(timeline)
        ticks = self._packets.ticks()
        wanted = {int(ticks[place]): int(place) for place in places[indices].tolist()}
        images: dict[int, NDArray[np.uint8]] = {}
        if self._first.pts in wanted:
            self._keep(images, self._first.pts, self._first)
        left = [place for tick, place in wanted.items() if tick not in images]
        ranges = decode_ranges(np.array(left, np.int64), self._packets.key_places(), ticks)
        for frame in self._frames(ranges, only=set(left)):
            if frame.pts in wanted:
                self._keep(images, frame.pts, frame)
        if len(images) < len(wanted):
            return None
        squares = [images[int(ticks[place])] for place in places[indices].tolist()]
        return self._clip(squares, timeline, indices)

    def _read_all(self) -> Clip:
        """Decodes everything, and samples the frames that there are."""
        entries = [
            Entry(frame.pts, bool(frame.key_frame), frame.duration or 0) for frame in self._frames()
        ]
        if not entries:
            raise self._no_frames()
        rate = float(self._stream.average_rate or 0) or _DEFAULT_RATE
        timeline, order = in_time_order(entries, self._tick_s()) or by_rate(entries, rate)
        timeline = self._steady(timeline)
        indices = self._pick(timeline)
        numbers = order[indices].tolist()
        wanted = set(numbers)
        images: dict[int, NDArray[np.uint8]] = {}
        for number, frame in enumerate(self._frames()):
            if number in wanted:
                self._keep(images, number, frame)
            if len(images) == len(wanted):
                break
        if not images:
            raise self._no_frames()
        # A frame that the filters do not take is stood in for by the nearest that they do.
        near = [min(images, key=lambda kept: abs(kept - number)) for number in numbers]
        return self._clip([images[number] for number in near], timeline, indices)

    def _steady(self, timeline: Timeline) -> Timeline:
        """The timeline; at a steady rate where only broken frame times make it too long.

        Raises:
            ReadError: It is too long.
        """
        if timeline.end_s <= self._spec.max_duration_s:
            return timeline
        steady = timeline.at_steady_rate()
        if can_last(steady.end_s, self._file.size):
            check_duration(steady.end_s, self._spec)
        else:
            steady = timeline.at_steady_rate(1 / _DEFAULT_RATE)
        self._complaints.add("frame times", f"reach {timeline.end_s:.0f} s")
        return steady

    def _pick(self, timeline: Timeline) -> NDArray[np.int64]:
        spec = self._spec
        return timeline.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)

    def _keep(self, images: dict[int, NDArray[np.uint8]], key: int, frame: Any) -> None:
        try:
            images[key] = self._resize(frame)
        except FFMPEG_ERRORS as error:
            self._complaints.add("scale", error)

    def _clip(
        self, squares: list[NDArray[np.uint8]], timeline: Timeline, indices: NDArray[np.int64]
    ) -> Clip:
        said = self._complaints.text()
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
        if self._container is not None:
            self._container.close()
        self._container, self._stream = open_video(
            self._file, self._spec, name=self._name, complaints=self._complaints
        )
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _MAX_DEMUX_ERRORS:
            self._deadline.check()
            try:
                packet = next(packets, None)
            except FFMPEG_ERRORS as error:
                failures += 1
                self._complaints.add(self._container.format.name, error)
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def _frames(self, ranges: Any = WHOLE, *, only: set[int] | None = None) -> Iterator[Any]:
        """All frames that decode.

        With `only` (places of packets) other frames that no frame needs are not decoded.
        """
        for place, packet in self._packets.walk(ranges):
            context = self._stream.codec_context
            needed = only is None or place in only
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            yield from self._decode(packet)
            if packet is None:
                context.flush_buffers()

    def _decode(self, packet: Any) -> list[Any]:
        """The frames that a packet sets free; None gives those still held back."""
        self._deadline.check()
        context = self._stream.codec_context
        try:
            return list(context.decode(packet))
        except FFMPEG_ERRORS as error:
            self._complaints.add(context.name, error)
            return []
