"""Colour tags that are rare or reserved: players show such files, so they give clips."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from recsys.decode import scaling
from recsys.decode.contract import Clip, ClipSpec
from recsys.decode.scaling import Resizer
from tests.videos import quarters, render, spec

Read = Callable[[Path, ClipSpec], Clip]

MATRICES = (8, 10, 11, 12, 13, 14, 15)
CURVES = {
    "transfer_characteristics": (0, 3, 9, 10, 19, 40),
    "colour_primaries": (0, 3, 23, 40),
}


def _tagged(path: Path, tag: str, value: int) -> Path:
    """A coloured .ts with a tag in its H.264 stream."""
    plain = render(path.with_name(f"plain-{path.name}"), [quarters()] * 4, options={"bf": "0"})
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        given = old.streams.video[0]
        stream = new.add_stream_from_template(given)
        context = BitStreamFilterContext(f"h264_metadata={tag}={value}", given)
        for packet in [*old.demux(given), None]:
            for changed in context.filter(packet if packet is None or packet.size else None):
                changed.stream = stream
                new.mux(changed)
            if packet is not None and not packet.size:
                break
    return path


@pytest.mark.parametrize(
    ("tag", "value"), [(tag, value) for tag, values in CURVES.items() for value in values]
)
def test_transfer_and_primaries_change_no_pixel(
    tag: str, value: int, read: Read, tmp_path: Path
) -> None:
    usual = read(_tagged(tmp_path / "usual.ts", tag, 1), spec())
    clip = read(_tagged(tmp_path / "rare.ts", tag, value), spec())
    assert np.array_equal(clip.frames, usual.frames)
    assert (clip.damaged, clip.message) == (False, "")


@pytest.mark.parametrize("value", MATRICES)
def test_an_unknown_matrix_is_taken_for_the_usual_one(
    value: int, read: Read, tmp_path: Path
) -> None:
    usual = read(_tagged(tmp_path / "usual.ts", "matrix_coefficients", 2), spec())
    clip = read(_tagged(tmp_path / "rare.ts", "matrix_coefficients", value), spec())
    assert np.array_equal(clip.frames, usual.frames)
    assert not clip.damaged
    assert clip.message == f"colours: matrix {value} is taken for the usual one"


def _noise(width: int, height: int, pixels: str) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    frame = av.VideoFrame(width, height, pixels)
    frame.time_base = Fraction(1, 30)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le", "gray", "bgra"]
)
@pytest.mark.parametrize(
    ("coded", "size", "layout"),
    [
        ((640, 360), 112, "gbrp"),  # 199 × 112 before the cut
        ((199, 200), 112, "rgb24"),  # 112 × 113
        ((199, 112), 112, "rgb24"),  # it keeps its size
        ((30, 20), 41, "gbrp"),  # 61 × 41, larger than it was
        ((5, 3), 1, "rgb24"),
    ],
)
def test_planes_give_the_pixels_that_packed_rgb_gives(
    pixels: str,
    coded: tuple[int, int],
    size: int,
    layout: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scaler is asked for what it makes sooner where that makes no difference."""
    frame, layouts = _noise(*coded, pixels), list[str]()
    choose = scaling.rgb_layout

    def chosen(before: tuple[int, int], after: tuple[int, int]) -> str:
        layouts.append(choose(before, after))
        return layouts[-1]

    def image() -> NDArray[np.uint8]:
        return Resizer(size, fit="crop", pixel_aspect=1.0, orientation=(0, False))(frame)

    monkeypatch.setattr(scaling, "rgb_layout", chosen)
    given = image()
    monkeypatch.setattr(scaling, "rgb_layout", lambda *_: "rgb24")
    assert np.array_equal(given, image())
    assert layouts == [layout]
