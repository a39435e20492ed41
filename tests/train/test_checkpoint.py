import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from recsys.config.run import RunConfig
from recsys.errors import InputError
from recsys.train.checkpoint import Progress, load_plain, restore, save
from recsys.train.trainable import Trainable, build_plain
from recsys.train.warm_start import read_all
from tests.steps import SIZES, loss_of, make_batch, make_config

CONFIG = make_config()


def build(seed: int, config: RunConfig = CONFIG) -> Trainable:
    torch.manual_seed(seed)
    return build_plain(config, SIZES, torch.device("cpu"))


def train(trainable: Trainable, *seeds: int) -> None:
    for seed in seeds:
        trainable.optimizer.zero_grad()
        loss_of(trainable.module(make_batch(seed))).backward()
        trainable.optimizer.step()


def weights(trainable: Trainable) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainable.model.state_dict().items()}


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Trainable]:
    """A checkpoint after two steps, and the model as it was then."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    trainable = build(1)
    train(trainable, 0, 1)
    save(folder, trainable, Progress(epoch=2, partitions=3, steps=9, history=[{"epoch": 1.0}]))
    return folder, trainable


def test_the_model_comes_back_in_plain_torch(saved: tuple[str, Trainable]) -> None:
    folder, trainable = saved
    model = load_plain(folder, CONFIG.model, SIZES)
    assert not model.training
    assert_equal(dict(model.state_dict()), weights(trainable))


def test_the_place_comes_back(saved: tuple[str, Trainable]) -> None:
    progress = restore(saved[0], build(2))
    assert progress == Progress(epoch=2, partitions=3, steps=9, history=[{"epoch": 1.0}])
    assert progress.best_score == float("-inf")


def test_resumed_training_equals_uninterrupted(saved: tuple[str, Trainable]) -> None:
    """The optimizers' states come back too: two more steps give the same bits."""
    uninterrupted = build(1)
    train(uninterrupted, 0, 1, 2, 3)
    resumed = build(2)
    restore(saved[0], resumed)
    train(resumed, 2, 3)
    assert_equal(weights(resumed), weights(uninterrupted))


def test_rates_are_the_configs_and_not_the_checkpoints(saved: tuple[str, Trainable]) -> None:
    """With the tables' rate halved a step moves each table by half of what it would have."""
    rates = {"table_lr": CONFIG.train.table_lr / 2, "weight_decay": 0.5}
    moved = []
    for config in (CONFIG, make_config(train=rates)):
        resumed = build(2, config)
        restore(saved[0], resumed)
        before = weights(resumed)
        train(resumed, 2)
        after = weights(resumed)
        moved.append({n: after[n] - before[n] for n in after if n.startswith("tables.")})
    assert {group["weight_decay"] for group in resumed.dense_optimizer.param_groups} == {0.5}
    whole, half = moved
    assert any(value.any() for value in whole.values())
    for name, value in whole.items():
        assert torch.allclose(half[name], value / 2, rtol=1e-3, atol=1e-7), name


def test_an_optimizer_that_took_its_steps_in_another_way_comes_back(tmp_path: Path) -> None:
    """As of an earlier version, whose AdamW took an operation for each parameter."""
    earlier, resumed, uninterrupted = build(1), build(2), build(1)
    for group in earlier.dense_optimizer.param_groups:
        group["fused"] = None
    train(earlier, 0, 1)
    save(str(tmp_path), earlier, Progress())
    restore(str(tmp_path), resumed)
    train(resumed, 2)
    train(uninterrupted, 0, 1, 2)
    assert {group["fused"] for group in resumed.dense_optimizer.param_groups} == {True}
    torch.testing.assert_close(weights(resumed), weights(uninterrupted), rtol=1e-4, atol=1e-5)


def test_an_earlier_versions_progress_is_refused_in_one_line(
    saved: tuple[str, Trainable], tmp_path: Path
) -> None:
    """Its place in the data is told in other words."""
    folder = shutil.copytree(saved[0], tmp_path / "old")
    progress = json.loads((folder / "progress.json").read_text())
    progress["ledger"] = progress.pop("seen_timelines")
    (folder / "progress.json").write_text(json.dumps(progress))
    with pytest.raises(InputError, match=r"not the checkpoint .*ledger.* train again$"):
        restore(str(folder), build(2))


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_plain(str(tmp_path), CONFIG.model, SIZES)


def test_an_earlier_versions_checkpoint_is_refused_in_one_line(
    saved: tuple[str, Trainable], tmp_path: Path
) -> None:
    """It lacks what that version did not have."""
    state = read_all(saved[0])
    del state["model.trending"]
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises(InputError, match=r"not the checkpoint .*model.trending.* train again$"):
        load_plain(str(tmp_path), CONFIG.model, SIZES)
