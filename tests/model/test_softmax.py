"""The retrieval loss, worked by hand and against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recsys.model import softmax
from recsys.model.softmax import Extra, sampled_softmax

NOTHING = Extra(candidate=torch.zeros(0, 0, dtype=torch.int64), amount=torch.zeros(0, 0))


def test_by_hand() -> None:
    """Query (1, 2); videos (1, 0), (0, 1), (9, 9), the last no candidate, chances 1/2 and 1/4.

    Logits 1 + log 2 and 2 + log 4: the loss of the first is log(1 + 2e); a second query of zeros
    has logits log 2 and log 4, the loss of the second is log(3 / 2).
    """
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    log_q = torch.tensor([0.5, 0.25, torch.inf]).log()
    queries, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0, 1])
    loss = sampled_softmax(queries, vectors, target=target, log_q=log_q, extra=NOTHING)
    assert loss.item() == pytest.approx(np.log(1 + 2 * np.e) + np.log(3 / 2), rel=1e-6)


def test_an_amount_is_added_to_its_score_alone() -> None:
    """Two videos of score 0; the second gains log 3 in two parts: the first's loss is log 4."""
    extra = Extra(
        candidate=torch.tensor([[0, 0], [1, 1]]),
        amount=torch.tensor([[0.0, 0.0], [np.log(1.5), np.log(2.0)]], dtype=torch.float32),
    )
    target = torch.zeros(2, dtype=torch.int64)
    loss = sampled_softmax(
        torch.zeros(2, 2), torch.ones(2, 2), target=target, log_q=torch.zeros(2), extra=extra
    )
    assert loss.item() == pytest.approx(np.log(2) + np.log(4), rel=1e-6)


def test_a_video_that_is_no_candidate_gets_no_gradient() -> None:
    vectors = torch.ones(3, 2, requires_grad=True)
    log_q, target = torch.tensor([0.0, 0.0, torch.inf]), torch.tensor([0])
    sampled_softmax(torch.ones(1, 2), vectors, target=target, log_q=log_q, extra=NOTHING).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert vectors.grad[2].tolist() == [0.0, 0.0]
    assert torch.isfinite(vectors.grad).all()


def reference(
    queries: Tensor, vectors: Tensor, *, target: Tensor, log_q: Tensor, extra: Extra
) -> Tensor:
    """The same loss with all scores at once, differentiated by autograd."""
    scores = (queries @ vectors.T).scatter_add(1, extra.candidate, extra.amount)
    return functional.cross_entropy(scores - log_q, target, reduction="sum")


@pytest.mark.parametrize("block", [1, 10, 30, 35, 1000])
def test_blocks_give_the_loss_and_the_gradients_of_all_at_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "BLOCK_SCORES", block)
    monkeypatch.setattr(softmax, "LEAST_QUERIES", 1)
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    queries, vectors, amount, log_q = draw(7, 3), draw(5, 3), draw(7, 3), draw(5)
    candidate = torch.randint(0, 5, (7, 3), generator=random)
    target = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    results = []
    for loss_of in (sampled_softmax, reference):
        leaves = [x.clone().requires_grad_() for x in (queries, vectors, amount)]
        extra = Extra(candidate, leaves[2])
        loss = loss_of(leaves[0], leaves[1], target=target, log_q=log_q, extra=extra)
        (loss * 0.25).backward()  # type: ignore[no-untyped-call]
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_in_half_precision_the_gradients_have_their_inputs_types() -> None:
    queries = torch.randn(4, 8).requires_grad_()
    vectors = torch.randn(6, 8).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = sampled_softmax(
            queries, vectors, target=torch.arange(4), log_q=torch.zeros(6), extra=NOTHING
        )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert queries.grad is not None and queries.grad.dtype == torch.float32
    assert vectors.grad is not None and vectors.grad.dtype == torch.bfloat16


def test_without_a_query_there_is_nothing_to_learn() -> None:
    queries, vectors = torch.zeros(0, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    target = torch.zeros(0, dtype=torch.int64)
    loss = sampled_softmax(queries, vectors, target=target, log_q=torch.zeros(3), extra=NOTHING)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert vectors.grad is not None and not vectors.grad.any()
