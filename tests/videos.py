"""Small videos for tests, rendered with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from recsys.config.data import DecodeConfig
from recsys.decode.clips import clip_spec
from recsys.decode.contract import ClipSpec

Picture = Callable[[int], NDArray[np.uint8]]


def gray(number: int, *, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A flat frame whose level, 8 × number, tells which one it is."""
    return np.full((height, width, 3), number * 8, np.uint8)


def quarters(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return image


def render(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    rotation: int = 0,
) -> Path:
    """Writes frames to a video; `ticks` are their times in 1/100 s, by default 10 a second."""
    options = {"g": "10", "crf": "10"} if options is None else options
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = pix_fmt, options
        stream.codec_context.time_base = Fraction(1, 100)
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = 10 * number if ticks is None else ticks[number]
            frame.time_base = Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(path: Path, num: int = 24, **settings: object) -> Path:
    """A video of flat frames 0, 1, …, of a level of 8 × number."""
    return render(path, [gray(number) for number in range(num)], **settings)  # type: ignore[arg-type]


def numbers_of(frames: NDArray[np.uint8]) -> list[int]:
    """Which frames of a `numbered` video these are."""
    levels = frames.reshape(len(frames), -1).mean(axis=1) / 8
    return [round(level) for level in levels.tolist()]


def spec(**settings: object) -> ClipSpec:
    """What is read of a video: 4 frames of 40 × 40, but for what is given.

    Hardware is given small frames too.
    """
    given = {"frames": 4, "size": 40, "hardware_pixels": 1, **settings}
    return clip_spec(DecodeConfig.model_validate(given))


def edited(
    source: Path, target: Path, change: Callable[[int, av.Packet], bool], **options: str
) -> Path:
    """Copies a video packet by packet; `change` may alter one, and says whether it is kept.

    `options` are those of the container that is written.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        given = old.streams.video[0]
        stream = new.add_stream_from_template(given)
        for place, packet in enumerate(packet for packet in old.demux(given) if packet.size):
            if change(place, packet):
                packet.stream = stream
                new.mux(packet)
    return target


@dataclass(frozen=True)
class TextTrack:
    """A text track of a video: cues as (start, duration, what the codec has of it), in ms."""

    codec: str
    cues: Iterable[tuple[int, int, bytes]]
    disposition: int = 0


def captioned(source: Path, target: Path, *tracks: TextTrack) -> Path:
    """Copies a video and adds text tracks."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        given = old.streams.video[0]
        video = new.add_stream_from_template(given)
        streams = [new.add_stream(track.codec) for track in tracks]
        for stream, track in zip(streams, tracks, strict=True):
            stream.codec_context.subtitle_header = b"[Script Info]\n"
            stream.disposition = track.disposition
        for packet in old.demux(given):
            if packet.size:
                packet.stream = video
                new.mux(packet)
        for stream, track in zip(streams, tracks, strict=True):
            for start, duration, text in track.cues:
                size = len(text).to_bytes(2, "big") if track.codec == "mov_text" else b""
                packet = av.Packet(size + text)
                packet.pts = packet.dts = start
                packet.duration, packet.time_base = duration, Fraction(1, 1000)
                packet.stream = stream
                new.mux(packet)
    return target
