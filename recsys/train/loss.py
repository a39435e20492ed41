"""The loss that a training step minimizes: the mean losses of all workers' events.

DDP and TorchRec give every worker the mean over the W workers of their gradients, however much each
had to learn from. A mean over all events comes out where each divides the sum of its losses not by
its own number of events but by the mean over the workers of their numbers:

    mean_w(sum_w / (mean_v n_v)) = (sum_w sum_w) / (sum_v n_v)

and a worker without events then takes nothing away from the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.config.run import RunConfig
from recsys.features.inputs import Batch
from recsys.model.recommender import Losses


@dataclass(frozen=True)
class LossWeights:
    """How much each of a step's losses counts."""

    retrieval: float
    tasks: Tensor
    """(T,) on the worker's device."""

    @classmethod
    def of(cls, config: RunConfig, device: torch.device) -> LossWeights:
        """The config's weights; a task that it does not name has weight 1."""
        train, tasks = config.train, config.data.columns.tasks
        weights = torch.tensor([train.task_weights.get(name, 1.0) for name in tasks])
        return cls(train.retrieval_weight, weights.to(device))

    def combine(self, losses: Losses, batch: Batch) -> Tensor:
        """The loss () whose mean over the workers is that of all their events."""
        num = batch.num_learnt
        num_positive, num_events = num + (num == 0)
        tasks = losses.tasks.dot(self.tasks / num_events)
        return tasks + losses.retrieval * (self.retrieval / num_positive)
