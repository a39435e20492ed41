"""What training does at each place: partitions, learning rate, ID dropout, and when it is over.

All of it follows from the place alone, so that training that goes on from a checkpoint does what it
would have done without the stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.config.run import RunConfig, TrainConfig
from recsys.data.ragged import IntArray
from recsys.features.batches import epoch_order
from recsys.train.checkpoint import Progress

WARMUP_STEPS = 50
FINAL_LR = 0.05
"""Share of the peak learning rate that is left at the end."""


@dataclass(frozen=True)
class Stretch:
    """A part of a training, for whoever trains one part after the other."""

    start: str | None = None
    """The checkpoint that it goes on from, place and all; None begins the training."""
    last_epoch: int | None = None
    """The epoch that it ends with, and nowhere else; None: where the training does."""


@dataclass(frozen=True)
class Schedule:
    """The plan of a training; a place in it is a `Progress`."""

    train: TrainConfig
    epochs: int
    """How many there are at most."""
    num_partitions: int
    workers: int = 1
    """They share the partitions of a round, one each."""
    id_dropout: float = 0.0
    """`model.id_dropout`, which applies once content alone has had its epochs."""
    validates: bool = True
    """Whether validation may end the training before its last epoch."""
    last_epoch: int | None = None
    """The epoch that training ends with, whatever validation says; None: as `is_over` tells."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        *,
        epochs: int,
        num_partitions: int,
        workers: int,
        validates: bool,
        last_epoch: int | None = None,
    ) -> Schedule:
        """Makes the schedule that a run's settings ask for."""
        dropout = config.model.id_dropout
        return cls(config.train, epochs, num_partitions, workers, dropout, validates, last_epoch)

    def is_over(self, place: Progress) -> bool:
        """Whether all epochs are done, or validation has not got better for `train.patience`.

        A stretch is over after its last epoch.
        """
        if self.last_epoch is not None:
            return place.epoch >= self.last_epoch
        waited = place.epoch - place.best_epoch
        return place.epoch >= self.epochs or (self.validates and waited >= self.train.patience)

    def epochs_done(self, place: Progress) -> float:
        """Finished epochs, and the part of this one that is done."""
        return place.epoch + place.partitions / self.num_partitions

    def rounds(self, place: Progress) -> list[IntArray]:
        """The partitions of the rounds that are left of the epoch.

        A round has one for each worker; the epoch's last may have fewer.
        """
        order = epoch_order(self.num_partitions, seed=self.train.seed, epoch=place.epoch)
        firsts = range(place.partitions, self.num_partitions, self.workers)
        return [order[first : first + self.workers] for first in firsts]

    def checkpoint_is_due(self, place: Progress, since: int) -> bool:
        """Whether a checkpoint inside the epoch is worth its time.

        Args:
            place: After a round.
            since: Partitions that the rounds since the last checkpoint had room for.
        """
        left = self.num_partitions - place.partitions  # the epoch's own comes after them
        return min(since, left) >= self.train.checkpoint_every_partitions

    def rng(self, place: Progress, rank: int) -> np.random.Generator:
        """The random numbers of one worker's round: the same again after a restart."""
        return np.random.default_rng([self.train.seed, place.epoch, place.partitions, rank])

    def step_order(self, place: Progress, steps: int) -> IntArray:
        """The order of a round's steps, the same in all workers: see `in_step`."""
        nobody = self.workers
        return self.rng(place, nobody).permutation(steps)

    def id_dropout_at(self, place: Progress) -> float:
        """Share of the videos that are known by their content alone in this epoch."""
        content_alone = place.epoch < self.train.content_first * self.epochs
        return 1.0 if content_alone else self.id_dropout

    def lr(self, place: Progress) -> float:
        """The dense learning rate of the next step, by warm-up and decay."""
        return self.train.lr * lr_share(place.steps, self.epochs_done(place), self.epochs)


def lr_share(steps: int, epochs_done: float, epochs: int) -> float:
    """Share of the peak learning rate: a short warm-up, then a straight line down.

    >>> round(lr_share(1000, 5, 10), 3), lr_share(24, 0, 10)
    (0.525, 0.5)
    """
    decay = 1 - (1 - FINAL_LR) * min(epochs_done / max(epochs, 1), 1)
    return min(1.0, (steps + 1) / WARMUP_STEPS) * decay
