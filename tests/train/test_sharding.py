"""TorchRec's sharded tables under DMP against plain torch, in two CPU processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.features.inputs import Batch
from recsys.model.recommender import Losses, Recommender
from recsys.train.checkpoint import load_plain
from recsys.train.sharding import have_torchrec
from recsys.train.trainable import Trainable, build_plain
from recsys.train.warm_start import read_all
from tests.steps import SIZES, loss_of, make_batch, make_config, make_videos
from tests.train.processes import run_processes

pytestmark = pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")

STEPS, EMPTY = 3, (2, 1)
CONFIG = make_config()


def run(task: str, world: int, folder: Path) -> list[dict[str, Any]]:
    run_processes(Path(__file__).with_name("sharding_worker.py"), [task], world, folder)
    return [torch.load(folder / f"{task}-{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def sharded(folder: Path) -> list[dict[str, Any]]:
    return run("train", 2, folder)


def reference(start: str) -> tuple[Trainable, list[float]]:
    """One process that takes the mean over all of both workers' events, from the same weights."""
    trainable = build_plain(CONFIG, SIZES, torch.device("cpu"))
    trainable.model.load_state_dict(load_plain(start, CONFIG.model, SIZES).state_dict())
    trainable.model.train()
    losses = []
    for number in range(STEPS):
        trainable.optimizer.zero_grad()
        both = [trainable.module(batch_of(number, rank)) for rank in range(2)]
        loss = loss_of(Losses(*(sum(parts) for parts in zip(*both, strict=True))))
        loss.backward()
        trainable.optimizer.step()
        losses.append(loss.item())
    return trainable, losses


def batch_of(step: int, rank: int) -> Batch:
    return make_batch(10 * step + rank, empty=(step, rank) == EMPTY, num_users=4 * (1 + rank))


def mean_losses(workers: list[dict[str, Any]]) -> list[float]:
    """Of the steps, over both workers."""
    return np.mean([worker["losses"] for worker in workers], axis=0).tolist()


def catalogue(model: Recommender) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model.encode_videos(make_videos().batch(torch.arange(51).numpy()))


def assert_close(model: Recommender, expected: Recommender) -> None:
    names = model.state_dict().keys()
    assert names == expected.state_dict().keys()
    for name in names:
        ours, wanted = model.state_dict()[name], expected.state_dict()[name]
        assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-5), name


def test_others_are_heard_as_before_the_model_was_built(sharded: list[dict[str, Any]]) -> None:
    (level, filters, lines), (after_level, after_filters, after_lines) = sharded[0]["heard"]
    assert (after_level, after_filters) == (level, filters)
    assert lines == ["of the user's own", "of a module of the user's", "of no file", "of FBGEMM"]
    assert after_lines == lines[:-1], "FBGEMM alone is silent"


def test_three_steps_equal_those_of_one_plain_model(
    folder: Path, sharded: list[dict[str, Any]]
) -> None:
    """Losses, weights, and the catalogue's vectors through the sharded tables."""
    trainable, losses = reference(str(folder / "start"))
    assert mean_losses(sharded) == pytest.approx(losses, rel=1e-4)
    for rank in range(2):
        assert torch.allclose(sharded[rank]["vectors"], catalogue(trainable.model), atol=1e-4)
    end = load_plain(str(folder / "end"), CONFIG.model, SIZES)
    assert_close(end, trainable.model)
    start = load_plain(str(folder / "start"), CONFIG.model, SIZES)
    moved = (end.state_dict()[n] - start.state_dict()[n] for n, _ in start.named_parameters())
    assert all(change.abs().max() > 1e-4 for change in moved), "every weight has learnt"


def test_steps_that_torchrec_overlaps_are_the_same_steps(sharded: list[dict[str, Any]]) -> None:
    for worker in sharded:
        assert worker["overlapped"] == pytest.approx(worker["losses"], rel=1e-6)
        assert torch.allclose(worker["overlapped_vectors"], worker["vectors"], atol=1e-6)


def test_an_empty_step_on_one_worker_hangs_nobody(sharded: list[dict[str, Any]]) -> None:
    step, rank = EMPTY
    assert sharded[rank]["losses"][step] == 0
    assert sharded[1 - rank]["losses"][step] > 0


def test_the_tables_lay_where_the_test_wanted_them(sharded: list[dict[str, Any]]) -> None:
    plan = sharded[0]["plan"]
    assert "row_wise" in plan and "table_wise" in plan


def test_a_checkpoint_of_two_workers_goes_on_in_one(
    folder: Path, sharded: list[dict[str, Any]]
) -> None:
    """With the optimizers' states: one more step is that of a plain model that went on."""
    (resumed,) = run("resume", 1, folder)
    assert resumed["steps"] == STEPS
    moved, half = resumed["moved"], resumed["moved_half"]
    assert moved.any()
    assert torch.allclose(half, moved / 2, rtol=1e-3, atol=1e-7), "rates are the config's"
    assert torch.allclose(resumed["vectors"], sharded[0]["vectors"], atol=1e-6)
    trainable, _ = reference(str(folder / "start"))
    trainable.optimizer.zero_grad()
    loss = loss_of(trainable.module(batch_of(STEPS, 0)))
    loss.backward()
    trainable.optimizer.step()
    assert resumed["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert_close(load_plain(str(folder / "resumed"), CONFIG.model, SIZES), trainable.model)
    assert "out_of_bounds" in resumed, "a row that is not there must not pass for row 0"


def stored(folder: Path) -> dict[str, Any]:
    """A checkpoint's tensors by name: of the model and of the optimizers."""
    return {name: value for name, value in read_all(str(folder)).items() if value is not None}


def test_and_from_one_it_goes_on_in_three(folder: Path, sharded: list[dict[str, Any]]) -> None:
    """The same vectors, and not a number of weights or optimizers' states lost on the way."""
    if not (folder / "resumed").exists():
        run("resume", 1, folder)
    spread = run("spread", 3, folder)
    model = load_plain(str(folder / "resumed"), CONFIG.model, SIZES)
    for worker in spread:
        assert torch.allclose(worker["vectors"], catalogue(model), atol=1e-6)
    before, after = stored(folder / "resumed"), stored(folder / "spread")
    assert before.keys() == after.keys()
    assert any("video" in name and name.startswith("optimizer") for name in before)
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_plain_tables_on_two_workers_train_the_same_way(folder: Path) -> None:
    plain = run("plain", 2, folder)
    trainable, losses = reference(str(folder / "plain-start"))
    assert mean_losses(plain) == pytest.approx(losses, rel=1e-4)
    assert_close(load_plain(str(folder / "plain-end"), CONFIG.model, SIZES), trainable.model)
