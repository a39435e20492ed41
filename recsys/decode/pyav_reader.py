"""The second reader: PyAV, for everything that FFmpeg can read, damaged files among it.

It also looks at a file before decord does. A file is demuxed once; of its packets only those are
decoded that the sampled frames need. Where one of these frames does not come, or FFmpeg complains,
everything is decoded and the frames are sampled among those that there are.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from recsys.decode.captions import text_stream
from recsys.decode.containers import (
    FFMPEG_ERRORS,
    Complaints,
    can_last,
    check_duration,
    open_video,
    said_duration,
)
from recsys.decode.contract import (
    Clip,
    ClipSpec,
    Deadline,
    FileFacts,
    NotThisReader,
    ReadError,
    VideoFile,
)
from recsys.decode.packets import (
    WHOLE,
    ClockRules,
    PacketEntry,
    PacketList,
    Plan,
    by_rate,
    frame_times_of,
    steady_frame_times,
    without_wild,
)
from recsys.decode.sampling import FrameTimes, decode_ranges
from recsys.decode.scaling import Resizer, knows_matrix, orientation

INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers whose index has an entry for every packet."""
_MAX_DEMUX_ERRORS = 64
_DEFAULT_RATE = 25.0
_INTRA_ONLY = 1  # AV_CODEC_PROP_INTRA_ONLY
_CLOCK_JUMPS = 0x200  # AVFMT_TS_DISCONT
_PREDICTED = (2, 3, 4, 6, 7)  # AVPictureType: P, B, S and their likes
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_STARTS_INSIDE = "the file starts inside a group of frames"
_OUT_OF_MEMORY = ("Cannot allocate memory", "get_buffer() failed")


class OpenVideo:
    """An open file; `facts` says what it is, `read` gives its clip.

    Other readers take it for what is known of their file: `file`, `spec`, the frame times.

    Raises:
        ReadError: On entering, where the file is no video or breaks a limit of `spec`.
    """

    facts: FileFacts

    def __init__(self, file: VideoFile, spec: ClipSpec, *, name: str, deadline: Deadline):
        self.file = file
        self.spec = spec
        self._name = name
        self.deadline = deadline
        self._complaints = Complaints()
        self._notes: list[str] = []  # what we say of the file ourselves
        self._follows_edits = True
        self._container: av.container.InputContainer | None = None
        self._decoded_alone: tuple[av.VideoFrame, av.VideoCodecContext] | None = None

    def __enter__(self) -> Self:
        self._complaints.__enter__()
        try:
            self._packets = PacketList(self._demux)
            self._first = self._first_frame() or self._first_of_hidden()
            self.facts = self._look()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._complaints.__exit__()
        if self._container is not None:
            self._container.close()

    def _first_frame(self) -> av.VideoFrame | None:
        """The first frame: by the first key packet alone or, where that gives none, by all."""
        first_key = next((packet for packet in self._packets.head() if packet.is_keyframe), None)
        frame = first_key and self._alone(first_key, goes_on=True)
        return frame or next(self._frames(), None)

    def _first_of_hidden(self) -> av.VideoFrame:
        """The first frame of a file whose edit list shows none: it is wrong, and not followed.

        A muxer begins it at the first frame's time; where that one is wild, behind all others.
        """
        if self._packets.hides_all():
            self._follows_edits = False
            self._packets = PacketList(self._demux)
            frame = self._first_frame()
            if frame is not None:
                return frame
        raise self._no_frames()

    def _alone(self, packet: av.Packet, *, goes_on: bool = False) -> av.VideoFrame | None:
        """The first frame that a packet gives without any other.

        With `goes_on`, where the decoder gave it at once and so holds nothing back, it is kept for
        `_frames`, which decodes that packet no second time: what FFmpeg said of it must be heard.
        """
        context = self._stream.codec_context
        context.flush_buffers()
        frames = self._decode(packet)
        if goes_on and len(frames) == 1:
            self._decoded_alone = frames[0], context
            return frames[0]
        frames += self._decode(None)
        context.flush_buffers()
        self._decoded_alone = None
        return frames[0] if frames else None

    def _look(self) -> FileFacts:
        return FileFacts(
            format_name=self._stream.container.format.name,
            coded=(self._first.width, self._first.height),
            pixel_aspect=float(self._stream.sample_aspect_ratio or 1),
            orientation=orientation(self._first),
            reorders=bool(self._stream.codec_context.has_b_frames),
            duration_s=said_duration(self._stream.container, self._stream),
            codec=self._stream.codec_context.codec.canonical_name,
            pixel_format=self._first.format.name,
            matrix=int(self._first.colorspace),
            full_range=int(self._first.color_range) == _FULL_RANGE,
            has_captions=text_stream(self._stream.container) is not None,
        )

    def _no_frames(self) -> ReadError:
        said = self._complaints.text()
        if "max pixel count" in said:
            return ReadError("too_many_pixels", f"max_pixels={self.spec.max_pixels}: {said}")
        if any(text in said for text in _OUT_OF_MEMORY):
            return ReadError("too_much_memory", said)
        return ReadError("no_frames", said or "no frame could be decoded")

    def require_sound(self) -> None:
        """Refuses a file whose key frames are not what they seem, for a reader that hides that.

        Raises:
            NotThisReader: The file starts inside a group of frames, or marks frames as key that
                are not.
        """
        if self.starts_inside() or self.marks_doubt:
            raise NotThisReader(self.marks_doubt or _STARTS_INSIDE)

    def sound(self, frame_times: FrameTimes | None) -> FrameTimes:
        """The frame times, for a reader that cannot mend them.

        Raises:
            NotThisReader: There are none, or they must be mended, or reach too far.
        """
        if frame_times is None or frame_times.doubts:
            raise NotThisReader("the frame times are not usable as they are")
        if frame_times.end_s > self.spec.max_duration_s:
            raise NotThisReader("the frame times reach too far")
        return frame_times

    def frame_times(self) -> FrameTimes | None:
        """When the packets say that frames are on show; None where they do not say it.

        So where the edit list shows none, for other readers do follow it.
        """
        if not self._follows_edits:
            return None
        if self.facts.format_name in INDEXED and not self.facts.reorders:
            index = list(self._stream.index_entries)
            # In a fragmented file the index is that of the fragments read so far.
            if len(index) == self._stream.frames:
                steady = steady_frame_times(index, self._clock.tick_s)
                if steady is not None:
                    return steady
        plan = self.plan()
        return None if plan is None else plan.frame_times

    def plan(self) -> Plan | None:
        """What the packets alone say of all frames; None where they do not tell their order.

        So where the edit list shows none, for other readers do follow it.
        """
        return self._packets.frame_times(self._clock) if self._follows_edits else None

    def bitstream(
        self, places: Collection[int], ranks: NDArray[np.int64], name: str | None
    ) -> Iterator[tuple[int, bytes]]:
        """The packets that some frames need, for a decoder that knows no container.

        Args:
            places: Of the frames' packets.
            ranks: How many frames are shown before each packet's own.
            name: FFmpeg's filter that brings packets into the decoder's form; None leaves them.

        Yields:
            The place and the bytes of each packet, and no bytes at the end of a run.
        """
        keys = self._packets.key_places()
        ranges = decode_ranges(np.array(sorted(places), np.int64), keys, ranks)
        filtering = name and av.bitstream.BitStreamFilterContext(name, self._stream)
        for place, packet in self._packets.walk(ranges):
            self.deadline.check()
            if packet is None:
                yield place, b""
            elif filtering:
                given = filtering.filter(av.Packet(bytes(packet)))  # it would empty the packet
                yield place, b"".join(bytes(part) for part in given)
            else:
                yield place, bytes(packet)

    @functools.cached_property
    def marks_doubt(self) -> str:
        """Why the marks of key frames are not believed; empty where they are.

        A decoder makes something of a frame whose references are missing, often without a word.
        """
        if self._is_marked(self._first) and _is_predicted(self._first):
            return _STARTS_INSIDE
        head = self._packets.head()
        first, second = next(head, None), next(head, None)
        if first is None or second is None or not (first.is_keyframe and second.is_keyframe):
            return ""
        if self._stream.codec_context.codec.properties & _INTRA_ONLY:
            return ""
        # Where a writer did not care, all frames are marked.
        with self._complaints.unheard():
            frame = self._alone(second)
        return "" if frame and not _is_predicted(frame) else "frames are marked as key that are not"

    def _is_marked(self, frame: av.VideoFrame) -> bool:
        """Whether a decoded frame's packet is marked as key."""
        entries, place = self._packets.entries, frame.pts
        return place is not None and 0 <= place < len(entries) and entries[place].is_key

    def starts_inside(self) -> bool:
        """Whether the first frames have no key frame to start from."""
        entries = self._packets.entries  # of a large file no packet is kept, and the head is gone
        return bool(entries) and not entries[0].is_key

    @functools.cached_property
    def _clock(self) -> ClockRules:
        jumps = bool(self._stream.container.format.flags & _CLOCK_JUMPS)
        return ClockRules(float(self._stream.time_base or 1), jumps)

    def read(self) -> Clip:
        """The clip.

        Raises:
            ReadError: No frame can be decoded, or a limit is broken.
        """
        self._resize = Resizer(
            self.spec.size,
            fit=self.spec.fit,
            pixel_aspect=self.facts.pixel_aspect,
            orientation=self.facts.orientation,
        )
        clip = None if self.marks_doubt else self._read_by_packets()
        if clip is not None and not self._complaints.text():
            return clip
        self._notes.clear()
        try:
            return self._read_all()
        except ReadError:
            if clip is None:
                raise
            return clip

    def _read_by_packets(self) -> Clip | None:
        """Decodes no more than the sampled frames need; None where one of them does not come."""
        plan = self._packets.frame_times(self._clock)
        if plan is None:
            return None
        if plan.num_without_key:
            self._notes.append(f"{plan.num_without_key} frames before the first key frame")
        frame_times = self._steady(plan.frame_times)
        indices = self._pick(frame_times)
        places = plan.places[indices].tolist()
        wanted = set(places)
        images: dict[int, NDArray[np.uint8]] = {}
        if self._first.pts in wanted:
            self._keep(images, self._first.pts, self._first)
        left = wanted.difference(images)
        keys = self._packets.key_places()
        ranges = decode_ranges(np.array(sorted(left), np.int64), keys, plan.ranks)
        starts = {start for start, _ in ranges}
        for frame in self._frames(ranges, only=left):
            if frame.pts in starts and _is_predicted(frame):
                return None  # no key frame, whatever its mark says
            if frame.pts in left:
                self._keep(images, frame.pts, frame)
        if len(images) < len(wanted):
            return None
        return self._clip([images[place] for place in places], frame_times, indices)

    def _read_all(self) -> Clip:
        """Decodes everything, and samples the frames that there are."""
        self._packets.scan()
        given, num_wild = without_wild(self._packets.entries, self._clock)
        entries, predicted = [], []
        for frame in self._frames():
            entries.append(self._entry(frame, given))
            predicted.append(_is_predicted(frame))
        if not entries:
            raise self._no_frames()
        start = 0
        if not self._packets.hides_first():
            start = predicted.index(False) if False in predicted else 0
            if start or self.starts_inside() or all(predicted):
                self._notes.append("frames before the first key frame")
        entries = entries[start:]
        rate = float(self._stream.average_rate or 0) or _DEFAULT_RATE
        frame_times = frame_times_of(entries, self._clock) or by_rate(entries, rate)
        if num_wild:
            frame_times = replace(frame_times, doubts=frame_times.doubts.with_wild(num_wild))
        frame_times = self._steady(frame_times)
        indices = self._pick(frame_times)
        numbers = (indices + start).tolist()
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
        return self._clip([images[number] for number in near], frame_times, indices)

    def _entry(self, frame: av.VideoFrame, given: list[PacketEntry]) -> PacketEntry:
        """When a decoded frame is shown: as its packet says."""
        place, is_key = frame.pts, bool(frame.key_frame)
        if place is None or not 0 <= place < len(given):
            return PacketEntry(None, is_key, frame.duration or 0)
        return replace(given[place], is_key=is_key)

    def _steady(self, frame_times: FrameTimes) -> FrameTimes:
        """The frame times; at a steady rate where only broken frame times make it too long.

        Raises:
            ReadError: It is too long.
        """
        if frame_times.end_s <= self.spec.max_duration_s:
            return frame_times
        steady = frame_times.at_steady_rate()
        if can_last(steady.end_s, self.file.size):
            check_duration(steady.end_s, self.spec)
        else:
            steady = frame_times.at_steady_rate(1 / _DEFAULT_RATE)
        self._notes.append(f"frame times reach {frame_times.end_s:.0f} s")
        return steady

    def _pick(self, frame_times: FrameTimes) -> NDArray[np.int64]:
        spec = self.spec
        return frame_times.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)

    def _keep(self, images: dict[int, NDArray[np.uint8]], key: int, frame: av.VideoFrame) -> None:
        try:
            images[key] = self._resize(frame)
        except FFMPEG_ERRORS as error:
            self._complaints.add("scale", error)

    def _clip(
        self, squares: list[NDArray[np.uint8]], frame_times: FrameTimes, indices: NDArray[np.int64]
    ) -> Clip:
        damage = [*self._notes, self._missing(), self._complaints.text()]
        if not self._follows_edits:
            damage.append("the edit list shows no frame and is not followed")
        if frame_times.doubts.is_broken:
            damage.append(str(frame_times.doubts))
        said = "; ".join(filter(None, damage))
        return Clip(
            frames=np.stack(squares),
            times_s=frame_times.starts_s[indices].astype(np.float32),
            duration_s=frame_times.end_s,
            reader="pyav",
            damaged=bool(said),
            message=said or "; ".join(filter(None, [str(frame_times.doubts), self._colours()])),
        )

    def _missing(self) -> str:
        """How many frames an index tells of that are not there.

        FFmpeg takes out of it what an edit list cuts off; the head counts these too.
        """
        told = min(self._stream.frames, len(self._stream.index_entries))
        missing = told - len(self._packets.entries)
        if self.facts.format_name not in INDEXED or missing <= 0:
            return ""
        return f"the last {missing} frames are not there"

    def _colours(self) -> str:
        if knows_matrix(self._first):
            return ""
        return f"colours: matrix {int(self._first.colorspace)} is taken for the usual one"

    def _demux(self) -> Iterator[av.Packet]:
        """Opens the file and gives the video's packets, behind errors as far as it goes."""
        if self._container is not None:
            self._container.close()
        container, self._stream = open_video(
            self.file,
            self.spec,
            name=self._name,
            complaints=self._complaints,
            edits=self._follows_edits,
        )
        self._container = container
        failures = 0
        packets = container.demux(self._stream)
        while failures < _MAX_DEMUX_ERRORS:
            self.deadline.check()
            try:
                packet = next(packets, None)
            except FFMPEG_ERRORS as error:
                failures += 1
                self._complaints.add(container.format.name, error)
                packets = container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def _frames(
        self, ranges: Sequence[tuple[int, int]] = WHOLE, *, only: set[int] | None = None
    ) -> Iterator[av.VideoFrame]:
        """All frames that decode.

        With `only` (places of packets) other frames that no frame needs are not decoded.
        """
        for place, packet in self._packets.walk(ranges):
            context = self._stream.codec_context
            if self._decoded_alone is not None:
                (frame, decoder), self._decoded_alone = self._decoded_alone, None
                if decoder is context and frame.pts == place:
                    yield frame
                    continue
                context.flush_buffers()
            needed = only is None or place in only
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            yield from self._decode(packet)
            if packet is None:
                context.flush_buffers()

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that a packet sets free; None gives those still held back."""
        self.deadline.check()
        context = self._stream.codec_context
        try:
            return list(context.decode(packet))
        except FFMPEG_ERRORS as error:
            self._complaints.add(context.name, error)
            return []


def _is_predicted(frame: av.VideoFrame) -> bool:
    """Whether a decoder says that it made a frame from others."""
    return not frame.key_frame and int(frame.pict_type) in _PREDICTED
