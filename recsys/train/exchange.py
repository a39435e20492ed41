"""What the workers tell each other of the dense part: gradients, or now and then the weights.

The gradient of each step in float32 is `DistributedDataParallel`'s own way, and needs nothing of
this module.
"""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from recsys.config.run import TrainConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class LocalSteps:
    """Steps by the worker's own gradient, and the mean of all workers' weights after some of them.

    Local SGD (Stich 2019) with AdamW, whose moments are averaged as the weights are. In between a
    worker's dense part is its own; a checkpoint needs the mean.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, every: int
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.optimizer, self.every, self.steps = optimizer, every, 0

    def step_taken(self) -> None:
        """Counts a step, the same one of all workers; the mean is taken where it is due."""
        self.steps += 1
        if self.steps == self.every:
            self.average()

    def average(self) -> None:
        """Gives all workers the mean of their weights and moments; they count from 0 again."""
        if not self.steps:
            return
        state = self.optimizer.state
        moments = [[state[p][name] for name in MOMENTS] for p in self.parameters]
        average_over_workers([p.data for p in self.parameters] + list(chain(*moments)))
        self.steps = 0


def average_over_workers(tensors: Sequence[Tensor]) -> None:
    """Puts the mean of all workers' values into each tensor, in one exchange of all."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
        tensor.copy_(mean.view_as(tensor))


# DDP reads the types of the next two: they must be no text, as `from __future__` would make them.
def own_gradient(_: object, bucket: dist.GradBucket) -> Future[Tensor]:
    """Exchanges nothing: the gradient stays the worker's own."""
    future: Future[Tensor] = Future()
    future.set_result(bucket.buffer())
    return future


def half_gradient(_: object, bucket: dist.GradBucket) -> Future[Tensor]:
    """The mean of all workers' gradients, sent in bfloat16; PyTorch's own hook wants NCCL."""
    gradient = bucket.buffer()
    halves = gradient.to(torch.bfloat16) / dist.get_world_size()

    def whole(sent: Future[list[Tensor]]) -> Tensor:
        return gradient.copy_(sent.value()[0])

    exchanged: Future[Tensor] = dist.all_reduce(halves, async_op=True).get_future().then(whole)
    return exchanged


def set_exchange(
    module: DistributedDataParallel,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> LocalSteps | None:
    """Has the workers exchange what the settings say, from the first step on.

    Args:
        module: What holds the dense part; it has taken no step yet.
        parameters: Those of the dense part.
        optimizer: The AdamW that learns them.
        config: `exchange_precision` and `average_every` count here.

    Returns:
        What counts the steps between two means; None where each step's gradient is exchanged.
    """
    if config.average_every > 1:
        module.register_comm_hook(None, own_gradient)
        return LocalSteps(parameters, optimizer, config.average_every)
    if config.exchange_precision == "bfloat16":
        module.register_comm_hook(None, half_gradient)
    return None
