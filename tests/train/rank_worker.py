"""A process of test_ranks.py: `python rank_worker.py TABLES RANK WORLD FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from recsys.schema import TEST
from recsys.train.checkpoint import START, Progress, save
from recsys.train.loop import Job
from tests.steps import make_config, make_timelines
from tests.train.memory import Checkpoints, MemoryPrepared, joined, make_worker, split_off

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
    return MemoryPrepared(config, (joined(*parts),) if alone else tuple(parts))


def main(tables: str, place: tuple[int, int], folder: Path) -> None:
    """Takes a case's steps from the model that the process that is alone begins with."""
    alone, patch = place[1] == 1, pytest.MonkeyPatch()
    if alone:
        prepared = make_prepared("idle", folder, alone=True, tables=tables)
        job = Job(prepared.config, TEST, EPOCHS)
        first = make_worker(patch, job, prepared, Checkpoints(folder))
        save(str(folder / "train" / START), first.trainable, Progress())
    for case in CASES:
        prepared = make_prepared(case, folder, alone=alone, tables=tables, start_from="first")
        kept = Checkpoints(folder / f"{case}-{place[1]}")
        job = Job(prepared.config, TEST, EPOCHS)
        worker = make_worker(patch, job, prepared, kept, place=place)
        worker.run()
        assert worker.progress.steps == EPOCHS
        torch.save(worker.progress.history, folder / f"{case}-{place[1]}-{place[0]}.pt")


if __name__ == "__main__":
    tables, rank, world, folder = sys.argv[1:]
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{world}"
    dist.init_process_group("gloo", init_method=store, rank=int(rank), world_size=int(world))
    main(tables, (int(rank), int(world)), Path(folder))
    dist.barrier()
    dist.destroy_process_group()
