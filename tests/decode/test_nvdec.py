"""NVIDIA's decoder by a stand-in that decodes on a CPU what it is given; tests/gpu has the card."""

from __future__ import annotations

import ctypes
import sys
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.decode import readers
from recsys.decode.contract import Clip, ClipSpec, Deadline
from recsys.decode.files import LocalFile
from recsys.decode.hardware import nvdec
from recsys.decode.hardware.planes import PlaneScaler
from recsys.decode.pyav_reader import OpenVideo
from recsys.decode.sampling import Fit, plan_geometry
from recsys.decode.scaling import Resizer
from tests.benchmarks._clips import make_clips
from tests.videos import numbered, numbers_of, render, spec

WORST_TOLERANCE = 6
"""Of 255: sums are rounded once here and several times by FFmpeg."""
EVEN_MEAN_TOLERANCE, ODD_MEAN_TOLERANCE = 2.5, 0.1
"""FFmpeg rounds downwards where a width is even, which a mean of noise shows most."""


@dataclass
class _Frame:
    """What `Decode` gives: NV12 that torch takes, and the time of its packet."""

    frame: av.VideoFrame
    time: int

    def getPTS(self) -> int:
        return self.time


@dataclass
class _Decoder:
    """Decodes bytes in memory one packet at a time; the pictures come in the order of showing.

    As NVIDIA's parser it hands the packets' times out in their order, whichever picture was whose.
    """

    codec: str
    fed: list[int] = field(default_factory=list)
    """Times of the packets."""
    waiting: list[int] = field(default_factory=list)
    """Those that no frame has yet."""
    fails: str = ""
    leaves_out: bool = False

    def __post_init__(self) -> None:
        self._context = av.CodecContext.create(self.codec.lower(), "r")

    def Decode(self, packet: SimpleNamespace) -> list[_Frame]:
        if self.fails:
            raise KeyError(self.fails)
        if not packet.bsl:
            frames = list(self._context.decode(None))
            self._context.flush_buffers()
        else:
            given = av.Packet(ctypes.string_at(packet.bsl_data, packet.bsl))
            given.pts = packet.pts
            self.fed.append(packet.pts)
            self.waiting.append(packet.pts)
            frames = list(self._context.decode(given))
        shown = []
        for frame in frames[1 if self.leaves_out else 0 :]:
            time = min(self.waiting)
            self.waiting.remove(time)
            shown.append(_Frame(frame, time))
        return shown


@dataclass
class _Package:
    """The package: its decoders, the last one made at the end."""

    made: list[_Decoder] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def CreateDecoder(self, *, gpuid: int, codec: str, usedevicememory: bool) -> _Decoder:
        assert gpuid == 0 and usedevicememory
        self.made.append(_Decoder(codec, **self.settings))
        return self.made[-1]

    def PacketData(self) -> SimpleNamespace:
        return SimpleNamespace(bsl=0, bsl_data=0, pts=0)

    cudaVideoCodec = SimpleNamespace(H264="H264", HEVC="HEVC", VP8="VP8", VP9="VP9", AV1="AV1")


def _planes(frame: av.VideoFrame) -> torch.Tensor:
    return torch.from_numpy(frame.reformat(format="nv12").to_ndarray())


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> _Package:
    package = _Package()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", package)
    monkeypatch.setattr(torch, "from_dlpack", lambda frame: _planes(frame.frame))
    monkeypatch.setattr(nvdec, "_decoders", nvdec._KeptDecoders(OrderedDict()))
    monkeypatch.setattr(nvdec, "_not_on_this_card", set())
    return package


def _both(path: Path, wanted: ClipSpec) -> tuple[Clip, Clip]:
    """The clip by the decoder, and that by PyAV."""
    file = LocalFile(str(path))
    with OpenVideo(file, wanted, name=path.name, deadline=Deadline(60)) as video:
        return nvdec.read_by_pynvvideocodec(video), video.read()


def _assert_same(clip: Clip, reference: Clip, *, even: bool) -> None:
    assert clip.times_s.tolist() == reference.times_s.tolist()
    assert (clip.reader, clip.duration_s) == ("pynvvideocodec", reference.duration_s)
    _assert_near(clip.frames, reference.frames, even=even)


def _assert_near(frames: NDArray[np.uint8], reference: NDArray[np.uint8], *, even: bool) -> None:
    away = np.abs(frames.astype(int) - reference)
    assert away.mean() < (EVEN_MEAN_TOLERANCE if even else ODD_MEAN_TOLERANCE)
    assert away.max() <= WORST_TOLERANCE


@pytest.mark.parametrize("options", [{}, {"bf": "0"}, {"x264-params": "open-gop=1"}])
def test_pixels_are_those_of_ffmpeg(
    options: dict[str, str], tmp_path: Path, package: _Package
) -> None:
    (path,) = make_clips(tmp_path, 1, seconds=3, **options)
    clip, reference = _both(path, spec(frames=8, size=112))
    _assert_same(clip, reference, even=False)  # 199 × 112 before the cut
    clip, reference = _both(path, spec(frames=8, size=112, fit="letterbox"))
    _assert_same(clip, reference, even=True)


@pytest.mark.parametrize(
    ("codec", "name"), [("libx264", "a.mp4"), ("libx265", "a.mp4"), ("libvpx-vp9", "a.webm")]
)
@pytest.mark.parametrize(
    ("frames", "numbers"), [(4, [3, 9, 15, 21]), (48, sorted([*range(24)] * 2))]
)
def test_no_frame_is_taken_for_another(
    frames: int, numbers: list[int], codec: str, name: str, tmp_path: Path, package: _Package
) -> None:
    path = numbered(tmp_path / name, codec=codec)
    clip, reference = _both(path, replace(spec(), frames=frames))
    assert numbers_of(clip.frames) == numbers == numbers_of(reference.frames)


def test_only_packets_that_are_needed_are_decoded(tmp_path: Path, package: _Package) -> None:
    options = {"g": "12", "bf": "2", "b-pyramid": "none", "sc_threshold": "0", "crf": "10"}
    path = numbered(tmp_path / "a.mp4", num=30, options=options)
    clip, _ = _both(path, spec(frames=2))
    assert numbers_of(clip.frames) == [7, 22]
    (decoder,) = package.made
    assert len(decoder.fed) < 15 and sorted(decoder.fed) == sorted(set(decoder.fed))


def test_a_decoder_is_kept_for_files_of_its_size(tmp_path: Path, package: _Package) -> None:
    first, second = (numbered(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    larger = render(tmp_path / "c.mp4", [np.full((64, 96, 3), 8 * n, np.uint8) for n in range(24)])
    for path in (first, second, larger, first):
        clip, reference = _both(path, spec())
        assert numbers_of(clip.frames) == [3, 9, 15, 21]
        _assert_same(clip, reference, even=path is larger)
    assert len(package.made) == 2 and len(nvdec._decoders.waiting) == 2
    small = render(tmp_path / "d.mp4", [np.full((32, 32, 3), 8 * n, np.uint8) for n in range(24)])
    _both(small, spec())
    sizes = [coded for _, coded in nvdec._decoders.waiting]
    assert sizes == [(64, 48), (32, 32)]  # the one that was used longest ago is gone


@pytest.mark.parametrize(
    ("settings", "reason", "said"),
    [
        ({"leaves_out": True}, "pynvvideocodec left frames out", None),
        ({"fails": "a\nbug"}, "pynvvideocodec failed", "KeyError: 'a\\nbug'"),
    ],
)
def test_what_fails_goes_to_the_cores_and_its_decoder_is_not_kept(
    settings: dict[str, Any], reason: str, said: str | None, tmp_path: Path, package: _Package
) -> None:
    package.settings = settings
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    clip = readers.read_clip(file, spec(), decoder="pynvvideocodec")
    assert (clip.reader, clip.why) == ("decord", f"not pynvvideocodec: {reason}; exact")
    assert clip.said == ({reason: said} if said else {})
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert not nvdec._decoders.waiting


def test_a_codec_that_the_card_does_not_read_is_asked_for_once(
    tmp_path: Path, package: _Package
) -> None:
    package.settings = {"fails": "Codec not supported on this GPU"}
    file = LocalFile(str(numbered(tmp_path / "a.webm", codec="libvpx-vp9")))
    first, second = (readers.read_clip(file, spec(), decoder="pynvvideocodec") for _ in range(2))
    reason = "this card reads no vp9"
    assert first.why == second.why == f"not pynvvideocodec: {reason}; exact"
    assert first.said == {reason: "KeyError: 'Codec not supported on this GPU'"}
    assert second.said == {} and len(package.made) == 1
    package.settings = {"fails": "Resolution not supported on this GPU"}  # others it may read
    file = LocalFile(str(numbered(tmp_path / "b.mp4")))
    whys = [readers.read_clip(file, spec(), decoder="pynvvideocodec").why for _ in range(2)]
    assert whys == ["not pynvvideocodec: pynvvideocodec failed; exact"] * 2
    assert len(package.made) == 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rotation": 90}, "the frame must be turned"),
        ({"codec": "mpeg4", "options": {}}, "pynvvideocodec is given no mpeg4"),
    ],
)
def test_what_it_is_not_given(
    settings: dict[str, object], reason: str, tmp_path: Path, package: _Package
) -> None:
    file = LocalFile(str(numbered(tmp_path / "a.mp4", **settings)))
    assert readers.read_clip(file, spec(), decoder="pynvvideocodec").why.startswith(
        f"not pynvvideocodec: {reason}"
    )
    assert not package.made


def _noise(width: int, height: int, *, matrix: int, full_range: bool) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    low, high = (0, 256) if full_range else (16, 236)
    planes: NDArray[np.uint8] = rng.integers(low, high, (height * 3 // 2, width), np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
    return frame


def _same_by_both(frame: av.VideoFrame, *, size: int, fit: Fit, even: bool) -> None:
    coded = frame.width, frame.height
    geometry = plan_geometry(coded, 1.0, 0, size=size, fit=fit)
    assert (geometry.scale_width % 2 == 0) == even
    full_range = int(frame.color_range) == 2
    scaler = PlaneScaler(geometry, *coded, int(frame.colorspace), full_range)
    image = geometry.square(scaler(_planes(frame)).numpy())
    resizer = Resizer(size, fit=fit, pixel_aspect=1.0, orientation=(0, False))
    _assert_near(image, resizer(frame), even=even)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 2, 4, 5, 6, 7, 9])
def test_colours_are_those_of_ffmpeg(matrix: int, full_range: bool) -> None:
    """Of noise: smooth colours would hide a plane that lies half a pixel off."""
    frame = _noise(160, 90, matrix=matrix, full_range=full_range)
    _same_by_both(frame, size=40, fit="crop", even=False)
    _same_by_both(frame, size=40, fit="letterbox", even=True)


@pytest.mark.parametrize(("size", "even"), [(40, True), (81, False), (160, True), (300, True)])
def test_frames_of_any_size(size: int, even: bool) -> None:
    frame = _noise(640, 360, matrix=1, full_range=False)
    _same_by_both(frame, size=size, fit="letterbox", even=even)
