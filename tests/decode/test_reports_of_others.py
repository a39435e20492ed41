"""Bug reports of other readers' users, tried here on files made for them (tests/README.md)."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from recsys.decode.contract import Clip, ClipSpec, ReadError
from tests.videos import edited, gray, numbered, numbers_of, render, spec

Read = Callable[[Path, ClipSpec], Clip]
ALL = list(range(24))


def test_decord_336_a_video_of_72_by_72(read: Read, tmp_path: Path) -> None:
    pictures = [gray(number, width=72, height=72) for number in ALL]
    path = render(tmp_path / "a.mp4", pictures, options={"bf": "0", "crf": "10"})
    for size in (72, 48, 24):
        clip = read(path, spec(frames=24, size=size))
        assert (clip.reader, numbers_of(clip.frames)) == ("decord", ALL)


def test_decord_91_a_vp8_webm_is_read_to_its_end(read: Read, tmp_path: Path) -> None:
    options = {"g": "100", "b": "2000000"}
    path = numbered(tmp_path / "a.webm", codec="libvpx", options=options)
    for reader in ("auto", "pyav"):
        assert numbers_of(read(path, spec(frames=24, reader=reader)).frames) == ALL
        assert numbers_of(read(path, spec(reader=reader)).frames) == [3, 9, 15, 21]


def test_decord_365_many_b_frames_come_in_order(read: Read, tmp_path: Path) -> None:
    options = {"bf": "8", "g": "24", "crf": "10", "x264-params": "b-adapt=0:b-pyramid=normal"}
    path = numbered(tmp_path / "a.mp4", options=options)
    for sampling in ("uniform", "auto"):
        clip = read(path, spec(frames=24, sampling=sampling))
        assert (clip.reader, numbers_of(clip.frames)) == ("decord", ALL)


def test_decord_373_a_file_that_counts_frames_it_does_not_have(read: Read, tmp_path: Path) -> None:
    """The head tells of 24 frames, the data end in the middle."""
    source = numbered(tmp_path / "a.mp4", options={"bf": "0", "g": "24", "crf": "10"})
    edited(source, tmp_path / "head.mp4", lambda *_: True, movflags="faststart")
    with av.open(str(tmp_path / "head.mp4")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = (tmp_path / "head.mp4").read_bytes()
    assert data.index(b"moov") < places[0] < places[14] < len(data)
    (tmp_path / "cut.mp4").write_bytes(data[: places[14]])
    clip = read(tmp_path / "cut.mp4", spec())
    assert (clip.damaged, clip.reader) == (True, "pyav")
    assert numbers_of(clip.frames) == [1, 5, 8, 12]  # 14 frames: the middles of four parts


@pytest.mark.parametrize("bframes", ["0", "2"])
def test_decord_124_and_torchcodec_1363_an_avi_without_times_of_showing(
    bframes: str, read: Read, tmp_path: Path
) -> None:
    options = {"g": "12", "bf": bframes, "b": "2000000"}
    path = numbered(tmp_path / "a.avi", codec="mpeg4", options=options)
    clip = read(path, spec())
    # FFmpeg gives the last frame a tick, and with B-frames the one before as well.
    assert numbers_of(clip.frames) == {"0": [2, 8, 14, 20], "2": [2, 8, 13, 19]}[bframes]
    assert (clip.reader, clip.damaged) == ("pyav", False)


def test_torchcodec_1502_a_hidden_key_frame_leads_the_shown_frames(
    read: Read, tmp_path: Path
) -> None:
    """An edit list hides the first three frames; those after them need the first."""
    source = numbered(tmp_path / "a.mp4", options={"g": "12", "bf": "0", "crf": "10"})

    def change(_: int, packet: av.Packet) -> bool:
        packet.pts -= round(0.3 / packet.time_base)
        packet.dts -= round(0.3 / packet.time_base)
        return True

    path = edited(source, tmp_path / "b.mp4", change, avoid_negative_ts="disabled")
    with av.open(str(path)) as container:
        hidden = [packet.is_discard for packet in container.demux(video=0) if packet.size]
    assert hidden[:4] == [True, True, True, False]
    for reader in ("auto", "pyav"):
        clip = read(path, spec(frames=21, reader=reader))
        assert numbers_of(clip.frames) == ALL[3:]
        assert not clip.damaged


def test_torchcodec_505_frames_behind_a_hole_are_not_lost(read: Read, tmp_path: Path) -> None:
    source = numbered(tmp_path / "a.mp4", options={"g": "4", "bf": "0", "crf": "10"})
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    data[places[9] : places[11]] = bytes(places[11] - places[9])
    (tmp_path / "b.mp4").write_bytes(data)
    clip = read(tmp_path / "b.mp4", spec())
    numbers = numbers_of(clip.frames)
    assert (numbers[0], numbers[-1], clip.damaged) == (3, 21, True)


def test_decord_299_what_is_no_video_is_not_printed(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"<html>" + b"not a video, but a page of a server that is tired. " * 40000)
    with pytest.raises(ReadError) as caught:
        read(path, spec())
    assert caught.value.reason == "not_video"
    assert len(caught.value.message) <= 500 and "tired" not in caught.value.message


@pytest.mark.parametrize(("matrix", "weights"), [(1, (0.2126, 0.0722)), (6, (0.299, 0.114))])
def test_pyav_2230_the_matrix_of_a_file_is_kept_to(
    matrix: int, weights: tuple[float, float], read: Read, tmp_path: Path
) -> None:
    """Y = 120, Cb = 90, Cr = 180 in limited range, by the formula of BT.709 or BT.601."""
    planes = np.concatenate([np.full((48, 64), 120), np.full((12, 64), 90), np.full((12, 64), 180)])
    frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8), format="yuv420p")
    frame.colorspace, frame.color_range, frame.pts = matrix, 1, 0
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    kr, kb = weights
    luma, blue, red = (120 - 16) / 219, (90 - 128) / 224, (180 - 128) / 224
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    # Green is what Y = kr R + kg G + kb B leaves.
    expected = [255 * r, 255 * (luma - kr * r - kb * b) / (1 - kr - kb), 255 * b]
    for reader in ("decord", "pyav"):
        pixel = read(path, spec(reader=reader)).frames[0, 20, 20]
        assert pixel.tolist() == pytest.approx(expected, abs=3)
