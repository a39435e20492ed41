"""The picture that stands for a video."""

import io
from pathlib import Path

import av
import numpy as np

from recsys.config.data import DecodeConfig
from recsys.decode.clips import DecodeClips
from recsys.decode.poster import encode_webp, make_poster
from tests.videos import numbered

BLACK, BRIGHT = 0, 200


def striped(level: int) -> np.ndarray:
    """A picture whose left half has a level and whose right half is black."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = level
    return picture


def level_of(poster: bytes) -> int:
    with av.open(io.BytesIO(poster)) as file:
        assert file.streams.video[0].codec_context.name == "webp"
        (picture,) = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert picture.shape == (64, 64, 3)
    return int(picture[32, 8, 0])


def test_it_is_the_first_frame_that_shows_something() -> None:
    frames = np.stack([striped(BLACK), striped(BRIGHT), striped(120)])
    assert abs(level_of(make_poster(frames)) - BRIGHT) <= 3


def test_where_all_is_dark_it_is_the_frame_that_shows_most() -> None:
    # A half of level l has a standard deviation of l / 2: all below the 12 that shows something.
    frames = np.stack([striped(8), striped(20), striped(4)])
    assert abs(level_of(make_poster(frames)) - 20) <= 3


def test_the_same_picture_gives_the_same_bytes() -> None:
    assert encode_webp(striped(90)) == encode_webp(striped(90))


def test_a_clip_comes_with_a_poster_unless_none_is_wanted(tmp_path: Path) -> None:
    path = str(numbered(tmp_path / "a.mkv"))
    broken = tmp_path / "b.mp4"
    broken.write_text("no video")
    batch = {"uri": [path, str(broken)]}
    with_poster = DecodeClips(DecodeConfig(frames=2, size=32, poster_size=64))(batch)
    (poster, nothing) = with_poster.column("poster").to_pylist()
    assert poster[:4] == b"RIFF" and poster[8:12] == b"WEBP" and nothing is None
    without = DecodeClips(DecodeConfig(frames=2, size=32, poster_size=0))(batch)
    assert without.column("poster").to_pylist() == [None, None]
    assert without.column("frames").equals(with_poster.column("frames"))
