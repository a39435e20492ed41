"""A worker that dies: training goes on inside the epoch, no timeline is lost or seen twice."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from recsys.config.run import load_config
from recsys.prepare.prepared import Prepared
from recsys.schema import VALID
from recsys.train.trainer import make_trainer
from tests.conftest import TrainedRun
from tests.train.test_trainer import state


def command_of(pid: int) -> bytes:
    """A process's command line; nothing where it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def parent_of(pid: int) -> int:
    """The process that started it: for all workers of a node, its raylet."""
    status = Path(f"/proc/{pid}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


class Killer:
    """Stands where the workers report their steps; kills them once, in the second epoch."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def step(self, epochs_done: float, _: dict[str, float]) -> None:
        if epochs_done > 1.5 and not self.killed:
            for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
                if b"RayTrainWorker" in command_of(pid) and parent_of(pid) == os.getppid():
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)

    def place(self, _: str) -> None:
        pass

    def epoch(self, _: dict[str, float]) -> None:
        pass

    def victims(self) -> int:
        return len(self.killed)


@pytest.mark.ray
def test_a_worker_killed_inside_an_epoch_loses_no_timeline(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for name in ("prepare", "decode"):
        shutil.copytree(trained_run.run / name, run / name)
    settings = [*trained_run.settings, f"run={run}", "train.tables=plain", "train.max_failures=1"]
    settings += ["train.checkpoint_every_partitions=1", "train.refit=false", "train.patience=9"]
    config = load_config(trained_run.config_path, settings)
    killer: Any = ray.remote(num_cpus=0)(Killer).remote()
    result = make_trainer(config, name="killed", epochs=2, board=killer).fit()
    assert ray.get(killer.victims.remote()) == 1
    prepared = Prepared(config)
    expected = [
        int((timelines.count_before(VALID) > 0).sum())
        for timelines in map(prepared.timelines, range(len(prepared.partitions)))
    ]
    assert np.min(expected) > 0
    progress = state(result)
    assert progress["ledger"] == expected
    assert [epoch["timelines"] for epoch in progress["history"]] == [sum(expected)] * 2
