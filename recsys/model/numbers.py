"""Numbers as a neural network likes them: some waves of each, so that it may bend anywhere.

A linear layer sees a rate as more or less; that a video with three events is another thing than one
with none or thirty, it learns slowly. What gradient boosting gets from thresholds, the waves give.

Shapes: F numbers, which are the count features of an event; each is made into `NUM_WAVES` sines and
cosines and then into `VALUES` values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NUM_WAVES, VALUES = 8, 4
WAVE_SCALE = 0.3
"""Standard deviation of the first frequencies: the numbers are a few units apart at most."""


class NumberEmbedding(nn.Module):
    """Numbers (…, F) -> (…, F · VALUES).

    Each becomes sines and cosines of learnt frequencies, and these `VALUES` values through a linear
    layer of its own and a ReLU (Gorishniy et al. 2022, "On Embeddings for Numerical Features in
    Tabular Deep Learning", where it is called PLR).

    >>> NumberEmbedding(3)(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 12])
    """

    def __init__(self, num: int) -> None:
        super().__init__()
        self.out_dim = num * VALUES
        self.frequency = nn.Parameter(WAVE_SCALE * torch.randn(num, NUM_WAVES))
        weight = torch.randn(num, 2 * NUM_WAVES, VALUES) / math.sqrt(2 * NUM_WAVES)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(num, VALUES))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embeds numbers (…, F): (…, F · VALUES)."""
        if numbers.is_cuda or not torch.is_grad_enabled():
            return self._embed(numbers)
        # The waves are made again in backward: they are many times the numbers that they are of. A
        # GPU has room for them, and would wait for the CPU, which has twice as much to start.
        values: Tensor = checkpoint(
            self._embed, numbers, use_reentrant=False, preserve_rng_state=False
        )
        return values

    def _embed(self, numbers: Tensor) -> Tensor:
        angles = numbers.unsqueeze(-1) * (2 * math.pi * self.frequency)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        # (F, 1, VALUES) + (F, everything else, 2 · NUM_WAVES) @ (F, 2 · NUM_WAVES, VALUES)
        waves = waves.flatten(0, -3).transpose(0, 1)
        values = torch.baddbmm(self.bias.unsqueeze(1), waves, self.weight)
        return values.relu().transpose(0, 1).reshape(*numbers.shape[:-1], self.out_dim)
