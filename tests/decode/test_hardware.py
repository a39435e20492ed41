from pathlib import Path

import numpy as np
import pytest

from recsys.decode import hardware, readers
from recsys.decode.contract import Clip, Deadline, NotThisReader
from recsys.decode.files import LocalFile
from recsys.decode.hardware import WorkerHas, choose_decoder, look_around, read_by_torchcodec
from recsys.decode.pyav_reader import Video
from tests.videos import numbered, numbers_of, spec


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        (WorkerHas(), "cpu"),
        (WorkerHas(gpu=True), "cpu"),  # as with decord's wheels and no torchcodec
        (WorkerHas(gpu=True, torchcodec_cuda=True), "torchcodec_cuda"),
        (WorkerHas(gpu=True, decord_cuda=True), "decord_cuda"),
        (WorkerHas(gpu=True, decord_cuda=True, torchcodec_cuda=True), "decord_cuda"),
        (WorkerHas(gpu=False, decord_cuda=True, torchcodec_cuda=True), "cpu"),
    ],
)
def test_choice(has: WorkerHas, chosen: str) -> None:
    assert choose_decoder(has) == chosen


def test_a_worker_that_was_given_no_gpu_does_not_look_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "_GPU_DEVICE", "/dev/null")
    monkeypatch.setattr(hardware, "_decord_has_cuda", lambda: True)
    assert look_around({"CUDA_VISIBLE_DEVICES": ""}) == WorkerHas()
    assert look_around({"CUDA_VISIBLE_DEVICES": "-1"}) == WorkerHas()
    assert look_around({"CUDA_VISIBLE_DEVICES": "0"}).decord_cuda
    monkeypatch.setattr(hardware, "_GPU_DEVICE", "/dev/none")
    assert look_around({}) == WorkerHas()


def test_decords_wheels_have_no_cuda() -> None:
    assert not hardware._decord_has_cuda()


def test_what_hardware_does_not_read_the_cpu_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> Clip:
        raise NotThisReader("no such codec")

    monkeypatch.setattr(hardware, "read_by_torchcodec", refuse)
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    clip = readers.read_clip(file, spec(), decoder="torchcodec_cuda")
    assert clip.reader == "pyav"
    clip = readers.read_clip(file, spec(), decoder="decord_cuda")  # its wheels: no device
    assert clip.reader == "pyav"


def test_torchcodec_keeps_the_contract(tmp_path: Path) -> None:
    """On the CPU, where its FFmpeg libraries are; on a GPU only the device differs."""
    pytest.importorskip("torchcodec", exc_type=(ImportError, RuntimeError, OSError))
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    with Video(file, spec(), name="a.mp4", deadline=Deadline(60)) as video:
        clip = read_by_torchcodec(file, spec(), video, device="cpu")
        reference = video.read()
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
    assert clip.times_s.tolist() == reference.times_s.tolist()
    assert np.abs(clip.frames.astype(int) - reference.frames).max() <= 4
    assert clip.reader == "torchcodec_cpu"
