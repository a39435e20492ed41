import math

import pytest
import torch
from torch import Tensor

from recsys.model.numbers import NUM_WAVES, VALUES, NumberEmbedding


def test_values_by_hand() -> None:
    """Of one number: the first value is the first wave's cosine, the second the sum of its sine
    and a bias, the others are below 0 and so nothing."""
    net = NumberEmbedding(2)
    with torch.no_grad():
        net.frequency.fill_(0)
        net.weight.fill_(0)
        net.bias.fill_(-1)
        net.frequency[1, 0] = 0.5
        net.weight[1, 0, 0], net.bias[1, 0] = 1, 0
        net.weight[1, NUM_WAVES, 1], net.bias[1, 1] = 1, 0.25
    outputs = net(torch.tensor([[[9.0, 0.25], [9.0, 1.0]]]))
    sine = math.sin(math.pi / 4)
    assert outputs.shape == (1, 2, 2 * VALUES)
    nothing = [0.0] * VALUES
    first, second = outputs[0].tolist()
    assert first == pytest.approx([*nothing, sine, sine + 0.25, 0, 0], abs=1e-6)
    assert second == pytest.approx([*nothing, 0, 0.25, 0, 0], abs=1e-6)


def test_making_the_waves_again_changes_no_gradient() -> None:
    torch.manual_seed(0)
    net, numbers = NumberEmbedding(3), torch.randn(4, 5, 3, requires_grad=True)

    def gradients(embedded: Tensor) -> list[Tensor]:
        weighed = (embedded * torch.arange(embedded.numel()).view_as(embedded)).sum()
        return list(torch.autograd.grad(weighed, [numbers, *net.parameters()]))

    for ours, plain in zip(gradients(net(numbers)), gradients(net._embed(numbers)), strict=True):
        assert torch.equal(ours, plain)


def test_one_event_and_no_event() -> None:
    net = NumberEmbedding(3)
    assert net(torch.zeros(1, 3)).shape == (1, 3 * VALUES)
    assert net(torch.zeros(0, 4, 3)).shape == (0, 4, 3 * VALUES)
