"""The retrieval loss: a softmax over the step's candidates, a block of queries at a time.

The scores of P queries for V candidates are the largest thing in a training step, and autograd
would keep several copies of them. Here a block's scores give its loss and its gradients at once and
are then forgotten: memory is that of one block, however many queries and candidates there are, and
nothing is computed twice (as in Hsu et al. 2024, "Liger Kernel", where it is a language model's
vocabulary).

Shapes: P queries, V videos of the step, which are the candidates, D retrieval vector, S amounts
that are added to single scores of each query.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK_SCORES = 1 << 20
"""Scores that a block holds on a CPU: 4 MB, which its cache takes."""
GPU_BLOCK_SCORES = 1 << 27
"""Scores that a block holds on a GPU: 512 MB. A step is one block there if it can be, since the GPU
would wait for the CPU, which starts some twenty operations a block."""
LEAST_QUERIES = 64
"""Queries of a block however many candidates there are, each of which is read once a block."""


class Extra(NamedTuple):
    """Amounts that single scores gain."""

    candidate: Tensor
    """(P, S) int64 whose score; one that is named twice gains twice."""
    amount: Tensor
    """(P, S) how much."""


def sampled_softmax(
    queries_PD: Tensor, vectors_VD: Tensor, *, target: Tensor, log_q: Tensor, extra: Extra
) -> Tensor:
    """Summed cross-entropy () of the targets among candidates, corrected for how they were drawn.

    A candidate's logit is its score, which is the dot product and what is added to it, less the log
    of its chance of being a candidate (logQ correction, Yi et al. 2019, "Sampling-bias-corrected
    neural modeling for large corpus item recommendations"). With every video a candidate, log_q is
    0 and this is the full softmax.

    Args:
        queries_PD: Whose targets they are.
        vectors_VD: Of the candidates.
        target: (P,) int64 index of the right candidate.
        log_q: (V,); inf takes a candidate out.
        extra: Its amounts learn too.
    """
    loss: Tensor = _SummedSoftmax.apply(  # type: ignore[no-untyped-call]
        queries_PD, vectors_VD, extra.amount, target, log_q, extra.candidate
    )
    return loss


class _SummedSoftmax(torch.autograd.Function):
    """The loss, with its gradients made on the way: backward only scales them."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        queries_PD: Tensor,
        vectors_VD: Tensor,
        amount: Tensor,
        target: Tensor,
        log_q: Tensor,
        candidate: Tensor,
    ) -> Tensor:
        grad_queries, total = torch.empty_like(queries_PD), log_q.new_zeros(())
        grad_vectors, grad_amount = (
            torch.zeros_like(value, dtype=torch.float32) for value in (vectors_VD, amount)
        )
        most = GPU_BLOCK_SCORES if queries_PD.is_cuda else BLOCK_SCORES
        size = max(LEAST_QUERIES, most // max(len(vectors_VD), 1))
        for start in range(0, len(queries_PD), size):
            block = slice(start, start + size)
            queries, gaining = queries_PD[block], candidate[block]
            scores = (queries @ vectors_VD.T).float().sub_(log_q)
            scores.scatter_add_(1, gaining, amount[block].float())
            loss, grad_scores = _loss_and_gradient(scores, target[block].unsqueeze(1))
            total += loss
            grad_amount[block] = grad_scores.gather(1, gaining)
            grad_scores = grad_scores.to(vectors_VD.dtype)
            grad_queries[block] = grad_scores @ vectors_VD
            grad_vectors += grad_scores.T @ queries
            del scores, grad_scores  # or the next block's would lie beside them
        ctx.save_for_backward(
            grad_queries, grad_vectors.to(vectors_VD.dtype), grad_amount.to(amount.dtype)
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(gradient * grad_output for gradient in ctx.saved_tensors), None, None, None


def _loss_and_gradient(scores: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss () of some queries, and its derivative by their scores, which it is made of."""
    chosen, most = scores.gather(1, right), scores.amax(1, keepdim=True)
    odds = scores.sub_(most).exp_()
    total = odds.sum(1, keepdim=True)
    loss = (total.log() + most - chosen).sum()
    return loss, odds.div_(total).scatter_add_(1, right, torch.full_like(total, -1))
