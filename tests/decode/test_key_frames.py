"""Files whose first frames, or marks of key frames, lead nowhere: references are missing."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from recsys.decode import packets
from recsys.decode.contract import Clip, ClipSpec, Deadline, NotThisReader, ReadError
from recsys.decode.files import LocalFile
from recsys.decode.pyav_reader import OpenVideo
from tests.videos import edited, numbered, numbers_of, render, spec

Read = Callable[[Path, ClipSpec], Clip]
OPTIONS = {"g": "8", "bf": "0", "crf": "10", "sc_threshold": "0"}


def _without_start(source: Path, target: Path, num: int) -> Path:
    """A copy without the first `num` packets."""
    return edited(source, target, lambda place, _: place >= num)


def _all_key(path: Path) -> Path:
    """An MP4 loses its table of key frames, which says that all frames are."""
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))
    return path


def _moving(path: Path, codec: str) -> Path:
    """24 frames of noise that moves, which no decoder makes up; frame n is n steps on."""
    noise = np.random.default_rng(5).integers(0, 255, (12, 16, 3), np.uint8)
    noise = noise.repeat(8, 0).repeat(8, 1)
    pictures = [np.roll(noise, 4 * number, 1) for number in range(24)]
    options = {**OPTIONS, "b": "4000000"} if codec != "libx264" else OPTIONS
    return render(path, pictures, codec=codec, options=options)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("bframes", ["0", "2"])
def test_a_file_that_starts_inside_a_group(
    bframes: str, ending: str, read: Read, tmp_path: Path
) -> None:
    """The first key frame that is there is 8: 16 frames from there on, and each second of them."""
    source = numbered(tmp_path / f"a.{ending}", options={**OPTIONS, "bf": bframes})
    clip = read(_without_start(source, tmp_path / f"cut.{ending}", 3), spec(frames=8))
    assert numbers_of(clip.frames) == [9, 11, 13, 15, 17, 19, 21, 23]
    assert (clip.damaged, clip.reader) == (True, "pyav")
    assert "before the first key frame" in clip.message
    assert clip.why.startswith("not decord")


def test_a_large_file_that_starts_inside_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packets are not kept, and its start is known all the same."""
    source = numbered(tmp_path / "a.mkv", options=OPTIONS)
    file = LocalFile(str(_without_start(source, tmp_path / "cut.mkv", 3)))
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 1)
    with OpenVideo(file, spec(), name="a.mkv", deadline=Deadline(60)) as video:
        assert video.plan() is not None  # all packets have been read
        with pytest.raises(NotThisReader, match="starts inside a group of frames"):
            video.require_sound()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_cut_file_that_marks_all_frames_as_key(codec: str, read: Read, tmp_path: Path) -> None:
    source = _moving(tmp_path / "a.mp4", codec)
    whole = read(source, spec(frames=24))
    cut = _without_start(source, tmp_path / "cut.mp4", 3)
    clip = read(_all_key(cut), spec(frames=16))
    assert (clip.damaged, clip.reader) == (True, "pyav")
    difference = np.abs(clip.frames.astype(int) - whole.frames[8:]).mean(axis=(1, 2, 3))
    assert difference.max() < 2


@pytest.mark.parametrize(("codec", "reader"), [("libx264", "decord"), ("mpeg4", "pyav")])
def test_a_whole_file_that_marks_all_frames_as_key(
    codec: str, reader: str, read: Read, tmp_path: Path
) -> None:
    """FFmpeg looks into H.264's packets itself and corrects their marks."""
    source = _moving(tmp_path / "a.mp4", codec)
    whole = read(source, spec())
    clip = read(_all_key(source), spec())
    assert np.abs(clip.frames.astype(int) - whole.frames).max() <= 4
    assert (clip.damaged, clip.reader) == (False, reader)
    assert reader == "decord" or clip.why == "not decord: frames are marked as key that are not"


def test_a_file_of_key_frames_alone_is_read_by_decord(read: Read, tmp_path: Path) -> None:
    clip = read(numbered(tmp_path / "a.mp4", options={"g": "1", "crf": "10"}), spec())
    assert (clip.reader, numbers_of(clip.frames)) == ("decord", [3, 9, 15, 21])


def test_a_file_without_any_key_frame(read: Read, tmp_path: Path) -> None:
    source = numbered(tmp_path / "a.mkv", num=8, options=OPTIONS)
    with pytest.raises(ReadError) as caught:
        read(_without_start(source, tmp_path / "cut.mkv", 3), spec())
    assert caught.value.reason == "no_frames"


def test_wrong_marks_further_on(read: Read, tmp_path: Path) -> None:
    """Frames 12 to 14 are marked; what starts at them is not believed."""
    source = _moving(tmp_path / "a.mp4", "mpeg4")
    whole = read(source, spec(frames=24))

    def change(place: int, packet: av.Packet) -> bool:
        packet.is_keyframe = packet.is_keyframe or 12 <= place < 15
        return True

    for reader in ("auto", "pyav"):
        clip = read(edited(source, tmp_path / "b.mp4", change), spec(frames=24, reader=reader))
        assert np.abs(clip.frames.astype(int) - whole.frames).max() <= 4


def test_damage_in_the_packet_that_is_looked_at_first_is_told(read: Read, tmp_path: Path) -> None:
    """Whether the second key packet can stand alone is asked without listening to FFmpeg."""
    path = numbered(tmp_path / "a.mp4", options={"g": "1", "bf": "0", "crf": "10"})
    with av.open(str(path)) as container:
        _, second, *_ = container.demux(video=0)
        middle, size = int(second.pos) + second.size // 2, second.size // 4
    data = bytearray(path.read_bytes())
    data[middle : middle + size] = bytes(size)
    path.write_bytes(data)
    clip = read(path, spec(reader="pyav", frames=12))
    assert clip.damaged
