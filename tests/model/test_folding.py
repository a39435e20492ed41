"""The frozen encoder gives what the trained one gives, in fewer steps."""

import pytest
import torch
from torch import Tensor, nn

from recsys.model.folding import FoldedEfficientNet
from recsys.model.frames import FrameEncoder, Precision, make_frame_encoder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plain() -> FrameEncoder:
    return make_frame_encoder("efficientnet_lite0").eval()


def frames(size: int, num: int = 3) -> Tensor:
    """(N, 3, H, W) of uint8 whose channels lie last, as the decoder's do."""
    pixels = torch.Generator().manual_seed(size)
    shape = (num, size, size, 3)
    return torch.randint(0, 256, shape, generator=pixels, dtype=torch.uint8).permute(0, 3, 1, 2)


@torch.inference_mode()
def features(encoder: nn.Module, frames_NCHW: Tensor) -> Tensor:
    return encoder(frames_NCHW)


def away(values: Tensor, expected: Tensor) -> float:
    return float((values - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", [112, 64, 111, 224, 33])
def test_the_folded_one_gives_the_same_whatever_the_padding_meets(
    size: int, plain: FrameEncoder
) -> None:
    values = features(plain.frozen(), frames(size))
    expected = features(plain, frames(size).float() / 255)
    assert values.dtype == torch.float32 and values.shape == (3, 1280)
    assert away(values, expected) < 1e-5
    assert (values - expected).abs().max() < 1e-4 * expected.abs().max()


def test_memory_whose_channels_lie_first_gives_the_same(plain: FrameEncoder) -> None:
    folded = plain.frozen()
    values = features(folded, frames(64).contiguous())
    torch.testing.assert_close(values, features(folded, frames(64)), atol=1e-4, rtol=1e-4)


def test_no_batch_norm_is_left_and_padding_only_where_the_sides_differ(
    plain: FrameEncoder,
) -> None:
    layers = [layer for layer in plain.frozen().modules() if not list(layer.children())]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert all(layer.inplace for layer in layers if isinstance(layer, nn.ReLU6))
    padded = [
        after
        for layer, after in zip(layers, layers[1:], strict=False)
        if isinstance(layer, nn.ZeroPad2d)
    ]
    # The stem and the first blocks of stages 2, 3, 4 and 6 halve the image.
    assert len(padded) == 5
    assert all(isinstance(conv, nn.Conv2d) and conv.stride == (2, 2) for conv in padded)


def test_what_is_folded_stays_as_it_was() -> None:
    plain = make_frame_encoder("efficientnet_lite0").eval()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    expected = features(plain, frames(64).float() / 255)
    folded = plain.frozen("bfloat16")
    features(folded, frames(64))
    after = plain.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(features(plain, frames(64).float() / 255), expected)
    assert all(weight.requires_grad for weight in plain.parameters())
    assert not any(weight.requires_grad for weight in folded.parameters())


def test_in_bfloat16_it_is_as_near_as_autocast_without_a_cast_of_weights(
    plain: FrameEncoder,
) -> None:
    folded = plain.frozen("bfloat16")
    assert {weight.dtype for weight in folded.parameters()} == {torch.bfloat16}
    expected = features(plain, frames(112).float() / 255)
    with torch.autocast("cpu", torch.bfloat16):
        by_autocast = features(plain, frames(112).float() / 255)
    values = features(folded, frames(112))
    assert values.dtype == torch.float32  # the mean over the places is not rounded
    # Either rounds each weight to 8 bits, but not the same numbers: 4 % and 6 %.
    assert away(values, expected) < 2 * away(by_autocast, expected) < 0.15


def test_in_float16_it_is_nearer(plain: FrameEncoder) -> None:
    """On a GPU `auto` takes it, of an encoder whose activations are known to stay small."""
    expected = features(plain, frames(112).float() / 255)
    values = features(plain.frozen("float16"), frames(112))
    assert values.isfinite().all()
    assert away(values, expected) < 0.01
    assert plain.quick_precision == "float16"
    assert make_frame_encoder("small_cnn").quick_precision == "bfloat16"


def test_as_products_of_matrices_it_gives_the_same(plain: FrameEncoder) -> None:
    folded, products = plain.frozen(), plain.frozen(on_gpu=True)
    left = [m for m in products.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert not left and sum(isinstance(m, nn.Linear) for m in products.modules()) == 32
    assert away(features(products, frames(112)), features(folded, frames(112))) < 1e-5


def test_every_pixel_is_exact_in_bfloat16() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    seen = []
    encoder = make_frame_encoder("efficientnet_lite0").eval().frozen("bfloat16")
    assert isinstance(encoder, FoldedEfficientNet)
    encoder.layers = nn.Sequential(nn.Identity())
    encoder.layers[0].register_forward_hook(lambda _, __, out: seen.append(out))
    encoder(pixels.reshape(1, 1, 16, 16))
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].flatten().tolist() == [pixel - 127 for pixel in range(256)]


class Own(nn.Module):
    """A user's encoder, with a batch norm and a method of a name of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2)
        )

    def frozen(self) -> None:
        raise AssertionError("a user's method means what the user says")

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        return self.layers(frames_NCHW).flatten(1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["small_cnn", "own"])
def test_any_other_encoder_runs_as_it_did(name: str, precision: Precision) -> None:
    """With autocast, in which the group norm of `small_cnn` says for itself what it takes."""
    encoder = FrameEncoder(Own(), out_dim=32) if name == "own" else make_frame_encoder(name)
    encoder.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        expected = features(encoder, frames(64).float() / 255)
    values = features(encoder.frozen(precision), frames(64))
    assert torch.equal(values, expected)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
