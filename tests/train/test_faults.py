"""A worker that dies is started again; an error that it would only meet again ends training."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from recsys.config.run import load_config
from recsys.errors import InputError
from recsys.prepare.prepared import Prepared
from recsys.schema import VALID
from recsys.train.stage import training_error
from recsys.train.trainer import make_stop_at_final, make_trainer
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

    def begin(self, plan: str, epochs_done: int) -> None:
        pass

    def epoch(self, _: dict[str, float]) -> None:
        pass

    def victims(self) -> int:
        return len(self.killed)


@pytest.fixture
def settings(trained_run: TrainedRun, tmp_path: Path) -> list[str]:
    """Of a run folder with the tiny run's data and nothing trained."""
    run = tmp_path / "run"
    for name in ("prepare", "decode"):
        shutil.copytree(trained_run.run / name, run / name)
    return [*trained_run.settings, f"run={run}", "train.tables=plain", "train.refit=false"]


@pytest.mark.ray
def test_a_worker_killed_inside_an_epoch_loses_no_timeline(
    trained_run: TrainedRun, settings: list[str]
) -> None:
    settings += ["train.checkpoint_every_partitions=1", "train.patience=9", "train.max_failures=1"]
    config = load_config(trained_run.config_path, settings)
    killer: Any = ray.remote(num_cpus=0)(Killer).remote()
    result = make_trainer(config, name="killed", epochs=2, progress_actor=killer).fit()
    assert ray.get(killer.victims.remote()) == 1
    prepared = Prepared(config)
    expected = [
        int((timelines.count_before(VALID) > 0).sum())
        for timelines in map(prepared.timelines, range(len(prepared.partitions)))
    ]
    assert np.min(expected) > 0
    progress = state(result)
    assert progress["seen_timelines"] == expected
    assert [epoch["timelines"] for epoch in progress["history"]] == [sum(expected)] * 2


class Starts:
    """Stands where the first worker reports: counts how often it is started."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self, plan: str, epochs_done: int) -> None:
        self.count += 1

    def step(self, _: float, __: dict[str, float]) -> None:
        pass

    def started(self) -> int:
        return self.count


@pytest.mark.ray
def test_a_loss_that_is_no_number_is_not_tried_again(
    trained_run: TrainedRun, settings: list[str]
) -> None:
    wanted = [*settings, "train.lr=1e30", "train.table_lr=1e30", "train.max_failures=3"]
    config = load_config(trained_run.config_path, wanted)
    starts: Any = ray.remote(num_cpus=0)(Starts).remote()
    with pytest.raises(Exception) as error:  # noqa: B017, PT011 - Ray chooses the type
        make_trainer(config, name="nan", progress_actor=starts).fit()
    assert ray.get(starts.started.remote()) == 1
    line = str(training_error(error.value))
    assert line.startswith("training stopped: the loss is nan at step ")
    assert line.endswith("the last checkpoint stands; lower train.lr or train.table_lr")


def failed(error: BaseException) -> UserExceptionWithTraceback:
    """As Ray Train hands a worker's error to its callbacks."""
    return UserExceptionWithTraceback(error, f"Traceback …\n{error!r}\n")


@pytest.mark.parametrize("error", [FloatingPointError("nan"), InputError("x=1: allowed is 2")])
def test_what_no_further_try_can_mend_ends_training(error: Exception) -> None:
    """Of whichever worker; the others only miss it."""
    errors = {0: failed(RuntimeError("connection closed")), 1: failed(error)}
    with pytest.raises(type(error), match=str(error)):
        make_stop_at_final().after_exception(None, errors)


def test_what_may_go_better_is_tried_again() -> None:
    errors = [RuntimeError("connection closed"), OSError("disk"), ray.exceptions.RayActorError()]
    for error in errors:
        make_stop_at_final().after_exception(None, {0: failed(error)})
        make_stop_at_final().after_exception(None, {0: error})
