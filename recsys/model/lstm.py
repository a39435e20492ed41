"""The LSTM's training step on a CPU in less than half of the memory.

oneDNN keeps 2240 floats of each position of an `nn.LSTM(170, 128)` from forward to backward, with
room for the gradients of all that it was made of. Here it is 938: what the position saw, its gates,
whose gradients take their place in backward, and its cell. They lie position by position, in pieces
of one size however long the timelines are, which fit where those of the step before were. The
products are the same, and so is the time.

Shapes: B timelines, L positions, I inputs, H states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_by_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
_by_tanh = torch.ops.aten.tanh_backward.grad_input


def run_lstm(lstm: nn.LSTM, inputs_BLI: Tensor) -> Tensor:
    """The states (B, L, H) of an LSTM of one layer and one direction that takes the batch first."""
    on_cpu, half = inputs_BLI.device.type == "cpu", torch.is_autocast_enabled("cpu")
    if half or not (on_cpu and torch.is_grad_enabled()):
        found: Tensor = lstm(inputs_BLI)[0]
        return found
    of_inputs, of_states, *biases = lstm.all_weights[0]
    states: Tensor = _LeanLSTM.apply(  # type: ignore[no-untyped-call]
        inputs_BLI, torch.cat([of_inputs, of_states], 1), biases[0] + biases[1]
    )
    return states


class _LeanLSTM(torch.autograd.Function):
    """Inputs (B, L, I), weight (4 H, I + H) and bias (4 H,) -> states (B, L, H)."""

    @staticmethod
    def forward(ctx: Any, inputs_BLI: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        states_BLH = inputs_BLI.new_empty(*inputs_BLI.shape[:2], len(weight) // 4)
        state = cell = torch.zeros_like(states_BLH[:, 0])
        kept = [cell]
        for inputs, after in zip(inputs_BLI.unbind(1), states_BLH.unbind(1), strict=True):
            seen = torch.cat([inputs, state], 1)
            gates = torch.addmm(bias, seen, weight.T)
            enter, keep, new, show = gates.chunk(4, 1)
            enter.sigmoid_(), keep.sigmoid_(), new.tanh_(), show.sigmoid_()
            cell = (keep * cell).addcmul_(enter, new)
            state = torch.mul(cell.tanh(), show, out=after)
            kept += [seen, gates, cell]
        ctx.save_for_backward(weight, *kept)
        return states_BLH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_BLH: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        weight, *kept = ctx.saved_tensors
        size, width = slopes_BLH.shape[-1], weight.shape[1] - slopes_BLH.shape[-1]
        of_inputs_BLI = slopes_BLH.new_empty(*slopes_BLH.shape[:2], width)
        of_weight, of_bias = weight.new_zeros(weight.T.shape), weight.new_zeros(len(weight))
        of_state, of_cell = torch.zeros_like(kept[0]), torch.zeros_like(kept[0])
        for at in reversed(range(slopes_BLH.shape[1])):
            before, seen, gates, cell = kept[3 * at : 3 * at + 4]
            of_state = slopes_BLH[:, at] + of_state
            _to_gates(gates, before=before, cell=cell, of_state=of_state, of_cell=of_cell)
            of_inputs_BLI[:, at], of_state = (gates @ weight).split([width, size], 1)
            of_weight.addmm_(seen.T, gates)
            of_bias += gates.sum(0)
        return of_inputs_BLI, of_weight.T, of_bias


def _to_gates(
    gates: Tensor, *, before: Tensor, cell: Tensor, of_state: Tensor, of_cell: Tensor
) -> None:
    """Gates become their gradients, and the gradient of a cell that of the cell before it."""
    enter, keep, new, show = gates.chunk(4, 1)
    shown = cell.tanh()
    of_cell += torch.ops.aten.tanh_backward(of_state * show, shown)
    of_enter, of_keep, of_new = of_cell * new, of_cell * before, of_cell * enter
    of_cell *= keep
    _by_sigmoid(of_enter, enter, grad_input=enter)
    _by_sigmoid(of_keep, keep, grad_input=keep)
    _by_tanh(of_new, new, grad_input=new)
    _by_sigmoid(of_state * shown, show, grad_input=show)
