"""Files that are seldom met: old codecs, raw streams, pictures, odd pixels, broken clocks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.decode.contract import Clip, ClipSpec
from tests.videos import numbered, numbers_of, quarters, render, spec

Read = Callable[[Path, ClipSpec], Clip]

KINDS = [
    ("a.avi", "mpeg4", "yuv420p"),
    ("b.avi", "msmpeg4v2", "yuv420p"),
    ("a.mov", "qtrle", "rgb24"),
    ("a.mkv", "ffv1", "gray16le"),
    ("b.mkv", "ffv1", "yuva420p"),
    ("a.flv", "flv", "yuv420p"),
    ("a.ts", "libx264", "yuv422p10le"),
    ("a.h264", "libx264", "yuv420p"),
    ("a.m4v", "mpeg4", "yuv420p"),
    ("a.mjpeg", "mjpeg", "yuvj420p"),
    ("a.apng", "apng", "rgba"),
    ("a.nut", "rawvideo", "gbrp16le"),
    ("a.y4m", "wrapped_avframe", "yuv444p"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), KINDS, ids=[kind[0] for kind in KINDS])
def test_seldom_kinds(name: str, codec: str, pix_fmt: str, read: Read, tmp_path: Path) -> None:
    path = numbered(tmp_path / name, codec=codec, pix_fmt=pix_fmt, options={"g": "10"})
    clip = read(path, spec())
    # Frames 3, 9, 15, 21; the one before where a container gives the last frame but one tick.
    numbers = numbers_of(clip.frames)
    assert [number - 6 * place for place, number in enumerate(numbers)] in ([3] * 4, [2] * 4)
    assert not clip.damaged, clip.message


@pytest.mark.parametrize("name", ["a.tga", "a.png", "a.bmp", "a.jpg"])
def test_a_picture_is_a_video_of_one_frame(name: str, read: Read, tmp_path: Path) -> None:
    codecs = {"tga": "targa", "jpg": "mjpeg"}
    kind = name.removeprefix("a.")
    pix_fmt = {"jpg": "yuvj444p", "bmp": "bgr24", "tga": "bgr24"}.get(kind, "rgb24")
    codec = codecs.get(kind, kind)
    path = render(tmp_path / name, [quarters()], codec=codec, pix_fmt=pix_fmt, options={})
    clip = read(path, spec())
    assert clip.times_s.tolist() == [0, 0, 0, 0]
    assert clip.frames[:, 2, 2].argmax(axis=1).tolist() == [0, 0, 0, 0]  # red at the top left


def test_a_clock_that_runs_mad_gives_a_damaged_clip(read: Read, tmp_path: Path) -> None:
    """24 frames an hour long each, in a file of a few kB: its clock is wrong, not its length."""
    path = numbered(tmp_path / "a.mkv", ticks=[360000 * number for number in range(24)])
    clip = read(path, spec())
    assert clip.damaged and "frame times" in clip.message
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert clip.duration_s == pytest.approx(24 / 25)
