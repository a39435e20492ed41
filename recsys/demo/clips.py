"""Short H.264 clips of one shape that moves: what the demo world's videos show.

A clip has an appearance (shape, colour and surface) and a motion. Opposite motions are the same
frames in opposite order, so whatever is computed frame by frame and then averaged cannot tell them
apart: only the order of the frames can. All else about a clip (place, size, speed, shade,
background, noise) varies at random and means nothing.

Shapes: S frames, H × W pixels (equal), C colours.
"""

from __future__ import annotations

import colorsys
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from recsys.demo.lettering import lettered

Floats = NDArray[np.float32]

APPEARANCES = (
    "plain red disc",
    "striped blue square",
    "plain yellow ring",
    "checkered green diamond",
    "plain white cross",
    "dotted purple triangle",
)
MOTIONS = ("right", "left", "down", "up")
"""Neighbours (0 and 1, 2 and 3) are the reverse of each other."""

_HUES = (0.99, 0.60, 0.14, 0.36, 0.0, 0.79)  # of each appearance, in turns of the colour wheel
_CHUNK = 12  # clips that a process renders before it reports


@dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """What all clips of a world have in common.

    Attributes:
        size: Height and width, in pixels; even, as yuv420p needs it.
        fps: Frames a second; a key frame comes every half second.
    """

    size: int = 160
    fps: int = 12


@dataclass(frozen=True, kw_only=True)
class SyntheticClip:
    """One clip to render.

    Attributes:
        path: Where the mp4 file goes.
        appearance: Index into `APPEARANCES`.
        motion: Index into `MOTIONS`.
        frames: S, the number of frames.
        seed: Of everything about it that means nothing.
        text: What stands below, in the letters that `lettering` has.
        hue: Of the background, in turns of the colour wheel; dim and any without it.
    """

    path: Path
    appearance: int
    motion: int
    frames: int
    seed: int
    text: str = ""
    hue: float | None = None


def render_frames(clip: SyntheticClip, *, size: int) -> NDArray[np.uint8]:
    """Paints the frames of a clip.

    Args:
        clip: What to paint; its path is not used.
        size: Height and width of a frame, in pixels.

    Returns:
        RGB frames, (S, H, W, 3) uint8.

    >>> right = SyntheticClip(path=Path(), appearance=0, motion=0, frames=6, seed=3)
    >>> left = SyntheticClip(path=Path(), appearance=0, motion=1, frames=6, seed=3)
    >>> bool((render_frames(right, size=32) == render_frames(left, size=32)[::-1]).all())
    True
    """
    generator = np.random.default_rng(clip.seed)
    vertical, backward = divmod(clip.motion, 2)
    radius = np.float32(generator.uniform(0.17, 0.24))
    x_SW, y_SH = _offsets(generator, frames=clip.frames, size=size, vertical=bool(vertical))
    x_SHW = np.broadcast_to(x_SW[:, None, :], (clip.frames, size, size))
    y_SHW = np.broadcast_to(y_SH[:, :, None], (clip.frames, size, size))
    inside_SHW = _outline(clip.appearance, x_SHW, y_SHW, radius)
    # One pixel of soft edge: without it a moving outline jumps.
    cover_SHW = np.clip(0.5 - inside_SHW * size, 0, 1)[..., None]
    surface_SHW = _surface(clip.appearance, x_SHW / radius, y_SHW / radius)
    light_SHW = 1 - 0.14 * (x_SHW + y_SHW) / radius  # it falls in from above, on the left
    background_HWC = _background(generator, size, clip.hue)
    shape_SHWC = (surface_SHW * light_SHW)[..., None] * _colour(clip.appearance, generator)
    grain_HWC = generator.normal(0, 0.01, background_HWC.shape).astype(np.float32)
    frames_SHWC = background_HWC + cover_SHW * (shape_SHWC - background_HWC) + grain_HWC
    if clip.text:
        frames_SHWC = lettered(frames_SHWC, clip.text)
    painted = (np.clip(frames_SHWC, 0, 1) * 255).round().astype(np.uint8)
    return painted[::-1] if backward else painted


def write_clip(clip: SyntheticClip, *, form: ClipFormat) -> None:
    """Renders a clip into an mp4 file (H.264, yuv420p); the same clip gives the same bytes."""
    with av.open(str(clip.path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=form.fps)
        stream.width = stream.height = form.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = max(1, form.fps // 2)
        stream.codec_context.thread_count = 1  # several threads need not give the same bytes
        stream.options = {"preset": "veryfast", "crf": "20", "bf": "0", "sc_threshold": "0"}
        for picture in render_frames(clip, size=form.size):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_clips(
    clips: Sequence[SyntheticClip],
    *,
    form: ClipFormat,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Renders many clips.

    Args:
        clips: What to render; their folders exist.
        form: Size and rate of all of them.
        processes: How many render at a time; few clips are rendered here, in this process.
        progress: Called with (clips done, clips in all).
    """
    chunks = [clips[i : i + _CHUNK] for i in range(0, len(clips), _CHUNK)]
    report = progress or (lambda done, total: None)
    done = 0
    if processes == 1 or len(chunks) <= 4:
        for chunk in chunks:
            done += _write_chunk(chunk, form)
            report(done, len(clips))
        return
    # spawn: a fork of a process that has Ray's or torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(chunks)), mp_context=context) as pool:
        for future in as_completed([pool.submit(_write_chunk, chunk, form) for chunk in chunks]):
            done += future.result()
            report(done, len(clips))


def _write_chunk(chunk: Sequence[SyntheticClip], form: ClipFormat) -> int:
    for clip in chunk:
        write_clip(clip, form=form)
    return len(chunk)


def _offsets(
    generator: np.random.Generator, *, frames: int, size: int, vertical: bool
) -> tuple[Floats, Floats]:
    """Distance of each pixel column (S, W) and row (S, H) from the shape's centre, in widths."""
    length = generator.uniform(0.54, 0.68)
    along_S = generator.uniform(0.14, 0.86 - length) + length * np.linspace(0, 1, frames)
    across_S = np.full(frames, generator.uniform(0.3, 0.7))
    centres = (across_S, along_S) if vertical else (along_S, across_S)
    pixels = (np.arange(size) + 0.5) / size
    x_SW, y_SH = ((pixels[None] - centre[:, None]).astype(np.float32) for centre in centres)
    return x_SW, y_SH


def _outline(appearance: int, x: Floats, y: Floats, radius: np.float32) -> Floats:
    """About how far a point lies outside the shape; negative inside."""
    across, down = np.abs(x), np.abs(y)
    if appearance == 0:
        return np.hypot(x, y) - radius
    if appearance == 1:
        return np.maximum(across, down) - radius * 0.85
    if appearance == 2:
        return np.abs(np.hypot(x, y) - radius * 0.75) - radius * 0.28
    if appearance == 3:
        return (across + down - radius * 1.2) * 0.7
    if appearance == 4:
        thin, long = np.minimum(across, down), np.maximum(across, down)
        return np.maximum(thin - radius * 0.3, long - radius)
    return np.maximum(across * 0.87 + y * 0.5, -y) - radius * 0.55


def _surface(appearance: int, x: Floats, y: Floats) -> Floats:
    """Brightness of the shape's surface at a point, in units of its radius."""
    if appearance == 1:
        return np.where(np.sin(x * 9) > 0, 1.0, 0.35).astype(np.float32)
    if appearance == 3:
        return np.where(np.sin(x * 7) * np.sin(y * 7) > 0, 1.0, 0.35).astype(np.float32)
    if appearance == 5:
        return np.where(np.cos(x * 10) + np.cos(y * 10) > 0.6, 0.35, 1.0).astype(np.float32)
    return np.ones_like(x)


def _colour(appearance: int, generator: np.random.Generator) -> Floats:
    hue = (_HUES[appearance] + generator.normal(0, 0.012)) % 1
    saturation = 0.05 if appearance == 4 else generator.uniform(0.75, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, generator.uniform(0.8, 1)), np.float32)


def _background(generator: np.random.Generator, size: int, hue: float | None) -> Floats:
    """A slope from one corner to another, (H, W, 3): dim and pale, or of a hue."""
    values = generator.uniform(0.08, 0.42, 2)
    ends = [
        colorsys.hsv_to_rgb(generator.random(), generator.uniform(0.1, 0.5), value)
        for value in values
    ]
    if hue is not None:
        ends = [colorsys.hsv_to_rgb(hue, 0.55, value + 0.2) for value in values]
    angle = generator.uniform(0, 2 * np.pi)
    line = np.linspace(-0.5, 0.5, size)
    slope = 0.5 + 0.7 * (np.cos(angle) * line[None, :] + np.sin(angle) * line[:, None])
    mix = np.clip(slope, 0, 1)[..., None]
    return (np.array(ends[0]) * (1 - mix) + np.array(ends[1]) * mix).astype(np.float32)
