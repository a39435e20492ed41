"""What only a GPU can show: the same frames, features, losses and lists as a CPU gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.decode.actor.encoder import ClipEncoder, EncoderSettings
from recsys.decode.contract import Deadline, NotThisReader
from recsys.decode.files import LocalFile
from recsys.decode.hardware.choice import look_around
from recsys.decode.hardware.nvdec import read_by_pynvvideocodec
from recsys.decode.hardware.torchcodec_reader import read_by_torchcodec
from recsys.decode.pyav_reader import OpenVideo
from recsys.inference.ranker import dot_product
from recsys.train.loss import LossWeights
from recsys.train.steps import SingleSteps
from recsys.train.trainable import build_plain
from tests.benchmarks._clips import make_clips
from tests.steps import SIZES, make_batch, make_config
from tests.videos import numbers_of, render, spec

READERS = {"pynvvideocodec": read_by_pynvvideocodec, "torchcodec_cuda": read_by_torchcodec}
TOLERANCES = {"pynvvideocodec": (0.1, 6), "torchcodec_cuda": (3.0, 40)}
"""Of 255, in the mean and at worst: torchcodec's frames are resized by another filter."""


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, gpu: torch.device) -> str:
    name = str(request.param)
    if not getattr(look_around(), name):
        pytest.skip(f"{name} is not installed, or sees no GPU")
    return name


@pytest.mark.parametrize("options", [{}, {"bf": "0"}, {"x264-params": "open-gop=1"}])
def test_hardware_gives_the_same_frames(
    reader: str, options: dict[str, str], tmp_path: Path
) -> None:
    (path,) = make_clips(tmp_path, 1, seconds=3, scale=2, **options)
    file, wanted = LocalFile(str(path)), replace(spec(), frames=16, size=112)
    for _ in range(2):  # the second by a decoder that has read one already
        with OpenVideo(file, wanted, name="a.mp4", deadline=Deadline(60)) as video:
            clip = READERS[reader](video)
            reference = video.read()
        assert clip.times_s.tolist() == reference.times_s.tolist()
        away, (mean, worst) = np.abs(clip.frames.astype(int) - reference.frames), TOLERANCES[reader]
        assert away.mean() < mean
        assert away.max() <= worst


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("libx264", "a.mp4"),
        ("libx265", "a.mp4"),
        ("libvpx", "a.webm"),
        ("libvpx-vp9", "a.webm"),
        ("libsvtav1", "a.mp4"),
    ],
)
def test_hardware_takes_no_frame_for_another(
    reader: str, codec: str, name: str, tmp_path: Path
) -> None:
    levels = [np.full((192, 256, 3), 8 * number, np.uint8) for number in range(24)]
    file = LocalFile(str(render(tmp_path / name, levels, codec=codec)))
    wanted = spec()
    with OpenVideo(file, wanted, name=name, deadline=Deadline(60)) as video:
        try:
            clip = READERS[reader](video)
        except NotThisReader as error:  # of AV1 older cards have no decoder
            if "not supported on this GPU" not in str(error):
                raise
            pytest.skip(str(error))
        assert numbers_of(clip.frames) == [3, 9, 15, 21]


def _clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, 64, 64, 3), np.uint8) for n in (3, 1, 4, 2, 5)]


def test_features_are_those_of_a_cpu_and_batches_on_their_way_do_not_mix(
    gpu: torch.device,
) -> None:
    clips = _clips()
    settings = EncoderSettings("cuda", batch_frames=16)
    encoder = ClipEncoder("small_cnn", settings)
    expected, _ = ClipEncoder("small_cnn").start(clips)()
    first, second = encoder.start(clips[:3]), encoder.start(clips[3:])
    values = [*first()[0], *second()[0]]
    third = encoder.start(clips[:3])()[0]  # takes the first one's memory
    for value, wanted in zip([*values, *third], [*expected, *expected[:3]], strict=True):
        np.testing.assert_allclose(value, wanted, atol=5e-3)


def test_features_in_bfloat16_are_near(gpu: torch.device) -> None:
    settings = EncoderSettings("cuda", precision="bfloat16", batch_frames=16)
    values, seconds = ClipEncoder("small_cnn", settings).start(_clips())()
    expected, _ = ClipEncoder("small_cnn").start(_clips())()
    assert seconds > 0
    for value, wanted in zip(values, expected, strict=True):
        assert np.abs(value.astype(float) - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 3e-2)])
def test_steps_learn_the_same(gpu: torch.device, precision: str, tolerance: float) -> None:
    losses: dict[str, list[float]] = {}
    for device in (torch.device("cpu"), gpu):
        config = make_config(train={"precision": precision if device == gpu else "float32"})
        torch.manual_seed(0)
        trainable = build_plain(config, SIZES, device)
        weights = LossWeights.of(config, device)
        steps = SingleSteps(trainable, weights.combine, device, config.train.clip_norm)
        taken = [steps.next_step(iter([make_batch(number)])) for number in range(3)]
        losses[device.type] = [float(step[0].retrieval) for step in taken if step]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=tolerance)


def test_ranking_stays_on_the_device_and_gives_the_same(gpu: torch.device) -> None:
    rng = torch.Generator().manual_seed(0)
    queries, vectors = (torch.randn(n, 8, generator=rng) for n in (4, 50))
    scores = dot_product(queries.to(gpu), vectors.to(gpu))(0, 4)
    assert scores.device == gpu
    torch.testing.assert_close(scores.cpu(), dot_product(queries, vectors)(0, 4))


def test_a_step_waits_for_nothing(gpu: torch.device) -> None:
    """The first step may, for what is set up once."""
    config = make_config()
    trainable = build_plain(config, SIZES, gpu)
    weights = LossWeights.of(config, gpu)
    steps = SingleSteps(trainable, weights.combine, gpu, config.train.clip_norm)
    batches = [make_batch(number).pinned() for number in range(2)]
    steps.next_step(iter(batches[:1]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert steps.next_step(iter(batches[1:])) is not None
    finally:
        torch.cuda.set_sync_debug_mode("default")
