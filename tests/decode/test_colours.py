"""Colour tags that are rare or reserved: players show such files, so they give clips."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from recsys.decode.contract import Clip, ClipSpec
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
