from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recsys.model.lstm import run_lstm


def learnt(lstm: nn.LSTM, inputs: Tensor, weights: Tensor, *, lean: bool) -> list[Tensor]:
    """States and gradients of inputs and parameters."""
    inputs = inputs.clone().requires_grad_()
    states = run_lstm(lstm, inputs) if lean else lstm(inputs)[0]
    of = torch.autograd.grad((states * weights).sum(), [inputs, *lstm.parameters()])
    return [states.detach(), *of]


def test_it_is_the_lstm_of_torch() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 3, batch_first=True).double()
    inputs, weights = torch.randn(4, 7, 5).double(), torch.randn(4, 7, 3).double()
    ours, theirs = (learnt(lstm, inputs, weights, lean=lean) for lean in (True, False))
    assert len(ours) == 6
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_without_gradients_it_is_torch_itself() -> None:
    lstm, inputs = nn.LSTM(5, 3, batch_first=True), torch.randn(2, 4, 5)
    with torch.no_grad():
        assert torch.equal(run_lstm(lstm, inputs), lstm(inputs)[0])


def test_gates_that_backward_has_used_up_are_not_used_again() -> None:
    lstm, inputs = nn.LSTM(5, 3, batch_first=True), torch.randn(2, 4, 5)
    loss = run_lstm(lstm, inputs).sum()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]
