"""EfficientNet-Lite as a frozen encoder: the same features in fewer and cheaper steps.

A network that is not trained needs no batch norm of its own: with fixed statistics it is a factor
and an addition for each channel, which the convolution before it takes into its weights. What the
convolution can pad itself needs no padded copy of its input. Nothing here is trained or saved: the
model that is trained has the package's modules and the names of their weights.

Shapes: N frames, C channels, H × W pixels, as in `recsys.model.frames`; Z features of a frame.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PIXEL_SHIFT, _PIXEL_SCALE = 127, 128
"""The Lite models were trained on (pixel - 127) / 128."""


class FoldedEfficientNet(nn.Module):
    """A copy of an EfficientNet-Lite up to its pooled features, for inference alone.

    Args:
        net: The package's `EfficientNet` in evaluation mode; it is left as it was.
        dtype: What weights and activations are in. The mean over the places is taken in float32.
        on_gpu: Whether 1 × 1 convolutions are products of matrices: those add their bias on the
            way, for which a GPU's convolutions read and write everything once more. On a CPU the
            convolutions are quicker.
    """

    def __init__(self, net: Any, *, dtype: torch.dtype = torch.float32, on_gpu: bool = False):
        super().__init__()
        self.dtype = dtype
        stem = _folded(net._conv_stem, net._bn0)
        # A power of two: the pixels need not be divided, and no product is rounded otherwise.
        stem[-1].weight.data.div_(_PIXEL_SCALE)
        layers = [*stem, nn.ReLU6(inplace=True), *(_Block(block) for block in net._blocks)]
        layers += [*_folded(net._conv_head, net._bn1), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers).eval().requires_grad_(False)
        if on_gpu:
            _make_products(self.layers)
        self.layers.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Encodes frames (N, 3, H, W) of uint8: (N, Z) in float32.

        Both a pixel and its difference from 127 are whole numbers that all three types have.
        """
        maps = self.layers(frames_NCHW.to(self.dtype) - _PIXEL_SHIFT)
        return cast(Tensor, maps.mean(dim=(2, 3), dtype=torch.float32))


class _Block(nn.Module):
    """An inverted residual block: expansion (but in the first block), depthwise, projection."""

    def __init__(self, block: Any):
        super().__init__()
        layers: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            layers += [*_folded(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        layers += [*_folded(block._depthwise_conv, block._bn1), nn.ReLU6(inplace=True)]
        layers += _folded(block._project_conv, block._bn2)
        self.layers = nn.Sequential(*layers)
        settings = block._block_args
        same = settings.stride == 1 and settings.input_filters == settings.output_filters
        self.adds_input = block.id_skip and same

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        out = cast(Tensor, self.layers(maps_NCHW))
        return out.add_(maps_NCHW) if self.adds_input else out


class _Pointwise(nn.Linear):
    """A 1 × 1 convolution as a product of matrices; nothing is moved where channels lie last."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return super().forward(maps_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _make_products(module: nn.Module) -> None:
    """Puts a product of matrices in the place of each 1 × 1 convolution."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and child.stride == (1, 1):
            product = _Pointwise(child.in_channels, child.out_channels).requires_grad_(False)
            weights = child.state_dict()
            product.load_state_dict({**weights, "weight": weights["weight"].flatten(1)})
            setattr(module, name, product)
        else:
            _make_products(child)


def _folded(conv: Any, norm: Any) -> list[Any]:
    """A convolution of the package and the batch norm after it as one layer, padding before it.

    The package pads for images of 224 pixels, whatever it is given. Where it pads both sides alike
    the convolution does it; with a stride of 2 the sides differ, and a layer of its own remains.
    """
    fused = fuse_conv_bn_eval(conv, norm)
    left, right, top, bottom = getattr(fused.static_padding, "padding", (0, 0, 0, 0))
    alike = left == right and top == bottom
    plain = nn.Conv2d(
        fused.in_channels,
        fused.out_channels,
        fused.kernel_size,
        stride=fused.stride,
        padding=(top, left) if alike else 0,
        groups=fused.groups,
    )
    plain.load_state_dict(fused.state_dict())
    return [plain] if alike else [nn.ZeroPad2d((left, right, top, bottom)), plain]
