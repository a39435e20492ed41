"""Taking training steps: one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.features.inputs import Batch, move
from recsys.model.recommender import Losses
from recsys.train.trainable import Trainable

StepLoss = Callable[[Losses, Batch], Tensor]
"""The step's loss (); called before backward, with the weights that gave the losses."""
Step = tuple[Losses, Batch]
"""A batch that was learnt from, and the losses that it had before."""


@dataclass(frozen=True)
class SingleSteps:
    """Copies a batch, then computes with it, then takes the next."""

    trainable: Trainable
    step_loss: StepLoss
    device: torch.device
    clip_norm: float
    """Largest norm of the dense gradient."""

    def next_step(self, batches: Iterator[Batch]) -> Step | None:
        """Learns from the next batch; None where there is no other one."""
        on_host = next(batches, None)
        if on_host is None:
            return None
        batch = move(on_host, self.device)
        self.trainable.optimizer.zero_grad()
        losses = self.trainable.losses(batch)
        self.step_loss(losses, batch).backward()  # type: ignore[no-untyped-call]
        self.trainable.update(self.clip_norm)
        return losses, batch
