from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.data import DecodeConfig
from recsys.decode.actor.encoder import ClipEncoder, EncoderSettings, _Copies
from recsys.model.folding import FoldedEfficientNet
from recsys.model.frames import make_frame_encoder


def clips(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (length, 32, 32, 3), np.uint8) for length in lengths]


def test_many_clips_at_a_time_give_what_each_gives_alone() -> None:
    some = clips(3, 1, 4)
    values, seconds = ClipEncoder("small_cnn").start(some)()
    encoder = make_frame_encoder("small_cnn").eval()
    assert [value.shape for value in values] == [(3, 1024), (1, 1024), (4, 1024)]
    assert seconds > 0
    for clip, value in zip(some, values, strict=True):
        with torch.inference_mode():
            alone = encoder(torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255)
        assert value.dtype == np.float16
        # A float16 of values around 1 is right to 5e-4; what is added to it is 1e-5 at most.
        np.testing.assert_allclose(value, alone.numpy(), atol=1e-5, rtol=5e-4)


def test_before_they_are_rounded_they_differ_by_1e_5_at_most() -> None:
    some = clips(3, 1, 4)
    encoder = make_frame_encoder("small_cnn").eval()
    frames = torch.from_numpy(np.concatenate(some)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        together = encoder(frames).split([3, 1, 4])
        alone = [encoder(part) for part in frames.split([3, 1, 4])]
    for one, other in zip(together, alone, strict=True):
        assert (one - other).abs().max() < 1e-5


def test_a_padded_batch_gives_the_same() -> None:
    """What a compiled encoder is given: the frames behind the last clip are nobody's."""
    settings = EncoderSettings(batch_frames=16)
    plain, padded = ClipEncoder("small_cnn", settings), ClipEncoder("small_cnn", settings)
    padded._padded = lambda num: 16  # type: ignore[method-assign]
    some = clips(3, 4)
    for one, other in zip(plain.start(some)()[0], padded.start(some)()[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-3)


def test_bfloat16_is_near() -> None:
    (exact,), _ = ClipEncoder("small_cnn").start(clips(4))()
    (half,), _ = ClipEncoder("small_cnn", EncoderSettings(precision="bfloat16")).start(clips(4))()
    assert half.dtype == np.float16
    assert not np.array_equal(half, exact)
    assert np.abs(half.astype(float) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("size", [112, 64, 111, 224])
def test_the_pretrained_one_is_folded_and_gives_the_same(size: int) -> None:
    clip = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
    encoder = ClipEncoder("efficientnet_lite0")
    assert isinstance(encoder._encoder, FoldedEfficientNet)
    (values,), _ = encoder.start([clip])()
    with torch.inference_mode():
        pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
        expected = make_frame_encoder("efficientnet_lite0").eval()(pixels).numpy()
    assert encoder.dim == values.shape[1] == 1280 and values.dtype == np.float16
    # A float16 is right to 5e-4 of itself, or to 3e-8 where it is near 0.
    np.testing.assert_allclose(values, expected, atol=1e-4, rtol=2e-3)


@pytest.mark.parametrize(
    ("changes", "has_gpu", "expected"),
    [
        ({}, False, EncoderSettings("cpu", "auto")),
        ({}, True, EncoderSettings("cuda", "auto", False, 1024)),
        ({"encode_precision": "float32"}, True, EncoderSettings("cuda", "float32", False, 1024)),
        ({"encode_precision": "bfloat16"}, False, EncoderSettings("cpu", "bfloat16")),
        ({"encode_compiled": True}, True, EncoderSettings("cuda", "auto", True, 1024)),
        ({"encode_compiled": True}, False, EncoderSettings("cpu", "auto")),
        ({"encode_frames": 64}, True, EncoderSettings("cuda", "auto", False, 64)),
    ],
)
def test_what_a_config_asks_for(
    changes: dict[str, object], has_gpu: bool, expected: EncoderSettings
) -> None:
    config = DecodeConfig().model_copy(update=changes)
    assert EncoderSettings.of(config, has_gpu=has_gpu) == expected


class FakeCard:
    """A card on the CPU, which notes what is put in line on its streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.line: list[str] = []
        self.pins = True
        names = iter(["began", "ended", "back"] * 9)
        monkeypatch.setattr(torch, "cuda", self)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: self.line.append("kept"))
        for name in ("zeros", "empty"):
            monkeypatch.setattr(torch, name, self._on_host(getattr(torch, name)))
        self.Stream = lambda _: SimpleNamespace(record_event=lambda: self.line.append("copied"))
        self.Event = lambda enable_timing: self._event(next(names))

    def stream(self, _: object) -> AbstractContextManager[None]:
        return nullcontext()

    def current_stream(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(wait_event=lambda _: self.line.append("waits for the copy"))

    def _event(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            record=lambda _: self.line.append(name),
            synchronize=lambda: self.line.append(f"{name} waited for"),
            elapsed_time=lambda _: 2.0,
        )

    def _on_host(self, make: Any) -> Any:
        def made(*shape: Any, pin_memory: bool = False, **settings: Any) -> torch.Tensor:
            if pin_memory and not self.pins:
                raise RuntimeError("no room to pin")
            return make(*shape, **settings)

        return made


def compute(frames_NHWC: torch.Tensor) -> torch.Tensor:
    return frames_NHWC.flatten(1)[:, :5].half()


def test_what_a_card_is_given_stands_in_line_and_is_waited_for_at_the_end_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, some = FakeCard(monkeypatch), clips(3, 1, 4)
    copies = _Copies(torch.device("cpu"))
    first = copies.start(some[:2], 4, compute)
    in_line = ["copied", "waits for the copy", "kept", "began", "ended", "back"]
    assert card.line == in_line
    second = copies.start(some[2:], 8, compute)  # padded, as a compiled encoder wants it
    (one, two), seconds = first()
    assert card.line == [*in_line, *in_line, "back waited for"] and seconds == 0.002
    for clip, value in zip(some, [one, two, *second()[0]], strict=True):
        assert value.tolist() == clip.reshape(len(clip), -1)[:, :5].tolist()


def test_a_batch_that_finds_no_pinned_memory_leaves_both_places_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, some = FakeCard(monkeypatch), clips(2)
    copies, card.pins = _Copies(torch.device("cpu")), False
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no room to pin"):
            copies.start(some, 2, compute)
    card.pins = True
    assert len(copies.start(some, 2, compute)()[0]) == 1
