import pytest
import torch

from recsys.model.embeddings import PlainTables, TableSpec, mean_by_bag


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([1, 2, 0, 1], [[1.0, 10.0], [4.0, 15.0], [0.0, 0.0], [7.0, 40.0]]),
        ([0, 4, 0, 0], [[0.0, 0.0], [4.0, 20.0], [0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_mean_by_bag_by_hand(lengths: list[int], expected: list[list[float]]) -> None:
    values = torch.tensor([[1.0, 10.0], [3.0, 20.0], [5.0, 10.0], [7.0, 40.0]])
    assert mean_by_bag(values, torch.tensor(lengths)).tolist() == expected


def test_mean_by_bag_of_nothing() -> None:
    assert mean_by_bag(torch.zeros(0, 3), torch.tensor([0, 0])).tolist() == [[0.0] * 3] * 2
    assert mean_by_bag(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_a_bags_gradient_is_shared_out() -> None:
    values = torch.zeros(3, 1, requires_grad=True)
    mean_by_bag(values, torch.tensor([1, 2])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0], [0.5], [0.5]]


@pytest.mark.parametrize("sparse", [False, True])
def test_tables_give_their_rows_by_name(sparse: bool) -> None:
    specs = {"video": TableSpec(5, 2), "creator": TableSpec(3, 4)}
    tables = PlainTables(specs, sparse=sparse)
    one = torch.ones(2, dtype=torch.int64)
    embeddings = tables(
        {"video": (torch.tensor([4, 0]), one), "creator": (torch.tensor([1, 1]), one)}
    )
    weights = {name: table.weight for name, table in tables.embeddings.items()}
    assert torch.equal(embeddings["video"], weights["video"][[4, 0]])
    assert torch.equal(embeddings["creator"], weights["creator"][[1, 1]])
    embeddings["video"].sum().backward()
    assert weights["video"].grad.is_sparse == sparse


def test_tables_start_small() -> None:
    """An unseen row adds little to a vector."""
    torch.manual_seed(0)
    weight = PlainTables({"video": TableSpec(2000, 8)}).embeddings["video"].weight
    assert weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert abs(weight.mean().item()) < 0.002
