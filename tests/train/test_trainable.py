import math

import pytest
import torch
from torch import nn

from recsys.train.trainable import RowWiseAdagrad, build_plain
from tests.steps import SIZES, loss_of, make_batch, make_config


def table(*, sparse: bool = False) -> nn.Embedding:
    embedding = nn.Embedding(3, 2, sparse=sparse)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]))
    return embedding


def step(embedding: nn.Embedding, optimizer: torch.optim.Optimizer, rows: list[int]) -> None:
    """One step of the loss 3 x + 4 y, summed over rows: the gradient of a row is (3, 4)."""
    optimizer.zero_grad()
    (embedding(torch.tensor(rows)) @ torch.tensor([3.0, 4.0])).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("sparse", [False, True])
def test_row_wise_adagrad_by_hand(sparse: bool) -> None:
    """Sum of the first step: (9 + 16) / 2 = 12.5; of the second: 12.5 + 4 · 12.5 = 62.5."""
    embedding = table(sparse=sparse)
    optimizer = RowWiseAdagrad(embedding.parameters(), lr=0.1, eps=1e-12)
    step(embedding, optimizer, [0])
    first = [1 - 0.3 / math.sqrt(12.5), 1 - 0.4 / math.sqrt(12.5)]
    assert embedding.weight[0].tolist() == pytest.approx(first, rel=1e-6)
    step(embedding, optimizer, [0, 0])  # twice in a batch: one row with the summed gradient (6, 8)
    second = [first[0] - 0.6 / math.sqrt(62.5), first[1] - 0.8 / math.sqrt(62.5)]
    assert embedding.weight[0].tolist() == pytest.approx(second, rel=1e-6)
    assert embedding.weight[1:].tolist() == [[2.0, 2.0], [0.0, 0.0]]
    state = optimizer.state[embedding.weight]["row_sum"]
    assert state.tolist() == [[62.5], [0.0], [0.0]]


def test_dense_and_sparse_gradients_give_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    tables = [table(sparse=sparse) for sparse in (False, True)]
    optimizers = [RowWiseAdagrad(t.parameters(), lr=0.1) for t in tables]
    for _ in range(5):
        rows = torch.randint(0, 3, (7,), generator=generator)
        weights = torch.randn(7, 2, generator=generator)
        for embedding, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            (embedding(rows) * weights).sum().backward()
            optimizer.step()
    assert torch.allclose(tables[0].weight, tables[1].weight, rtol=1e-6)


def test_a_row_without_a_gradient_stays_where_it_is() -> None:
    embedding = table()
    optimizer = RowWiseAdagrad(embedding.parameters(), lr=0.1, eps=1e-12)
    optimizer.step()
    assert embedding.weight[1].tolist() == [2.0, 2.0]
    step(embedding, RowWiseAdagrad(embedding.parameters(), lr=0.1), [0])
    assert torch.isfinite(embedding.weight).all()


def test_each_parameter_has_one_optimizer() -> None:
    """Tables learn by Adagrad, everything else by AdamW, which clipping reaches."""
    trainable = build_plain(make_config(), SIZES, torch.device("cpu"))
    tables, dense = set(), set()
    for name, parameter in trainable.model.named_parameters():
        (tables if name.startswith("tables.") else dense).add(parameter)
    adam, adagrad = trainable.optimizer.optimizers
    assert {p for group in adam.param_groups for p in group["params"]} == dense
    assert {p for group in adagrad.param_groups for p in group["params"]} == tables
    assert set(trainable.dense_parameters()) == dense
    assert len(tables) == 3
    assert trainable.dense_optimizer is adam


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    config = make_config(train={"lr": 0.01, "table_lr": 0.1})
    trainable = build_plain(config, SIZES, torch.device("cpu"))
    losses = []
    for _ in range(30):
        trainable.optimizer.zero_grad()
        loss = loss_of(trainable.module(make_batch(0)))
        loss.backward()
        trainable.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
