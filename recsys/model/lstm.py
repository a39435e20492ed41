"""The LSTM's training step on a CPU in less than half of the memory.

oneDNN keeps 2240 floats of each position of an `nn.LSTM(170, 128)` from forward to backward, with
room for the gradients of all that it was made of. Here it is 938: what the position read, its
gates, whose gradients take their place in backward, and its cell. They lie position by position, in
pieces of one size however long the timelines are, which fit where those of the step before were.
The products are the same, and so is the time.

The gates are those of Gers et al. 2000, "Learning to forget", in PyTorch's order i, f, g, o:
cell = forget_gate · cell before + input_gate · cell_candidate, state = output_gate · tanh(cell).

Shapes: B timelines, L positions, I inputs, H state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

_grad_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
_grad_tanh = torch.ops.aten.tanh_backward.grad_input


def run_lstm(lstm: nn.LSTM, inputs_BLI: Tensor) -> Tensor:
    """The states (B, L, H) of an LSTM of one layer and one direction that takes the batch first."""
    on_cpu, half = inputs_BLI.device.type == "cpu", torch.is_autocast_enabled("cpu")
    if half or not (on_cpu and torch.is_grad_enabled()):
        states_BLH: Tensor = lstm(inputs_BLI)[0]
        return states_BLH
    from_inputs, from_states, *biases = lstm.all_weights[0]
    states: Tensor = _LeanLSTM.apply(  # type: ignore[no-untyped-call]
        inputs_BLI, torch.cat([from_inputs, from_states], 1), biases[0] + biases[1]
    )
    return states


class _LeanLSTM(torch.autograd.Function):
    """Inputs (B, L, I), weight (4 H, I + H) and bias (4 H,) -> states (B, L, H)."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs_BLI: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        states_BLH = inputs_BLI.new_empty(*inputs_BLI.shape[:2], len(weight) // 4)
        state = cell = torch.zeros_like(states_BLH[:, 0])
        kept = [cell]
        for inputs, after in zip(inputs_BLI.unbind(1), states_BLH.unbind(1), strict=True):
            joined = torch.cat([inputs, state], 1)
            gates = torch.addmm(bias, joined, weight.T)
            input_gate, forget_gate, cell_candidate, output_gate = gates.chunk(4, 1)
            input_gate.sigmoid_(), forget_gate.sigmoid_()
            cell_candidate.tanh_(), output_gate.sigmoid_()
            cell = (forget_gate * cell).addcmul_(input_gate, cell_candidate)
            state = torch.mul(cell.tanh(), output_gate, out=after)
            kept += [joined, gates, cell]
        ctx.save_for_backward(weight, *kept)
        return states_BLH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """From the gradient of the states (B, L, H) to those of inputs, weight and bias."""
        weight, *kept = ctx.saved_tensors
        size, width = grad_output.shape[-1], weight.shape[1] - grad_output.shape[-1]
        grad_inputs_BLI = grad_output.new_empty(*grad_output.shape[:2], width)
        grad_weight, grad_bias = weight.new_zeros(weight.T.shape), weight.new_zeros(len(weight))
        grad_state, grad_cell = torch.zeros_like(kept[0]), torch.zeros_like(kept[0])
        for at in reversed(range(grad_output.shape[1])):
            cell_before, joined, gates, cell = kept[3 * at : 3 * at + 4]
            grad_state = grad_output[:, at] + grad_state
            _to_gradients(gates, cell_before, cell, grad_state=grad_state, grad_cell=grad_cell)
            grad_inputs_BLI[:, at], grad_state = (gates @ weight).split([width, size], 1)
            grad_weight.addmm_(joined.T, gates)
            grad_bias += gates.sum(0)
        return grad_inputs_BLI, grad_weight.T, grad_bias


def _to_gradients(
    gates: Tensor, cell_before: Tensor, cell: Tensor, *, grad_state: Tensor, grad_cell: Tensor
) -> None:
    """Gates become their gradients, and the gradient of a cell that of the cell before it."""
    input_gate, forget_gate, cell_candidate, output_gate = gates.chunk(4, 1)
    squashed = cell.tanh()
    grad_cell += torch.ops.aten.tanh_backward(grad_state * output_gate, squashed)
    grad_input_gate, grad_forget_gate = grad_cell * cell_candidate, grad_cell * cell_before
    grad_candidate = grad_cell * input_gate
    grad_cell *= forget_gate
    _grad_sigmoid(grad_input_gate, input_gate, grad_input=input_gate)
    _grad_sigmoid(grad_forget_gate, forget_gate, grad_input=forget_gate)
    _grad_tanh(grad_candidate, cell_candidate, grad_input=cell_candidate)
    _grad_sigmoid(grad_state * squashed, output_gate, grad_input=output_gate)
