"""A process of test_ranks.py: `python rank_worker.py TABLES RANK WORLD FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from recsys.data.run_folder import RunFolder
from recsys.features.timelines import join
from recsys.schema import TEST, VALID
from recsys.train.checkpoint import Progress, save
from recsys.train.loop import Job, Worker
from tests.steps import make_config, make_timelines
from tests.train import memory
from tests.train.memory import Checkpoints, MemoryPrepared, Stopped, make_worker, split_off

EPOCHS = 3
CASES = {"unequal": (30, 2), "idle": (12,)}
"""Users of each partition; a worker's step takes all of one. In the first case one worker learns
from many times the events of the other, in the second the other has nothing to do."""


def make_prepared(case: str, folder: Path, *, alone: bool, **train: Any) -> MemoryPrepared:
    """The partitions of a case, or all of their users in one for the process that is alone."""
    parts = [split_off(make_timelines(seed, users)) for seed, users in enumerate(CASES[case])]
    # Clipping would make steps of wrong sizes the same.
    settings = {"batch_timelines": 100, "task_weights": {"like": 3.0}, "clip_norm": 1e9}
    config = make_config(run=str(folder), train={**settings, **train})
    return MemoryPrepared(config, (join(parts),) if alone else tuple(parts))


class Process:
    """What one of `place[1]` processes does."""

    def __init__(self, tables: str, place: tuple[int, int], folder: Path) -> None:
        self.tables, self.place, self.folder = tables, place, folder
        self.alone, self.patch = place[1] == 1, pytest.MonkeyPatch()

    def worker(
        self, prepared: MemoryPrepared, kept: str, split: int = VALID, **options: Any
    ) -> tuple[Worker, Checkpoints]:
        """A worker that keeps its checkpoints under a name, and they."""
        checkpoints = Checkpoints(self.folder / kept, options.pop("stop_after", None))
        job, place = Job(prepared.config, split, EPOCHS), self.place
        return make_worker(
            self.patch, job, prepared, checkpoints, place=place, **options
        ), checkpoints

    def start(self) -> None:
        """Keeps an untrained model that all trainings begin with."""
        prepared = make_prepared("idle", self.folder, alone=True, tables=self.tables)
        worker, _ = self.worker(prepared, "none")
        save(RunFolder(str(self.folder)).start, worker.trainable, Progress())

    def steps(self, case: str) -> None:
        """Takes a step an epoch, as in the refit."""
        settings = {"tables": self.tables, "start_from": "first"}
        prepared = make_prepared(case, self.folder, alone=self.alone, **settings)
        worker, _ = self.worker(prepared, f"{case}-{self.place[1]}", split=TEST)
        worker.run()
        assert worker.progress.steps == EPOCHS
        self.keep(case, worker.progress.history)

    def validate(self) -> None:
        """Measures the untrained model, each process its share of the partitions."""
        worker, _ = self.worker(make_stopped(self.folder, self.tables), "none")
        worker._restore()
        self.keep(
            "validation",
            worker._fit_and_validate() | {"weight": float(worker.trainable.model.trending)},
        )

    def stop(self) -> None:
        """Trains; trains and stops inside the second epoch; goes on from there."""
        prepared = make_stopped(self.folder, self.tables)
        whole, _ = self.worker(prepared, "whole")
        whole.run()
        stopping, died = self.worker(prepared, "died", stop_after=5)
        with pytest.raises(Stopped):
            stopping.run()
        dist.barrier()  # both have written their part
        resumed, _ = self.worker(prepared, "resumed", start=died)
        resumed.run()
        self.keep("stopped", [whole.progress.history, resumed.progress.history])

    def keep(self, name: str, value: Any) -> None:
        """Keeps what this process came to."""
        path = self.folder / f"{name}-{self.place[1]}-{self.place[0]}.json"
        path.write_text(json.dumps(value))


def make_stopped(folder: Path, tables: str) -> MemoryPrepared:
    """Five partitions, a checkpoint after each round, and all the chance that training has."""
    train = {"tables": tables, "batch_timelines": 4, "negatives": 20, "patience": 9}
    return memory.make_prepared(
        (8, 5, 3, 6, 9),
        run=str(folder),
        model={**make_config().model.model_dump(), "dropout": 0.3, "id_dropout": 0.2},
        train={**train, "checkpoint_every_partitions": 1, "start_from": "first"},
    )


def main(process: Process) -> None:
    """The part of one process; the one that is alone comes first."""
    if process.alone:
        process.start()
    for case in CASES:
        process.steps(case)
    process.validate()
    if not process.alone:
        process.stop()


if __name__ == "__main__":
    tables, rank, world, folder = sys.argv[1:]
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{world}"
    dist.init_process_group("gloo", init_method=store, rank=int(rank), world_size=int(world))
    main(Process(tables, (int(rank), int(world)), Path(folder)))
    dist.barrier()
    dist.destroy_process_group()
