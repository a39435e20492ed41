"""A step never waits for the device that it runs on; on a CPU the questions are refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.features.inputs import Batch
from recsys.train.figures import StepSums
from recsys.train.loss import LossWeights
from recsys.train.steps import SingleSteps
from recsys.train.trainable import RowWiseAdagrad, Trainable, build_plain, summed_by_row
from tests.steps import NUM_VIDEOS, SIZES, make_batch, make_config
from tests.train.waits import Waited, no_waiting

CPU = torch.device("cpu")
QUESTIONS: dict[str, Callable[[Tensor], object]] = {
    "a value": lambda x: x.sum().item(),
    "a condition": lambda x: 1 if x.sum() > 0 else 0,
    "a number": lambda x: float(x.sum()),
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "a copy": lambda x: x.cpu(),
    "a mask": lambda x: x[x > 0],
    "a place": lambda x: (x > 0).nonzero(),
    "a selection": lambda x: x.masked_select(x > 0),
    "what differs": lambda x: x.unique(),
    "a length": lambda x: torch.repeat_interleave(x, x.long()),
    "a filling": lambda x: x.index_put_((x > 0,), torch.tensor(1.0)),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_would_be_waited_for_is_refused(question: str) -> None:
    with no_waiting(), pytest.raises(Waited):
        QUESTIONS[question](torch.tensor([1.0, 2.0]))


def test_a_mask_is_refused_in_backward_too() -> None:
    values = torch.ones(3, requires_grad=True)
    chosen = values[values > 0].sum()
    with no_waiting(), pytest.raises(Waited):
        chosen.backward()  # type: ignore[no-untyped-call]


def step_counts(trainable: Trainable) -> list[Tensor]:
    """AdamW counts its steps on the host."""
    state = trainable.dense_optimizer.state
    return [moments["step"] for moments in state.values()]


@pytest.mark.parametrize("cached", [False, True])
def test_a_step_waits_for_nothing(cached: bool) -> None:
    config = make_config()
    trainable = build_plain(config, SIZES, CPU)
    trainable.module.train()
    weights = LossWeights.of(config, CPU)
    steps = SingleSteps(trainable, weights.combine, CPU, config.train.clip_norm)
    batches = [make_batch(number) for number in range(2)]
    if cached:
        trainable.model.video.cached_contents = torch.randn(NUM_VIDEOS + 1, 4)
        batches = [with_cached(batch) for batch in batches]
    sums = StepSums(config.data.columns.tasks)
    with no_waiting(step_counts(trainable)):
        for batch in batches:
            step = steps.next_step(iter([batch]))
            assert step is not None
            sums.add(step[0])
    assert sums.are_finite()


def with_cached(batch: Batch) -> Batch:
    """The first video's content comes from what was made before."""
    assert batch.videos.clip_index is not None
    cached = torch.full_like(batch.videos.clip_index, -1)
    cached[0] = 3
    return replace(batch, videos=replace(batch.videos, cached_rows=cached))


def test_a_batch_says_where_its_queries_are() -> None:
    batch = make_batch(0)
    wanted = batch.learn & (batch.events.actions[..., 0] > 0)
    assert batch.queries.tolist() == np.flatnonzero(wanted.numpy()).tolist()
    assert not len(make_batch(0, empty=True).queries)


def test_rows_are_summed_as_coalescing_does() -> None:
    """Each row's sum stands at one of its places, whatever the step before had left there."""
    random = torch.Generator().manual_seed(0)
    places = torch.full((40,), 12345, dtype=torch.int32)
    for num in (200, 20, 0):
        rows = torch.randint(0, 30, (num,), generator=random)
        values = torch.randint(1, 9, (num, 5), generator=random).float()  # sums in any order
        expected = torch.sparse_coo_tensor(rows[None], values, (40, 5)).coalesce()
        sums = summed_by_row(rows, values, places)
        assert sums.shape == values.shape
        is_sum = sums.any(1)
        assert torch.equal(rows[is_sum].sort().values, expected.indices()[0])
        assert torch.equal(torch.zeros(40, 5).index_add_(0, rows, sums), expected.to_dense())


def test_row_0_keeps_what_it_learnt_beside_rows_that_are_named_twice() -> None:
    """Row 0 with gradient 3, row 1 with 1 + 1: each moves by lr · g / |g|, row 2 by nothing."""
    table = torch.nn.Parameter(torch.zeros(3, 1))
    optimizer = RowWiseAdagrad([table], lr=0.5)
    rows, values = torch.tensor([[1, 0, 1]]), torch.tensor([[1.0], [3.0], [1.0]])
    table.grad = torch.sparse_coo_tensor(rows, values, (3, 1))
    optimizer.step()
    assert table.detach().flatten().tolist() == pytest.approx([-0.5, -0.5, 0.0])
