import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from recsys.errors import InputError
from recsys.model.frames import make_frame_encoder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "dim"), [("small_cnn", 1024), ("efficientnet_lite0", 1280)])
def test_shapes_and_batches(name: str, dim: int) -> None:
    encoder = make_frame_encoder(name).train()
    frames = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        features = encoder(frames)
        alone = torch.cat([encoder(frame[None]) for frame in frames])
    assert encoder.out_dim == dim
    assert features.shape == (3, dim)
    assert torch.allclose(features, alone, atol=1e-4)  # even in training mode


def test_the_small_cnn_keeps_places() -> None:
    encoder = make_frame_encoder("small_cnn")
    left, right = torch.zeros(2, 1, 3, 64, 64)
    left[..., :16], right[..., -16:] = 1, 1
    with torch.no_grad():
        difference = (encoder(left) - encoder(right)).abs().mean()
    assert difference > 0.05


def test_the_seed_decides_and_the_global_generator_stays() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = make_frame_encoder("small_cnn", seed=1)
    assert torch.equal(torch.rand(1), expected)
    two, three = (make_frame_encoder("small_cnn", seed=seed) for seed in (1, 2))
    frames = torch.rand(1, 3, 32, 32)
    assert torch.equal(one(frames), two(frames))
    assert not torch.equal(one(frames), three(frames))


def test_the_pretrained_one_knows_what_it_sees() -> None:
    """Two views of one texture are nearer than two textures."""
    torch.manual_seed(0)
    stripes = (torch.arange(128) % 16 < 8).float().expand(3, 128, 128)
    checks = ((torch.arange(128)[:, None] // 16 + torch.arange(128) // 16) % 2).float()
    frames = torch.stack([stripes, stripes.roll(3, -1), checks.expand(3, 128, 128)])
    with torch.no_grad():
        features = nn.functional.normalize(make_frame_encoder("efficientnet_lite0")(frames))
    assert features[0] @ features[1] > features[0] @ features[2] + 0.1


def test_batch_norm_stays_as_it_was_trained() -> None:
    encoder = make_frame_encoder("efficientnet_lite0").train()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = norms[0].running_mean.clone()  # type: ignore[union-attr]
    encoder(torch.rand(2, 3, 64, 64))
    assert not any(norm.training for norm in norms)
    assert torch.equal(norms[0].running_mean, before)  # type: ignore[arg-type]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_encoders.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "good = lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n"
        "maps = lambda: nn.Conv2d(3, 8, 3)\n"
        "words = lambda: nn.Linear(7, 7)\n"
        "number = lambda: 3\n"
        "def broken():\n"
        "    raise OSError('no weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_encoders", None)


def test_the_users_own(own: None) -> None:
    encoder = make_frame_encoder("own_encoders:good")
    assert encoder.out_dim == 12
    assert encoder(torch.rand(5, 3, 8, 8)).shape == (5, 12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet", "unknown; allowed: small_cnn, efficientnet_lite0"),
        ("own_encoders:", "unknown"),
        ("no_such_module:make", "cannot be imported: No module named"),
        ("own_encoders:none", "cannot be imported: .*no attribute 'none'"),
        ("own_encoders:number", "returns int, not a torch nn.Module"),
        ("own_encoders:broken", "cannot be made: no weights"),
        ("own_encoders:maps", r"gives \(2, 8, 62, 62\) for 2 frames, not \(2, features\)"),
        ("own_encoders:words", r"does not take \(N, 3, H, W\) frames"),
    ],
)
def test_a_wrong_name_is_explained(name: str, said: str, own: None) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make_frame_encoder(name)
    assert "\n" not in str(caught.value)
