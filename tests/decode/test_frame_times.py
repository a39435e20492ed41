"""Frame times that a file gets wrong: wild ones, equal ones, clocks that jump or start anew.

Frame n of 24, ten a second, is a flat level that tells n; eight frames over the whole clip are
those on show at 0.15, 0.45, … 2.25 s, whatever one bad time says.
"""

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from recsys.decode.contract import Clip, ClipSpec
from tests.videos import edited, gray, numbered, numbers_of, render, spec

Read = Callable[[Path, ClipSpec], Clip]

RIGHT = [1, 4, 7, 10, 13, 16, 19, 22]
TIMES = [number / 10 for number in RIGHT]
OPTIONS = {"0": {"g": "6", "bf": "0", "crf": "10"}, "3": {"g": "6", "bf": "3", "crf": "10"}}
BOTH = pytest.mark.parametrize("bframes", ["0", "3"])


def _assert_right(clip: Clip, *, damaged: bool = True) -> None:
    assert numbers_of(clip.frames) == RIGHT, clip.message
    assert clip.times_s.tolist() == pytest.approx(TIMES, abs=0.051)
    assert clip.duration_s == pytest.approx(2.4, abs=0.15)
    assert clip.damaged == damaged
    assert ("frame times" in clip.message) == damaged


def _ticks(stream: av.VideoStream, seconds: float) -> int:
    return round(seconds / float(stream.time_base))


@BOTH
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("number", [3, 11, 16])
@pytest.mark.parametrize("off_s", [6.0, 319.0])
def test_one_wild_time(
    off_s: float, number: int, ending: str, bframes: str, read: Read, tmp_path: Path
) -> None:
    source = numbered(tmp_path / f"a.{ending}", options=OPTIONS[bframes])
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        wanted = sorted(packet.pts for packet in packets)[number]
        off = _ticks(stream, off_s)

    def change(_: int, packet: av.Packet) -> bool:
        packet.pts += off if packet.pts == wanted else 0
        return True

    _assert_right(read(edited(source, tmp_path / f"wild.{ending}", change), spec(frames=8)))


@pytest.mark.parametrize(("ending", "place"), [("mp4", 23), ("ts", 0), ("ts", 23), ("mkv", 0)])
def test_a_wild_time_at_either_end(ending: str, place: int, read: Read, tmp_path: Path) -> None:
    source = numbered(tmp_path / f"a.{ending}", options=OPTIONS["0"])
    with av.open(str(source)) as container:
        off = _ticks(container.streams.video[0], 50)

    def change(at: int, packet: av.Packet) -> bool:
        packet.pts += off if at == place else 0
        return True

    clip = read(edited(source, tmp_path / f"wild.{ending}", change), spec(frames=8))
    # The first or last frame is no sample, so the level cannot tell which time it got.
    _assert_right(clip)


@pytest.mark.parametrize("off_s", [5.0, 319.0])
def test_an_edit_list_that_shows_no_frame_is_not_followed(
    off_s: float, read: Read, tmp_path: Path
) -> None:
    """A muxer begins it at the first frame's time, which is wild here and behind all others."""
    source = numbered(tmp_path / "a.mp4", options=OPTIONS["0"])

    def change(place: int, packet: av.Packet) -> bool:
        packet.pts += round(off_s / packet.time_base) if place == 0 else 0
        return True

    path = edited(source, tmp_path / "wild.mp4", change)
    with av.open(str(path)) as container:
        assert all(packet.is_discard for packet in container.demux(video=0) if packet.size)
    clip = read(path, spec(frames=8))
    _assert_right(clip)
    assert "the edit list shows no frame and is not followed" in clip.message
    assert clip.reader == "pyav"


@BOTH
@pytest.mark.parametrize("cut_s", [0.6, 0.9])
def test_what_an_edit_list_cuts_off_is_not_missing(
    cut_s: float, bframes: str, read: Read, tmp_path: Path
) -> None:
    """A video that was trimmed without encoding it anew: the frames before the cut are still there.

    Eight of the 18 or 15 frames that it shows: the middles of eight parts.
    """
    source = numbered(tmp_path / "a.mp4", options=OPTIONS[bframes])

    def change(_: int, packet: av.Packet) -> bool:
        packet.pts -= round(cut_s / packet.time_base)
        packet.dts -= round(cut_s / packet.time_base)
        return True

    path = edited(source, tmp_path / "trimmed.mp4", change)
    for reader in ("auto", "pyav"):
        clip = read(path, spec(frames=8, reader=reader))
        shown = {0.6: [7, 9, 11, 13, 16, 18, 20, 22], 0.9: [9, 11, 13, 15, 17, 19, 21, 23]}
        assert numbers_of(clip.frames) == shown[cut_s]
        assert (clip.damaged, clip.message) == (False, "")
        assert clip.duration_s == pytest.approx(2.4 - cut_s, abs=0.01)


def test_a_time_before_the_first_one(read: Read, tmp_path: Path) -> None:
    """An MP4 whose table of offsets has one entry that cannot be."""
    source = numbered(tmp_path / "a.mp4", options=OPTIONS["0"])

    def change(place: int, packet: av.Packet) -> bool:
        packet.pts += 1 if place == 9 else 0  # gives the packet an entry of its own
        return True

    path = edited(source, tmp_path / "b.mp4", change)
    data = bytearray(path.read_bytes())
    table = data.index(b"ctts") + 4
    data[table] = 1  # offsets have signs
    entries = range(
        table + 8, table + 8 + 8 * int.from_bytes(data[table + 4 : table + 8], "big"), 8
    )
    place = 0
    for at in entries:
        if place == 9:
            data[at + 4 : at + 8] = (-300000).to_bytes(4, "big", signed=True)
        place += int.from_bytes(data[at : at + 4], "big")
    path.write_bytes(data)
    _assert_right(read(path, spec(frames=8)))


def _recording(path: Path, numbers: range, bframes: str, start_s: float) -> bytes:
    """The bytes of a .ts of some of the frames whose clock starts at `start_s`."""
    part = render(path, [gray(number) for number in numbers], options=OPTIONS[bframes])

    def change(_: int, packet: av.Packet) -> bool:
        packet.pts += round(start_s * 90000)
        packet.dts += round(start_s * 90000)
        return True

    return edited(part, path.with_name(f"moved-{path.name}"), change).read_bytes()


@BOTH
@pytest.mark.parametrize("starts_s", [(0, 40), (100, 20), (5, 5.04), (0, 70000), (30, 0, 400)])
def test_joined_recordings(
    starts_s: tuple[float, ...], bframes: str, read: Read, tmp_path: Path
) -> None:
    each = 24 // len(starts_s)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(
        b"".join(
            _recording(tmp_path / f"{n}.ts", range(n * each, (n + 1) * each), bframes, start_s)
            for n, start_s in enumerate(starts_s)
        )
    )
    _assert_right(read(joined, spec(frames=8)))


@BOTH
def test_the_33_bit_clock_of_mpeg_ts_runs_over(bframes: str, read: Read, tmp_path: Path) -> None:
    wraps_s = 2**33 / 90000
    path = tmp_path / "wraps.ts"
    path.write_bytes(_recording(tmp_path / "a.ts", range(24), bframes, wraps_s - 2.5))
    _assert_right(read(path, spec(frames=8)), damaged=False)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("equal", [range(4, 6), range(3, 8)])
def test_frames_of_one_time_leave_the_others_alone(
    equal: range, ending: str, read: Read, tmp_path: Path
) -> None:
    """12 frames within 0.12 s, then 12 a second apart; some of the first share a time."""
    ticks = [*range(12), *range(100, 1300, 100)]
    source = numbered(tmp_path / f"a.{ending}", ticks=ticks, options=OPTIONS["0"])
    with av.open(str(source)) as container:
        shared = [packet.pts for packet in container.demux(video=0) if packet.size][equal[-1]]

    def change(place: int, packet: av.Packet) -> bool:
        packet.pts = shared if place in equal else packet.pts
        return True

    clip = read(edited(source, tmp_path / f"b.{ending}", change), spec(frames=8))
    # The last frame lasts 0.1 s or, in a .ts, as long as the median, 0.89 s: the parts' middles are
    # 0.756 + 1.5125 i or 0.806 + 1.611 i seconds.
    if ending == "ts":
        assert numbers_of(clip.frames) == [11, 13, 15, 16, 18, 19, 21, 23]
    else:
        assert numbers_of(clip.frames) == [11, 13, 14, 16, 17, 19, 20, 22]


def test_a_pause_of_a_file_that_says_so_is_believed(read: Read, tmp_path: Path) -> None:
    ticks = [10 * number + (4000 if number > 11 else 0) for number in range(24)]
    for ending in ("mp4", "mkv"):
        clip = read(
            numbered(tmp_path / f"a.{ending}", ticks=ticks, options=OPTIONS["0"]), spec(frames=8)
        )
        assert numbers_of(clip.frames) == [11] * 8
        assert not clip.damaged


@pytest.mark.parametrize(
    ("ending", "place"), [("mkv", 3), ("mkv", 5), ("mkv", 10), ("mp4", 21), ("ts", 21)]
)
def test_a_pair_of_one_time_among_frames_that_are_reordered(
    place: int, ending: str, read: Read, tmp_path: Path
) -> None:
    """A packet has the time of the one before it, which is shown elsewhere: each frame is shown in
    its turn all the same, though by the times either of the two might come first.
    """
    source = numbered(tmp_path / f"a.{ending}", options={"g": "12", "bf": "3", "crf": "10"})
    with av.open(str(source)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]

    def change(number: int, packet: av.Packet) -> bool:
        if number == place:
            packet.pts = times[place - 1]
        return True

    clip = read(edited(source, tmp_path / f"pair.{ending}", change), spec(frames=24))
    assert numbers_of(clip.frames) == list(range(24))
    assert clip.times_s.tolist() == pytest.approx([n / 10 for n in range(24)], abs=0.051)
