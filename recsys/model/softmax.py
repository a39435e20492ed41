"""The retrieval loss: a softmax over the step's candidates, a block of queries at a time.

The scores of P queries for U candidates are the largest thing in a training step, and autograd
would keep several copies of them. Here a block's scores give its loss and its gradients at once and
are then forgotten: memory is that of one block, however many queries and candidates there are, and
nothing is computed twice (as in Hsu et al. 2024, "Liger Kernel", where it is a language model's
vocabulary).

Shapes: P queries, U candidates, D vector, M amounts added to single scores.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_SCORES = 1 << 20
"""Scores that a block holds on a CPU: 4 MB, which its cache takes."""
GPU_BLOCK_SCORES = 1 << 24
"""… and on a GPU: 64 MB, which keep its cores busy."""
LEAST_QUERIES = 64
"""Queries of a block however many candidates there are, each of which is read once a block."""


class Extra(NamedTuple):
    """Amounts that single scores gain; each (M,)."""

    query: Tensor
    """int64, not decreasing."""
    candidate: Tensor
    """int64; a score that is named twice gains twice."""
    amount: Tensor

    def place(self, first: int, last: int, start: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of some of them among the scores of the queries from `start` on."""
        return self.query[first:last] - start, self.candidate[first:last]


def sampled_softmax(
    queries_PD: Tensor, vectors_UD: Tensor, *, target: Tensor, log_q: Tensor, extra: Extra
) -> Tensor:
    """Summed cross-entropy () of the targets among candidates, corrected for how they were drawn.

    A candidate's logit is its score, which is the dot product and what is added to it, less the log
    of its chance of being a candidate (logQ correction, Yi et al. 2019, "Sampling-bias-corrected
    neural modeling for large corpus item recommendations"). With every video a candidate, log_q is
    0 and this is the full softmax.

    Args:
        queries_PD: Whose targets they are.
        vectors_UD: Of the candidates.
        target: (P,) int64 index of the right candidate.
        log_q: (U,); inf takes a candidate out.
        extra: Its amounts learn too.
    """
    found: Tensor = _SummedSoftmax.apply(  # type: ignore[no-untyped-call]
        queries_PD, vectors_UD, extra.amount, target, log_q, extra
    )
    return found


class _SummedSoftmax(torch.autograd.Function):
    """The loss, with its gradients made on the way: backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        queries_PD: Tensor,
        vectors_UD: Tensor,
        amount: Tensor,
        target: Tensor,
        log_q: Tensor,
        extra: Extra,
    ) -> Tensor:
        of_queries, total = torch.empty_like(queries_PD), log_q.new_zeros(())
        of_vectors, of_amount = (
            torch.zeros_like(of, dtype=torch.float32) for of in (vectors_UD, amount)
        )
        most = GPU_BLOCK_SCORES if queries_PD.is_cuda else BLOCK_SCORES
        size = max(LEAST_QUERIES, most // max(len(vectors_UD), 1))
        starts = torch.arange(0, len(queries_PD) + size, size, device=target.device)
        cuts = torch.searchsorted(extra.query, starts).tolist()
        for number, (first, last) in enumerate(pairwise(cuts)):
            block = slice(number * size, (number + 1) * size)
            queries, place = queries_PD[block], extra.place(first, last, block.start)
            scores = (queries @ vectors_UD.T).float().sub_(log_q)
            scores.index_put_(place, amount[first:last].float(), accumulate=True)
            loss, slopes = _loss_and_slopes(scores, target[block].unsqueeze(1))
            total += loss
            of_amount[first:last] = slopes[place]
            slopes = slopes.to(vectors_UD.dtype)
            of_queries[block] = slopes @ vectors_UD
            of_vectors += slopes.T @ queries
            del scores, slopes  # or the next block's would lie beside them
        ctx.save_for_backward(
            of_queries, of_vectors.to(vectors_UD.dtype), of_amount.to(amount.dtype)
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(gradient * weight for gradient in ctx.saved_tensors), None, None, None


def _loss_and_slopes(scores: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss () of some queries, and its derivative by their scores, which it is made of."""
    chosen, most = scores.gather(1, right), scores.amax(1, keepdim=True)
    odds = scores.sub_(most).exp_()
    total = odds.sum(1, keepdim=True)
    loss = (total.log() + most - chosen).sum()
    return loss, odds.div_(total).scatter_add_(1, right, -torch.ones_like(total))
