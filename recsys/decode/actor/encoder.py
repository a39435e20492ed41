"""The frozen frame encoder, which takes the clips of many videos at a time.

On a GPU a batch is copied from pinned memory on a stream of its own, so that the copy of one batch
and what is computed of the one before it go on at the same time.

Shapes: N frames of a batch, S frames of a clip, H × W pixels (equal), C colours, Z
features of a frame.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.config.data import DecodeConfig

if TYPE_CHECKING:
    import torch

Frames = NDArray[np.uint8]
"""(S, H, W, 3)."""
Features = NDArray[np.float16]
"""(S, Z)."""
Encoded = tuple[list[Features], float]
"""The features of each clip, and the seconds that the encoder was busy with all of them."""


@dataclass(frozen=True)
class EncoderSettings:
    """What runs the encoder, and how much it takes at a time."""

    device: str = "cpu"
    """As torch calls it: `cpu`, `cuda`, `cuda:1`."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of matrix products and convolutions; `auto` as `DecodeConfig.encode_precision` says."""
    compiled: bool = False
    """Whether `torch.compile` makes kernels for batches of exactly `batch_frames`."""
    batch_frames: int = 1
    """N at most; a clip of more frames is a batch of its own."""

    @classmethod
    def of(cls, config: DecodeConfig, *, has_gpu: bool) -> EncoderSettings:
        """What a config asks for on the worker's device.

        On a CPU a clip is a batch: more frames would only leave its caches.

        >>> EncoderSettings.of(DecodeConfig(), has_gpu=False)
        EncoderSettings(device='cpu', precision='auto', compiled=False, batch_frames=1)
        """
        if not has_gpu:
            return cls("cpu", config.encode_precision)
        return cls("cuda", config.encode_precision, config.encode_compiled, config.encode_frames)


class ClipEncoder:
    """Frames to features, a batch of clips at a time.

    Args:
        name: As `recsys.model.frames.make_frame_encoder` takes it.
        settings: What it runs on.
    """

    def __init__(self, name: str, settings: EncoderSettings | None = None):
        import torch

        from recsys.model.frames import make_frame_encoder

        self.settings = settings or EncoderSettings()
        self._device = torch.device(self.settings.device)
        trainable = make_frame_encoder(name).eval()
        self.dim = trainable.out_dim
        on_gpu, precision = self._device.type == "cuda", self.settings.precision
        if precision == "auto":
            precision = trainable.quick_precision if on_gpu else "float32"
        encoder = trainable.frozen(precision, on_gpu=on_gpu).to(self._device)
        if on_gpu:
            encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._encoder: Callable[[torch.Tensor], torch.Tensor] = encoder
        if self.settings.compiled:
            self._encoder = torch.compile(encoder)
        self._copies = _Copies(self._device) if self._device.type == "cuda" else None

    def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
        """Begins to encode a batch of clips, each (S, H, W, 3); the result waits for its end.

        On a GPU two batches may be on their way at a time, no more: the third takes the memory of
        the first.
        """
        lengths = [len(clip) for clip in clips]
        if self._copies is None:
            return self._on_cpu(np.concatenate(clips), lengths)
        return self._copies.start(clips, self._padded(sum(lengths)), self._features)

    def _padded(self, num_frames: int) -> int:
        """How long the batch is made: a compiled encoder knows one length."""
        return max(num_frames, self.settings.batch_frames) if self.settings.compiled else num_frames

    def _on_cpu(self, frames_NHWC: Frames, lengths: list[int]) -> Callable[[], Encoded]:
        import torch

        began = time.perf_counter()
        num = len(frames_NHWC)
        frames = torch.zeros(self._padded(num), *frames_NHWC.shape[1:], dtype=torch.uint8)
        frames[:num] = torch.from_numpy(frames_NHWC)
        values = self._features(frames)[:num].numpy()
        encoded = split_clips(values, lengths), time.perf_counter() - began
        return lambda: encoded

    def _features(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 on the device → (N, Z) float16 there.

        Pixels lie with their channels last, and permuted they still do.
        """
        import torch

        with torch.inference_mode():
            return self._encoder(frames_NHWC.permute(0, 3, 1, 2)).to(torch.float16)


class _Copies:
    """Batches on their way to a GPU and their features on the way back."""

    def __init__(self, device: torch.device):
        import torch

        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned: list[torch.Tensor | None] = [None, None]

    def start(
        self,
        clips: Sequence[Frames],
        num_frames: int,
        compute: Callable[[torch.Tensor], torch.Tensor],
    ) -> Callable[[], Encoded]:
        """Puts copy, computation and copy back in line, without waiting for any."""
        import torch

        lengths = [len(clip) for clip in clips]
        host = self._staged(clips, num_frames)
        with torch.cuda.stream(self._stream):
            frames = host.to(self._device, non_blocking=True)
            copied = self._stream.record_event()
        main = torch.cuda.current_stream(self._device)
        main.wait_event(copied)
        frames.record_stream(main)
        timed = functools.partial(torch.cuda.Event, enable_timing=True)
        began, ended, back = timed(), timed(), timed()
        began.record(main)
        on_device = compute(frames)[: sum(lengths)]
        ended.record(main)
        values = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
        values.copy_(on_device, non_blocking=True)
        back.record(main)

        def result() -> Encoded:
            back.synchronize()
            return split_clips(values.numpy(), lengths), began.elapsed_time(ended) / 1e3

        return result

    def _staged(self, clips: Sequence[Frames], num_frames: int) -> torch.Tensor:
        """The clips one after the other in pinned memory: two places that take turns."""
        import torch

        shape = clips[0].shape[1:]
        place, other = self._pinned
        if place is None or len(place) < num_frames or place.shape[1:] != shape:
            place = torch.zeros(num_frames, *shape, dtype=torch.uint8, pin_memory=True)
        self._pinned = [other, place]
        np.concatenate(clips, out=place.numpy()[: sum(len(clip) for clip in clips)])
        return place[:num_frames]


def split_clips(values_NZ: NDArray[np.float16], lengths: Sequence[int]) -> list[Features]:
    """The features of each clip, in memory of their own.

    >>> [part.tolist() for part in split_clips(np.zeros((3, 1), np.float16), [1, 2])]
    [[[0.0]], [[0.0], [0.0]]]
    """
    stops = np.cumsum(lengths)[:-1]
    return [part.copy() for part in np.split(values_NZ, stops)]
