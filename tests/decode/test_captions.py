"""A file's own text track as WebVTT: which one, its text as text, and its bounds."""

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.stream import Disposition

from recsys.config.data import DecodeConfig
from recsys.decode import captions
from recsys.decode.captions import MAX_CUES, read_captions, webvtt
from recsys.decode.clips import DecodeClips
from recsys.decode.contract import ReadError
from recsys.decode.files import LocalFile
from recsys.decode.sandbox import Sandbox
from tests.videos import TextTrack, captioned, numbered, render, spec

ASS = b"%d,0,Default,,0,0,0,,%s"
TWO = "WEBVTT\n\n00:00:00.100 --> 00:00:00.600\nOne\n\n00:00:00.700 --> 00:00:01.200\nTwo\nlines\n"


@pytest.fixture(scope="module")
def decode() -> DecodeClips:
    return DecodeClips(DecodeConfig(frames=2, size=32, poster_size=0))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("plain") / "plain.mp4")


def captions_of(
    decode: DecodeClips, path: Path, *, lacks: dict[str, str] | None = None
) -> str | None:
    """What decode makes of a file, which gives a clip in any case, and says what it lacks."""
    row = decode({"uri": [str(path)]})
    assert row.column("reason").to_pylist() == [None]
    assert dict(row.column("said")[0].as_py()) == (lacks or {})
    vtt = row.column("captions")[0].as_py()
    return None if vtt is None else vtt.decode()


def texts_of(vtt: str | None) -> list[str]:
    """The text of each cue; a block that is none fails."""
    head, *blocks = (vtt or "").removesuffix("\n").split("\n\n")
    assert head == "WEBVTT"
    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    cues = [re.fullmatch(rf"{clock} --> {clock}\n(.+)", block, re.DOTALL) for block in blocks]
    assert all(cues), blocks
    return [cue[1] for cue in cues if cue]


@pytest.mark.parametrize(
    ("ending", "codec", "first", "second"),
    [
        ("mp4", "mov_text", b"One", b"Two\nlines"),
        ("mkv", "subrip", b"<i>One</i>", b"Two\r\nlines"),
        ("mkv", "ass", ASS % (0, rb"{\i1}One{\i0}{a note}"), ASS % (1, rb"Two\Nlines")),
        ("mkv", "webvtt", b"<v Ann>One</v>", b"Two\nlines"),
    ],
)
def test_each_kind_of_text_track_becomes_the_same_webvtt(
    decode: DecodeClips, plain: Path, tmp_path: Path, ending: str, codec: str, first: bytes,
    second: bytes,
) -> None:  # fmt: skip
    track = TextTrack(codec, [(100, 500, first), (700, 500, second)])
    assert captions_of(decode, captioned(plain, tmp_path / f"a.{ending}", track)) == TWO


def test_a_file_without_text_has_none_and_is_not_read_for_it(
    decode: DecodeClips, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sandbox, "captions", lambda *_, **__: pytest.fail("read a second time"))
    assert captions_of(decode, plain) is None


def test_the_default_track_goes_first_and_one_for_signs_alone_is_not_taken(
    decode: DecodeClips, plain: Path, tmp_path: Path
) -> None:
    def track(text: bytes, disposition: int = 0) -> TextTrack:
        return TextTrack("subrip", [(0, 500, text)], disposition)

    signs = track(b"signs", Disposition.forced | Disposition.default)
    other, default = track(b"other"), track(b"default", Disposition.default)
    for place, (tracks, expected) in enumerate(
        [([signs, other, default], ["default"]), ([signs, other, track(b"third")], ["other"])]
    ):
        path = captioned(plain, tmp_path / f"{place}.mkv", *tracks)
        assert texts_of(captions_of(decode, path)) == expected
    assert captions_of(decode, captioned(plain, tmp_path / "signs.mkv", signs)) is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (b"a & b &lt; c", "a &amp; b &amp;lt; c"),
        (b"00:00.000 --> 99:00.000\n\n\nNOTE x", "00:00.000 --&gt; 99:00.000\nNOTE x"),
        (b"a\r\r\r\n \x01\n\nSTYLE\n\x02\n::cue{}", "a\nSTYLE\n::cue{}"),
        (b"\xe2\x80\xae\xd7\xa9\xe2\x80\x8f one", "\u202e\u05e9\u200f one"),
        (b"\x1b[31mred\x7f\xc2\x9b", "[31mred"),
        (rb"{\an8}up {laughs}{\b1", r"up {laughs}{\b1"),
    ],
)
def test_text_is_shown_as_text_and_nothing_else(
    decode: DecodeClips, plain: Path, tmp_path: Path, given: bytes, shown: str
) -> None:
    track = TextTrack("mov_text", [(100, 500, given), (700, 100, b"next")])
    path = captioned(plain, tmp_path / "a.mp4", track)
    assert texts_of(captions_of(decode, path)) == [shown, "next"]


def test_what_breaks_a_cue_apart_never_does() -> None:
    """Every control character, line separator and lone surrogate, at each place of a text."""
    odd = [*map(chr, range(0x20)), "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\udfff"]
    text = "".join(f"{one}{one}-->{one}<{one}" for one in odd)
    (shown,) = texts_of(webvtt([(0, 1, text)], max_duration_s=1).vtt)
    shown.encode()  # no lone surrogate is left
    assert not re.search(r"[<>\x00-\x09\x0b-\x1f]|\n\n|-->", shown)


def test_drawings_are_no_text(decode: DecodeClips, plain: Path, tmp_path: Path) -> None:
    drawing = ASS % (0, rb"{\pos(1,2)\p1}m 0 0 l 100 0{\p0}")
    track = TextTrack("ass", [(0, 100, drawing), (200, 100, ASS % (1, rb"{\pos(1,2)}sign"))])
    path = captioned(plain, tmp_path / "a.mkv", track)
    assert texts_of(captions_of(decode, path)) == ["sign"]


def cut(
    decode: DecodeClips, path: Path, caplog: pytest.LogCaptureFixture, *, said: str
) -> list[str]:
    """The texts of a file's cues; of those left out it is said, in the report and the log."""
    with caplog.at_level(logging.WARNING, logger="recsys.decode.clips"):
        texts = texts_of(captions_of(decode, path, lacks={"captions in part": said}))
    assert caplog.messages == [f"a.mkv: captions: {said}"]
    return texts


@pytest.mark.parametrize(
    ("cues", "kept"),
    [
        (((place, 1, b"x") for place in range(25_000)), MAX_CUES),
        # With its times a cue is 10,031 bytes long: 104 fit into 1,048,576, the head of 7 among it.
        (((place, 1, b"x" * 10_000) for place in range(200)), 104),
    ],
    ids=["cues", "bytes"],
)
def test_too_much_is_cut_at_a_whole_cue_and_said(
    decode: DecodeClips, plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    cues: Iterable[tuple[int, int, bytes]], kept: int,
) -> None:  # fmt: skip
    path = captioned(plain, tmp_path / "a.mkv", TextTrack("subrip", cues))
    texts = cut(decode, path, caplog, said=f"cut behind {kept} cues")
    assert len(texts) == kept and len(set(texts)) == 1


def test_cues_that_cannot_be_shown_are_counted(
    decode: DecodeClips, plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of no length, one of too many bytes, and two that are no UTF-8: a byte, a surrogate."""
    good = [(0, 100, b"one"), (600, 100, b"two")]
    bad = [(200, 0, b"x"), (300, 100, b"x" * 20_000), (400, 9, b"\xff"), (500, 9, b"\xed\xa0\x80")]
    track = TextTrack("subrip", sorted(good + bad))
    path = captioned(plain, tmp_path / "a.mkv", track)
    said = "4 cues without usable times or text"
    assert cut(decode, path, caplog, said=said) == ["one", "two"]


def test_times_lie_within_what_a_video_may_last() -> None:
    wrong = [(-1, 5), (5, 5), (6, 5), (0, 10_001), (2**62, 2**63)]
    cues = [(0, 10_000, "all"), *((start, end, "x") for start, end in wrong), None]
    made = webvtt(cues, max_duration_s=10)
    assert made.vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nall\n"
    assert made.said == "6 cues without usable times or text"
    assert webvtt([(0, 1, " \n\t"), (0, 0, "")], max_duration_s=10) == captions.Captions("")


def test_it_takes_no_longer_than_a_clip_may(plain: Path, tmp_path: Path) -> None:
    path = captioned(plain, tmp_path / "a.mkv", TextTrack("subrip", [(0, 100, b"one")]))
    with pytest.raises(ReadError, match="not decoded within max_decode_s=1e-09"):
        read_captions(LocalFile(str(path)), replace(spec(), max_decode_s=1e-9), name=path.name)


def test_of_a_file_with_an_index_nothing_else_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(20)]
    track = TextTrack("mov_text", [(100, 500, b"One"), (1500, 100, b"Two")])
    path = captioned(render(tmp_path / "plain.mp4", pictures), tmp_path / "a.mp4", track)
    file, num_read = LocalFile(str(path)), []

    class Counted:
        path: str | None = None
        size = file.size

        def read_at(self, offset: int, size: int) -> bytes:
            data = file.read_at(offset, size)
            num_read.append(len(data))
            return data

    assert texts_of(read_captions(Counted(), spec(), name=path.name).vtt) == ["One", "Two"]
    assert sum(num_read) < file.size / 2


def test_text_that_cannot_be_read_costs_no_clip(
    decode: DecodeClips, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> captions.Captions:
        raise ReadError("crashed", "the decoder died (SIGSEGV)")

    path = captioned(plain, tmp_path / "a.mkv", TextTrack("subrip", [(0, 100, b"one")]))
    monkeypatch.setattr(Sandbox, "captions", fail)
    lacks = {"no captions": "the decoder died (SIGSEGV)"}
    assert captions_of(decode, path, lacks=lacks) is None
    assert caplog.messages == ["a.mkv: no captions: the decoder died (SIGSEGV)"]
