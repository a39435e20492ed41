"""What workers compute together; of several ones `test_ranks.py` has the whole."""

import pytest
import torch
import torch.distributed as dist

from recsys.train.collectives import Collectives


def test_a_worker_that_is_alone_needs_no_process_group() -> None:
    alone = Collectives()
    assert alone.sum(torch.tensor([1, 2])).tolist() == [1, 2]
    assert alone.max(3) == 3
    assert alone.gather("mine") == ["mine"]


def test_several_workers_ask_the_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other of the two has 10 where this one has 1, 2 or 3."""

    def all_reduce(mine: torch.Tensor, how: dist.ReduceOp = dist.ReduceOp.SUM) -> None:
        if how == dist.ReduceOp.MAX:
            mine.clamp_(min=10)
        else:
            mine += 10

    def all_gather_object(into: list[str], mine: str) -> None:
        into[:] = ["other", mine]

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    two, mine = Collectives(rank=1, workers=2), torch.tensor([1, 2])
    assert two.sum(mine).tolist() == [11, 12]
    assert mine.tolist() == [1, 2], "what a worker has stays its own"
    assert two.max(3) == 10
    assert two.gather("mine") == ["other", "mine"]
