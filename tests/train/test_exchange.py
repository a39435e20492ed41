"""What workers tell each other of the dense part: less of it, or not after every step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.schema import VALID
from recsys.train.exchange import LocalSteps
from recsys.train.loop import Job
from recsys.train.sharding import have_torchrec
from tests.train.memory import Checkpoints, make_prepared, make_worker
from tests.train.processes import run_processes


def run(task: str, folder: Path) -> list[dict[str, Any]]:
    """What the two workers of a task came to."""
    run_processes(Path(__file__).with_name("exchange_worker.py"), [task], 2, folder)
    return [torch.load(folder / f"{task}-{rank}.pt") for rank in range(2)]


def test_local_steps_by_hand(tmp_path: Path) -> None:
    """AdamW goes 0.1 against a gradient that stays: to 0.8 and 1.2, whose mean is 1.

    Had the gradients been exchanged, whose mean is -1, both would be at 1.2. The first moments are
    0.1 · (0.9 + 1) of 2 and of -4, the second ones 0.001 · (0.999 + 1) of 4 and of 16.
    """
    first, second = run("by_hand", tmp_path)
    assert first["weights"] == pytest.approx([0.9, 0.9, 0.8, 1.0], abs=1e-5)
    assert second["weights"] == pytest.approx([1.1, 1.1, 1.2, 1.0], abs=1e-5)
    for worker in (first, second):
        assert worker["moments"] == pytest.approx([0.19 * -1, 0.001999 * 10], rel=1e-5)


@pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
def test_sharded_models_with_each_exchange(tmp_path: Path) -> None:
    first, second = run("sharded", tmp_path)
    for kind in ("whole", "half"):
        assert torch.equal(first[kind]["own"], second[kind]["own"]), "the same after each step"
        assert torch.equal(first[kind]["own"], first[kind]["agreed"]), "nothing is left to agree on"
    assert not torch.equal(first["half"]["vectors"], first["whole"]["vectors"])
    assert torch.allclose(first["half"]["vectors"], first["whole"]["vectors"], atol=0.02)
    assert first["half"]["losses"] == pytest.approx(first["whole"]["losses"], rel=0.01)
    ours, theirs = first["local"], second["local"]
    assert not torch.allclose(ours["own"], theirs["own"], atol=1e-3), "each learns by its own"
    mean = (ours["own"] + theirs["own"]) / 2
    for worker in (ours, theirs):
        assert torch.allclose(worker["agreed"], mean, atol=1e-7)
    assert torch.equal(ours["vectors"], theirs["vectors"]), "the tables are shared all along"


def test_copies_of_the_tables_never_part(tmp_path: Path) -> None:
    first, second = run("plain", tmp_path)
    assert torch.equal(first["vectors"], second["vectors"])
    for rank in range(2):
        told = (tmp_path / f"refused-{rank}").read_text()
        assert told.startswith("train.average_every=4: 2 workers' copies of the tables would part")


def test_workers_agree_before_each_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two epochs of three partitions: a checkpoint after each."""
    steps, averaged = [0], []

    class Counted(LocalSteps):
        def step_taken(self) -> None:
            steps[0] += 1

        def average(self) -> None:
            averaged.append(steps[0])

    class Kept(Checkpoints):
        def report(self, metrics: dict[str, Any], checkpoint: Any) -> None:
            assert averaged[-1] == steps[0] > 0
            super().report(metrics, checkpoint)

    prepared = make_prepared(train={"tables": "plain", "checkpoint_every_partitions": 1})
    kept = Kept(tmp_path)
    worker = make_worker(monkeypatch, Job(prepared.config, VALID, 2), prepared, kept)
    worker.trainable.local_steps = Counted([], worker.trainable.dense_optimizer, 2)
    worker.run()
    assert kept.kept == len(averaged) == 6
