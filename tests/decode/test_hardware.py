from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.decode import readers
from recsys.decode.contract import Clip, Deadline, FileFacts, NotThisReader
from recsys.decode.files import LocalFile
from recsys.decode.hardware import choice
from recsys.decode.hardware.choice import (
    WorkerHas,
    choose_decoder,
    look_around,
    may_use_cuda,
    why_not_hardware,
)
from recsys.decode.hardware.torchcodec_reader import read_by_torchcodec
from recsys.decode.pyav_reader import OpenVideo
from recsys.decode.worker import Growth
from tests.videos import numbered, numbers_of, spec


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        (WorkerHas(), "cpu"),
        (WorkerHas(gpu=True), "cpu"),  # as with decord's wheels and no torchcodec
        (WorkerHas(gpu=True, torchcodec_cuda=True), "torchcodec_cuda"),
        (WorkerHas(gpu=True, decord_cuda=True), "decord_cuda"),
        (WorkerHas(gpu=True, decord_cuda=True, torchcodec_cuda=True), "decord_cuda"),
        (WorkerHas(gpu=True, pynvvideocodec=True, torchcodec_cuda=True), "pynvvideocodec"),
        (WorkerHas(gpu=True, decord_cuda=True, pynvvideocodec=True), "decord_cuda"),
        (WorkerHas(gpu=False, pynvvideocodec=True), "cpu"),
        (WorkerHas(gpu=False, decord_cuda=True, torchcodec_cuda=True), "cpu"),
    ],
)
def test_choice(has: WorkerHas, chosen: str) -> None:
    assert choose_decoder(has) == chosen


@pytest.mark.parametrize(
    ("visible", "has"),
    [
        (None, True),
        ("0", True),
        ("3,1", True),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", True),
        ("MIG-GPU-8932f937/1/0", True),
        ("", False),
        ("-1", False),
        ("-1,0", False),  # CUDA takes none behind the first that there is not
        ("NoDevFiles", False),
    ],
)
def test_a_gpu_may_be_hidden(visible: str | None, has: bool, tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert may_use_cuda(environment, devices=str(tmp_path)) == has


@pytest.mark.parametrize(
    ("device", "has"),
    [
        ("nvidia0", True),
        ("nvidia7", True),  # a container that was given the eighth of a machine
        ("nvidia-caps/nvidia-cap2", True),  # a slice of one
        ("nvidiactl", True),
        ("dxg", True),  # WSL
        ("nvhost-gpu", True),  # Jetson
        ("kfd", False),  # AMD's; no decoder here can use it
        ("nvidia-modeset", False),
        ("null", False),
    ],
)
def test_names_of_gpus(device: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / device).parent.mkdir(exist_ok=True)
    (tmp_path / device).touch()
    assert may_use_cuda({}, devices=str(tmp_path)) == has


def test_decoders_are_looked_for_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "_decord_has_cuda", lambda: True)
    monkeypatch.setattr(choice, "_torchcodec_has_cuda", lambda: False)
    assert look_around({}, devices=str(tmp_path)) == WorkerHas()
    (tmp_path / "nvidia5").touch()
    assert look_around({}, devices=str(tmp_path)) == WorkerHas(gpu=True, decord_cuda=True)
    assert look_around({"CUDA_VISIBLE_DEVICES": ""}, devices=str(tmp_path)) == WorkerHas()


MIB = 2**20


def _retires(sizes_mib: list[int], *, spares_largest: bool) -> list[bool]:
    growth = Growth(100 * MIB, spares_largest=spares_largest)
    return [growth.is_too_much(size * MIB) for size in sizes_mib]


def test_a_cuda_context_does_not_count_as_growth() -> None:
    # 450 MB come with the second file; then it grows by 1 MB a file.
    sizes = [110, 560, *range(561, 900)]
    retires = _retires(sizes, spares_largest=True)
    assert retires.index(True) == sizes.index(560 + 256 - 10 + 1)


def test_without_a_gpu_all_growth_counts() -> None:
    assert _retires([110, 357, 100, 356], spares_largest=False) == [False, True, False, False]


def test_decords_wheels_have_no_cuda() -> None:
    assert not choice._decord_has_cuda()


def test_what_hardware_does_not_read_the_cpu_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> Clip:
        raise NotThisReader("no such codec")

    monkeypatch.setitem(readers._IN_HARDWARE, "torchcodec_cuda", refuse)
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    clip = readers.read_clip(file, spec(), decoder="torchcodec_cuda")
    assert (clip.reader, clip.why) == ("decord", "not torchcodec_cuda: no such codec; exact")


def test_who_asks_for_decord_gets_that_of_the_cpu_where_its_gpu_is_not_given_a_file(
    tmp_path: Path,
) -> None:
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    wanted = replace(spec(), reader="decord", hardware_pixels=10**6)
    clip = readers.read_clip(file, wanted, decoder="decord_cuda")
    assert clip.reader == "decord"
    assert clip.why.startswith("not decord_cuda: small frames are quicker on a core; ")
    clip = readers.read_clip(file, spec(), decoder="decord_cuda")  # its wheels: no device
    assert (clip.reader, clip.why) == ("decord", "not decord_cuda: decord failed; exact")


def test_torchcodec_keeps_the_contract(tmp_path: Path) -> None:
    """On the CPU, where its FFmpeg libraries are; on a GPU only the device differs."""
    pytest.importorskip("torchcodec", exc_type=(ImportError, RuntimeError, OSError))
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    with OpenVideo(file, spec(), name="a.mp4", deadline=Deadline(60)) as video:
        clip = read_by_torchcodec(video, device="cpu")
        reference = video.read()
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert clip.times_s.tolist() == reference.times_s.tolist()
    assert np.abs(clip.frames.astype(int) - reference.frames).max() <= 4
    assert clip.reader == "torchcodec_cpu"


@pytest.mark.parametrize(
    ("codec", "pixel_format", "coded", "why"),
    [
        ("h264", "yuv420p", (1280, 720), ""),
        ("hevc", "yuvj420p", (720, 1280), ""),
        ("av1", "yuv420p", (3840, 2160), ""),
        ("h264", "yuv420p", (1279, 720), "small frames are quicker on a core"),
        (
            "h264",
            "yuv420p10le",
            (1280, 720),
            "hardware is given 8-bit 4:2:0 alone, not yuv420p10le",
        ),
        ("hevc", "yuv444p", (1280, 720), "hardware is given 8-bit 4:2:0 alone, not yuv444p"),
        ("prores", "yuv422p10le", (1280, 720), "hardware reads no prores"),
        ("", "", (1280, 720), "hardware reads no unnamed codec"),
    ],
)
def test_what_the_hardware_is_given(
    codec: str, pixel_format: str, coded: tuple[int, int], why: str
) -> None:
    facts = FileFacts("mp4", coded, 1.0, (0, False), False, 1.0, codec, pixel_format)
    assert why_not_hardware(replace(spec(), hardware_pixels=1280 * 720), facts) == why


def test_what_is_left_to_the_cores_says_why(tmp_path: Path) -> None:
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    small = replace(spec(), hardware_pixels=10_000)  # the frames are 64 × 48
    for decoder in ("pynvvideocodec", "torchcodec_cuda", "decord_cuda"):
        clip = readers.read_clip(file, small, decoder=decoder)
        assert clip.reader == "decord"
        assert clip.why == f"not {decoder}: small frames are quicker on a core; exact"
