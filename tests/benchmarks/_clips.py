"""Clips for the decoding benchmarks: textures that move over each other, as H.264 in mp4.

With the noise of a camera's sensor, which makes them as heavy as filmed ones: some 5 Mbit/s, and
about 0.7 CPU seconds to decode the 300 frames of one.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

NOISE = 20


def make_clips(
    folder: Path, num: int, *, seconds: float = 10.0, scale: int = 1, **options: str
) -> list[Path]:
    """Renders `num` different 640 × 360 clips, 30 frames a second, a key frame every 2 s.

    `scale` makes them that many times as wide and high.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number:03d}.mp4" for number in range(num)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    make = functools.partial(_make, folder, round(seconds * 30), scale, options)
    if scale == 1 or len(missing) < 2:
        for number in missing:
            make(number)
        return paths
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # 0.1 s a frame of 720p
        list(pool.map(make, missing))
    return paths


def _make(folder: Path, num: int, scale: int, options: dict[str, str], number: int) -> None:
    path = folder / f"clip{number:03d}.mp4"
    aside = path.with_suffix(".part.mp4")
    _render(aside, np.random.default_rng(number), num, scale, options)
    aside.rename(path)


def spread(clips: list[Path], folder: Path, num: int) -> list[str]:
    """`num` videos: the clips under many names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"video{number:05d}.mp4" for number in range(num)]
    for number, name in enumerate(names):
        if not name.exists():
            os.link(clips[number % len(clips)], name)
    return [str(name) for name in names]


def _render(
    path: Path, rng: np.random.Generator, num: int, scale: int, options: dict[str, str]
) -> None:
    back, front = _texture(rng, 520, 900), _texture(rng, 120, 120)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640 * scale, 360 * scale, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {
            "g": "60",
            "keyint_min": "60",
            "sc_threshold": "0",
            "preset": "veryfast",
            **options,
        }
        for number in range(num):
            top, left = number % 150, 2 * number % 250
            image = back[top : top + 360, left : left + 640].copy()
            top, left = (5 * number) % 230, (3 * number + 80) % 500
            image[top : top + 120, left : left + 120] = front
            image = image.repeat(scale, 0).repeat(scale, 1)
            noisy = image + rng.integers(-NOISE, NOISE + 1, (*image.shape[:2], 1), np.int16)
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    """Colours at several scales, as surfaces have."""
    image = np.zeros((height, width, 3))
    for scale in (4, 16, 64):
        cells = rng.uniform(0, 255, (height // scale + 1, width // scale + 1, 3))
        image += cells.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    return (image / 3).astype(np.int16)
