"""One of the processes of test_exchange.py: `python exchange_worker.py TASK RANK WORLD FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recsys.errors import InputError
from recsys.train.checkpoint import Progress, restore, save
from recsys.train.exchange import set_exchange
from recsys.train.sharding import build_sharded
from recsys.train.trainable import Trainable, build_plain, make_adamw
from tests.steps import SIZES, make_config
from tests.train.sharding_worker import LOSS_WEIGHTS, batch_of, shard_by_rows, vectors

CPU = torch.device("cpu")
STEPS = 3
GRADIENTS = (2.0, -4.0)
"""Of the one weight of `by_hand`, on each worker."""


def by_hand(rank: int, folder: Path) -> None:
    """A weight of 1 takes two steps of 0.1; its mean is taken after the second."""
    config = make_config(train={"lr": 0.1, "weight_decay": 0.0, "average_every": 2}).train
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    adamw = make_adamw(layer.parameters(), config)
    module = DistributedDataParallel(layer, static_graph=True)
    local_steps = set_exchange(module, list(layer.parameters()), adamw, config)
    assert local_steps is not None
    weights = []
    for _ in range(2):
        adamw.zero_grad()
        (GRADIENTS[rank] * module(torch.ones(1, 1))).sum().backward()
        adamw.step()
        weights.append(layer.weight.item())
        local_steps.step_taken()
        weights.append(layer.weight.item())
    state = adamw.state[layer.weight]
    moments = [state[name].item() for name in ("exp_avg", "exp_avg_sq")]
    torch.save({"weights": weights, "moments": moments}, folder / f"by_hand-{rank}.pt")


def sharded(rank: int, folder: Path) -> None:
    """The same three steps with each kind of exchange, through a sharded model."""
    shard_by_rows()
    results = {}
    for name, train in (
        ("whole", {}),
        ("half", {"exchange_precision": "bfloat16"}),
        ("local", {"average_every": STEPS + 1}),
    ):
        trainable = build_sharded(make_config(train=train), SIZES, CPU)
        if name == "whole":
            save(str(folder / "start"), trainable, Progress())
        restore(str(folder / "start"), trainable)
        results[name] = taken(trainable, rank)
    torch.save(results, folder / f"sharded-{rank}.pt")


def taken(trainable: Trainable, rank: int) -> dict[str, Any]:
    """The steps' losses, what they made of the dense part, and what the workers agree on."""
    losses = []
    for number in range(STEPS):
        trainable.optimizer.zero_grad()
        batch = batch_of(number, rank)
        loss = LOSS_WEIGHTS.combine(trainable.module(batch), batch)
        loss.backward()
        trainable.update(clip_norm=1e9)
        losses.append(loss.item())
    own = flat(trainable)
    trainable.agree()
    agreed = flat(trainable)
    return {"losses": losses, "own": own, "agreed": agreed, "vectors": vectors(trainable)}


def flat(trainable: Trainable) -> torch.Tensor:
    """All weights of the dense part."""
    return torch.cat([p.detach().reshape(-1) for p in trainable.dense_parameters()]).clone()


def plain(rank: int, folder: Path) -> None:
    """Copies of the tables that would part are refused; in half precision they stay the same."""
    try:
        build_plain(make_config(train={"average_every": 4}), SIZES, CPU)
    except InputError as error:
        (folder / f"refused-{rank}").write_text(str(error))
    torch.manual_seed(5)
    half = make_config(train={"exchange_precision": "bfloat16"})
    torch.save(taken(build_plain(half, SIZES, CPU), rank), folder / f"plain-{rank}.pt")


if __name__ == "__main__":
    task, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    store = f"file://{folder}/{task}-store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    {"by_hand": by_hand, "sharded": sharded, "plain": plain}[task](rank, folder)
    dist.barrier()
    dist.destroy_process_group()
