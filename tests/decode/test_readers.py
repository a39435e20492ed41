"""Both readers behind one contract: the same frames, times and pixels."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from recsys.decode.contract import Clip, ClipSpec, ReadError
from recsys.decode.files import LocalFile
from recsys.decode.pyav_reader import OpenVideo
from recsys.decode.readers import read_clip
from tests.videos import edited, gray, numbered, numbers_of, quarters, render, spec

Read = Callable[[Path, ClipSpec], Clip]
BOTH = pytest.mark.parametrize("reader", ["decord", "pyav"])
ROUNDING = 4


@BOTH
@pytest.mark.parametrize("bframes", ["0", "3"])
def test_uniform(reader: str, bframes: str, read: Read, tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", options={"g": "10", "bf": bframes, "crf": "10"})
    clip = read(path, spec(reader=reader))
    # 24 frames of 0.1 s: the middles of four parts are 0.3, 0.9, 1.5, 2.1 s.
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert clip.times_s.tolist() == pytest.approx([0.3, 0.9, 1.5, 2.1])
    assert clip.duration_s == pytest.approx(2.4)
    assert (clip.reader, clip.damaged) == (reader, False)
    assert clip.frames.shape == (4, 40, 40, 3)
    assert clip.frames.dtype == np.uint8


@BOTH
@pytest.mark.parametrize(
    ("num", "expected"), [(2, [0, 20]), (3, [0, 10, 20]), (6, [0, 0, 10, 10, 20, 20])]
)
def test_keyframes(reader: str, num: int, expected: list[int], read: Read, tmp_path: Path) -> None:
    # Key frames at 0, 10 and 20; of two, entries 0.75 and 2.25 of three.
    clip = read(numbered(tmp_path / "a.mkv"), spec(reader=reader, sampling="keyframes", frames=num))
    assert numbers_of(clip.frames) == expected
    assert clip.times_s.tolist() == pytest.approx([number / 10 for number in expected])


@BOTH
def test_auto_keeps_to_its_budget(reader: str, read: Read, tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4")
    enough = read(path, spec(reader=reader, sampling="auto", frames=3))
    assert numbers_of(enough.frames) == [0, 10, 20]
    # Uniform is 3, 9 | 15 | 21: distances 3, 9, 5, 1 of runs that cost 9 + 5 + 1 = 15; 3 key frames
    # leave 9 - 3 = 6 of it: distances 3·6/15 = 1, 9·6/15 = 3, 5·6/15 = 2, 1·6/15 = 0.
    less = read(path, spec(reader=reader, sampling="auto", auto_max_frames=9))
    assert numbers_of(less.frames) == [1, 3, 12, 20]


@BOTH
def test_times_count_from_the_first_frame(reader: str, read: Read, tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mkv", ticks=[500 + 10 * number for number in range(24)])
    clip = read(path, spec(reader=reader))
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert clip.times_s.tolist() == pytest.approx([0.3, 0.9, 1.5, 2.1])


@BOTH
def test_a_variable_rate_is_sampled_by_time(reader: str, read: Read, tmp_path: Path) -> None:
    # Ten frames within 0.1 s, then four a second apart; the last lasts 0.1 s, so the end is 4.1 s.
    # Middles of five parts: 0.41, 1.23, 2.05, 2.87, 3.69 s.
    ticks = [*range(10), 100, 200, 300, 400]
    path = numbered(tmp_path / "a.mkv", num=14, ticks=ticks, options={"crf": "10", "bf": "0"})
    clip = read(path, spec(reader=reader, frames=5))
    assert numbers_of(clip.frames) == [9, 10, 11, 11, 12]
    assert clip.times_s.tolist() == pytest.approx([0.09, 1.0, 2.0, 2.0, 3.0])


@BOTH
def test_a_short_video_repeats_its_frames(reader: str, read: Read, tmp_path: Path) -> None:
    clip = read(numbered(tmp_path / "a.mp4", num=2), spec(reader=reader))
    assert numbers_of(clip.frames) == [0, 0, 1, 1]
    one = read(numbered(tmp_path / "b.mp4", num=1), spec(reader=reader))
    assert numbers_of(one.frames) == [0, 0, 0, 0]


@pytest.mark.parametrize("sampling", ["uniform", "keyframes"])
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "ending"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx264", "yuv444p", "mkv"),
        ("libx264", "yuv420p10le", "mp4"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg4", "yuv420p", "mp4"),
    ],
)
def test_both_give_the_same_pixels(
    sampling: str, fit: str, codec: str, pix_fmt: str, ending: str, read: Read, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 255, (12, 20, 3), np.uint8).repeat(5, 0).repeat(5, 1)
    pictures = [np.roll(noise, 3 * number, 1) for number in range(22)]
    path = render(
        tmp_path / f"a.{ending}", pictures, codec=codec, pix_fmt=pix_fmt, options={"g": "8"}
    )
    first, second = (
        read(path, spec(reader=reader, sampling=sampling, fit=fit)) for reader in ("decord", "pyav")
    )
    assert first.reader != second.reader
    difference = np.abs(first.frames.astype(int) - second.frames)
    assert difference.max() <= ROUNDING
    assert first.times_s.tolist() == second.times_s.tolist()
    assert first.duration_s == second.duration_s


@pytest.mark.parametrize(
    ("rotation", "corners"),
    [
        (0, ["red", "green", "blue", "white"]),
        (90, ["green", "white", "red", "blue"]),  # counterclockwise
        (180, ["white", "blue", "green", "red"]),
        (270, ["blue", "red", "white", "green"]),
    ],
)
def test_rotation_is_honoured(
    rotation: int, corners: list[str], read: Read, tmp_path: Path
) -> None:
    path = render(tmp_path / "a.mp4", [quarters(64, 64)] * 4, rotation=rotation)
    clip = read(path, spec())
    assert _corners(clip.frames[0]) == corners


@BOTH
def test_letterbox_and_pixel_aspect(reader: str, read: Read, tmp_path: Path) -> None:
    # 96 × 64 with pixels twice as wide as high is shown as 192 × 64: a third of the height.
    path = render(tmp_path / "a.mp4", [quarters()] * 3, pixel_aspect=Fraction(2))
    frame = read(path, spec(reader=reader, fit="letterbox", size=60)).frames[0]
    rows = np.flatnonzero(frame.max(axis=(1, 2)) > 64)
    assert (rows[0], rows[-1]) == (20, 39)
    # Cropped, the middle third is all that is left: both halves, no red further left than its edge.
    cropped = read(path, spec(reader=reader, size=60)).frames[0]
    assert _corners(cropped) == ["red", "green", "blue", "white"]


@BOTH
def test_odd_sizes(reader: str, read: Read, tmp_path: Path) -> None:
    path = render(tmp_path / "a.mkv", [quarters(97, 65)] * 3, codec="ffv1", pix_fmt="yuv444p")
    assert _corners(read(path, spec(reader=reader)).frames[0]) == ["red", "green", "blue", "white"]


def test_ribbons_give_a_clip(read: Read, tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4", [gray(9, width=2048, height=16)] * 3)
    assert numbers_of(read(path, spec(reader="auto")).frames) == [9] * 4


def test_a_size_that_changes_in_mid_stream(read: Read, tmp_path: Path) -> None:
    one = numbered(tmp_path / "a.h264", num=8, options={"bf": "0", "crf": "10"})
    two = render(
        tmp_path / "b.h264",
        [gray(number, width=120, height=120) for number in range(8, 16)],
        options={"bf": "0", "crf": "10"},
    )
    both = tmp_path / "both.h264"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    clip = read(both, spec(frames=8))
    assert numbers_of(clip.frames) == [1, 3, 5, 7, 9, 11, 13, 15]


WIDTHS = [*range(16, 131), 144, 160, 192, 199, 224]
"""FFmpeg pads rows to 16, 32 or 64 bytes; 16, 24, 32, 48 and 96 become a multiple of the width."""


def test_decord_reads_every_width(read: Read, tmp_path: Path) -> None:
    """Letterboxed, the long side is as asked for and the short one any width."""
    noise = np.random.default_rng(3).integers(0, 255, (13, 16, 3), np.uint8)
    pictures = [np.roll(noise, n, 1).repeat(16, 0).repeat(16, 1)[:200] for n in range(4)]
    path = render(tmp_path / "a.mp4", pictures, options={"bf": "0"})
    for size in WIDTHS:
        first = read(path, spec(size=size, frames=2, fit="letterbox", reader="decord"))
        second = read(path, spec(size=size, frames=2, fit="letterbox", reader="pyav"))
        difference = np.abs(first.frames.astype(int) - second.frames)
        assert (first.reader, difference.max()) <= ("decord", ROUNDING), size


@pytest.mark.parametrize("shape", [(48, 64), (360, 640), (65, 97)])
@pytest.mark.parametrize("size", [16, 32, 48, 96])
def test_decord_reads_padded_rows_of_any_source(
    size: int, shape: tuple[int, int], read: Read, tmp_path: Path
) -> None:
    picture = quarters(shape[1], shape[0])
    path = render(tmp_path / "a.mkv", [picture] * 2, codec="ffv1", pix_fmt="yuv444p", options={})
    for fit in ("crop", "letterbox"):
        first, second = (read(path, spec(size=size, fit=fit, reader=r)) for r in ("auto", "pyav"))
        assert first.reader == "decord", first.why
        assert np.abs(first.frames.astype(int) - second.frames).max() <= ROUNDING


def test_decord_comes_first_wherever_it_is_exact(read: Read, tmp_path: Path) -> None:
    plain = numbered(tmp_path / "a.mp4", options={"bf": "0"})
    reordered = numbered(tmp_path / "b.mp4", options={"bf": "3"})
    for path in (plain, reordered):
        clip = read(path, spec())
        assert (clip.reader, clip.why) == ("decord", "exact")
    clip = read(plain, spec(sampling="keyframes"))
    assert (clip.reader, clip.why) == ("pyav", "only key frames are wanted")


@pytest.mark.parametrize("bframes", ["0", "3"])
def test_the_fastest_reader_is_pyav(bframes: str, read: Read, tmp_path: Path) -> None:
    clip = read(numbered(tmp_path / "a.mp4", options={"bf": bframes}), spec(reader="fastest"))
    assert (clip.reader, clip.why) == (
        "pyav",
        "PyAV reads a file's packets once and leaves out frames that no other needs",
    )
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


def test_pyav_decodes_no_packet_twice_where_none_is_held_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The look at the first frame is the start of the first range; of 24 frames the last is 21."""
    path = numbered(tmp_path / "a.mp4", options={"bf": "0"})
    places, decode = list[int](), OpenVideo._decode

    def counted(video: OpenVideo, packet: av.Packet | None) -> list[av.VideoFrame]:
        if packet is not None:
            places.append(packet.pts)
        return decode(video, packet)

    monkeypatch.setattr(OpenVideo, "_decode", counted)
    clip = read_clip(LocalFile(str(path)), spec(reader="pyav"), name="a.mp4")
    assert places == list(range(22))
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


def test_what_decord_cannot_read_goes_to_pyav_and_says_why(read: Read, tmp_path: Path) -> None:
    clip = read(numbered(tmp_path / "a.flv", codec="flv"), spec())
    assert (clip.reader, clip.why) == ("pyav", "not decord: decord is not given flv files")
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    turned = read(render(tmp_path / "a.mp4", [quarters(64, 64)] * 4, rotation=90), spec())
    assert (turned.reader, turned.why) == ("pyav", "not decord: the frame must be turned")


def test_times_that_are_not_those_of_its_index_keep_decord_out(read: Read, tmp_path: Path) -> None:
    """Decoding times are steady, one time of showing is not: decord would sort by the latter."""
    source = numbered(tmp_path / "a.mp4", options={"g": "10", "bf": "0", "crf": "10"})

    def change(place: int, packet: av.Packet) -> bool:
        packet.pts += 20000 if place == 5 else 0
        return True

    clip = read(edited(source, tmp_path / "b.mp4", change), spec())
    assert clip.reader == "pyav" and clip.why.startswith("not decord: ")
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


@pytest.mark.parametrize("bframes", ["0", "3"])
def test_a_truncated_file_gives_the_frames_it_has(bframes: str, read: Read, tmp_path: Path) -> None:
    options = {"g": "10", "bf": bframes, "crf": "10"}
    whole = numbered(tmp_path / "a.mkv", options=options).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 4 // 5])
    clip = read(cut, spec())
    assert clip.damaged
    assert "prematurely" in clip.message
    assert 0 < clip.duration_s < 2.4
    assert numbers_of(clip.frames) == sorted(numbers_of(clip.frames))


def test_a_hole_in_the_middle_gives_a_damaged_clip(read: Read, tmp_path: Path) -> None:
    data = bytearray(numbered(tmp_path / "a.mp4", options={"g": "4", "bf": "0"}).read_bytes())
    start = data.index(b"mdat") + 4
    media = len(data) - start
    data[start + media // 4 : start + media // 2] = bytes(media // 2 - media // 4)
    broken = tmp_path / "b.mp4"
    broken.write_bytes(data)
    clip = read(broken, spec())
    assert (clip.damaged, clip.reader) == (True, "pyav")


def _corners(frame: np.ndarray) -> list[str]:
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    places = [(5, 5), (5, -6), (-6, 5), (-6, -6)]
    return [names[tuple((frame[place] > 127).astype(int).tolist())] for place in places]


REFUSED = [
    ("empty video", b"", "not_video"),
    ("text", b"this is no video\n" * 50, "not_video"),
    ("html", b"<!DOCTYPE html><html><body>404</body></html>", "not_video"),
    ("noise", bytes(np.random.default_rng(0).integers(0, 255, 5000, np.uint8)), "not_video"),
]


@pytest.mark.parametrize(("name", "data", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_no_video_is_refused(
    name: str, data: bytes, reason: str, read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(ReadError) as caught:
        read(path, spec())
    assert caught.value.reason == reason
    assert caught.value.message
