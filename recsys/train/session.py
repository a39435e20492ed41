"""Where a training's checkpoints and figures go: Ray Train keeps them, or whoever else trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import ray.train


class Session(Protocol):
    """What the training loop asks of whoever runs it."""

    def newest(self) -> AbstractContextManager[str | None]:
        """A local folder with the checkpoint to go on from; None where training begins."""

    def report(self, figures: dict[str, float], folder: str) -> None:
        """Takes a checkpoint out of a local folder, with the figures that it has."""

    def leaving_nodes(self) -> set[str]:
        """The nodes that have announced their end; every worker asks equally often."""


class RayTrainSession:
    """Ray Train's own, for workers of a `TorchTrainer`."""

    @contextmanager
    def newest(self) -> Iterator[str | None]:
        """The checkpoint that Ray Train kept of this run folder and name."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield folder

    def report(self, figures: dict[str, float], folder: str) -> None:
        """Hands both to Ray Train, which copies the folder before this returns."""
        ray.train.report(figures, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def leaving_nodes(self) -> set[str]:
        """Those of spot machines, mostly; all workers get the same answer."""
        info = ray.train.get_preemption_info()
        return set() if info is None else set(info.preempted_node_ids)
