"""Taking training steps: one after the other, or overlapped on a GPU by TorchRec's pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.data.inputs import Batch, move
from recsys.model.recommender import Losses
from recsys.train.trainable import Trainable

Weigh = Callable[[Losses, Batch], Tensor]
"""The step's loss (); called before backward, with the weights that gave the losses."""
Taken = tuple[Losses, Batch]


@dataclass(frozen=True)
class SingleSteps:
    """Copies a batch, then computes with it, then takes the next."""

    trainable: Trainable
    weigh: Weigh
    device: torch.device
    clip_norm: float
    """Largest norm of the dense gradient."""

    def take(self, batches: Iterator[Batch]) -> Iterator[Taken]:
        """Learns from each batch, and gives it back with its losses."""
        for on_host in batches:
            batch = move(on_host, self.device)
            self.trainable.optimizer.zero_grad()
            losses = self.trainable.losses(batch)
            self.weigh(losses, batch).backward()  # type: ignore[no-untyped-call]
            clip(self.trainable, self.clip_norm)
            self.trainable.optimizer.step()
            yield losses, batch


class PipelinedSteps:
    """`TrainPipelineSparseDist`: while a batch is computed with, the next one's rows are sent for.

    The copy of the batch after it and the exchange of the rows that the workers ask each other for
    run on streams of their own. The steps and their results are those of `SingleSteps`.
    """

    def __init__(
        self, trainable: Trainable, weigh: Weigh, device: torch.device, clip_norm: float
    ) -> None:
        from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
        from torchrec.streamable import Pipelineable

        Pipelineable.register(Batch)
        self.trainable, self.weigh = trainable, weigh
        self.pipeline = TrainPipelineSparseDist(
            model=trainable.module,
            optimizer=_Clipped(trainable, clip_norm),
            device=device,
            custom_model_fwd=self._forward,
        )

    def take(self, batches: Iterator[Batch]) -> Iterator[Taken]:
        """Learns from each batch, and gives it back with its losses."""
        keyed = map(self._with_keys, batches)
        try:
            while True:
                try:
                    taken = self.pipeline.progress(keyed)
                except StopIteration:
                    return
                yield taken
        finally:
            self.pipeline.detach()  # validation and checkpoints want the tables as they were

    def _with_keys(self, batch: Batch) -> Batch:
        videos = batch.videos
        videos.keyed = self.trainable.model.tables.keyed(videos.table_inputs())  # type: ignore[operator]
        return batch.pinned() if torch.cuda.is_available() else batch

    def _forward(self, batch: Batch) -> tuple[Tensor, Taken]:
        losses = self.trainable.losses(batch)
        return self.weigh(losses, batch), (losses, batch)


class _Clipped:
    """The optimizer as the pipeline steps it."""

    def __init__(self, trainable: Trainable, clip_norm: float) -> None:
        self.trainable, self.clip_norm = trainable, clip_norm

    def zero_grad(self) -> None:
        self.trainable.optimizer.zero_grad()

    def step(self) -> Any:
        clip(self.trainable, self.clip_norm)
        return self.trainable.optimizer.step()


def clip(trainable: Trainable, clip_norm: float) -> None:
    """Clips the dense gradient; the tables have learnt inside backward already."""
    torch.nn.utils.clip_grad_norm_(trainable.dense_parameters(), clip_norm)
