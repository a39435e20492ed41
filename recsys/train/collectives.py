"""What the workers of a training compute together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Collectives:
    """One of the workers, and how it adds up what all of them have.

    Every worker must make the same calls in the same order. A worker that is alone needs no process
    group.
    """

    rank: int = 0
    """The number of this worker."""
    workers: int = 1
    """How many there are."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    """Where the process group exchanges tensors."""

    def sum(self, mine: Tensor) -> Tensor:
        """The sum of all workers' tensors, on the CPU.

        >>> Collectives().sum(torch.tensor([1, 2])).tolist()
        [1, 2]
        """
        if self.workers == 1:
            return mine
        shared = mine.to(self.device, copy=True)
        dist.all_reduce(shared)
        return shared.cpu()

    def max(self, mine: int) -> int:
        """The largest of all workers' numbers; every worker calls it and gets the same."""
        if self.workers == 1:
            return mine
        shared = torch.tensor(mine, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def gather(self, mine: T) -> list[T]:
        """The objects of all workers in the order of their ranks; every worker calls it."""
        if self.workers == 1:
            return [mine]
        gathered: list[T] = [mine] * self.workers
        dist.all_gather_object(gathered, mine)
        return gathered
