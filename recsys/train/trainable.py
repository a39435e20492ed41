"""A model with its optimizers, ready to train: sharded by TorchRec, or in plain torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.parallel import DistributedDataParallel

from recsys.config.run import RunConfig, TrainConfig
from recsys.errors import InputError
from recsys.features.inputs import Batch, Sizes
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Losses, Recommender, table_specs
from recsys.train.exchange import LocalSteps, set_exchange

TABLE_PREFIX = "tables."
StateDict = dict[str, Any]
"""Tensors, plain values and dicts of them, as `torch.distributed.checkpoint` takes it."""


class JointOptimizer(Protocol):
    """Several optimizers stepped as one: TorchRec's `CombinedOptimizer`, or plain torch ones."""

    @property
    def param_groups(self) -> Collection[dict[str, Any]]:
        """The parameters of all of them, in groups, with their settings."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""

    def step(self) -> object:
        """Updates all parameters."""

    def state_dict(self) -> StateDict:
        """Their state by parameter name."""

    def load_state_dict(self, state: StateDict) -> None:
        """Takes over what `state_dict` gave."""


@dataclass
class Trainable:
    """A model and its optimizers, as the training loop drives them."""

    module: nn.Module
    """Called for the losses."""
    model: Recommender
    """The model inside `module`, for encoding without gradients."""
    dense_optimizer: torch.optim.Optimizer
    """Whose learning rate follows the schedule."""
    optimizer: JointOptimizer
    """Dense and tables together."""
    plan: str
    """How the tables are placed."""
    sharded: bool = False
    """Whether the tables are TorchRec's."""
    half: bool = False
    """Whether matrix products take bfloat16."""
    local_steps: LocalSteps | None = None
    """Takes the mean of the workers' dense parts, where not every step's gradient is exchanged."""

    def losses(self, batch: Batch) -> Losses:
        """The step's losses, ready for backward."""
        with torch.autocast(batch.learn.device.type, torch.bfloat16, enabled=self.half):
            return self.module(batch)

    def update(self, clip_norm: float) -> None:
        """Steps the optimizers by the gradients that backward left.

        The dense gradient is clipped; the tables may have learnt inside backward already.
        """
        torch.nn.utils.clip_grad_norm_(self.dense_parameters(), clip_norm)
        self.optimizer.step()
        if self.local_steps is not None:
            self.local_steps.step_taken()

    def agree(self) -> None:
        """Makes all workers' dense parts the same; every worker calls it, before a checkpoint."""
        if self.local_steps is not None:
            self.local_steps.average()

    def dense_parameters(self) -> list[nn.Parameter]:
        """What AdamW learns, and gradient clipping reaches."""
        return [p for name, p in self.model.named_parameters() if not name.startswith(TABLE_PREFIX)]

    def state_dict(self) -> StateDict:
        """Model and optimizer, by parameter name, as `torch.distributed.checkpoint` takes it."""
        return {"model": self._named.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Takes over a state that `torch.distributed.checkpoint` filled.

        The optimizers' settings are not taken over: learning rates and weight decay stay the
        config's, where the checkpoint is of a training that had others.
        """
        own = [_settings(group) for group in self.optimizer.param_groups]
        self._named.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)

    @property
    def _named(self) -> nn.Module:
        """What names the parameters as one worker does: DDP puts `module.` before them."""
        return self.model if isinstance(self.module, DistributedDataParallel) else self.module


def _settings(group: Mapping[str, Any]) -> StateDict:
    """What an optimizer's group of parameters has beside them."""
    return {name: value for name, value in group.items() if name != "params"}


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row: FBGEMM's EXACT_ROWWISE_ADAGRAD in plain torch.

    state += mean(g²) of the row; row -= lr · g / (√state + eps). Duchi et al. 2011, with the
    accumulator shared by a row as in Gupta et al. 2014. Dense and sparse gradients give the same.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                rows = torch.zeros(len(parameter), 1, device=parameter.device)
                self.state[parameter]["row_sum"] = rows
        self._places: dict[Tensor, Tensor] = {}
        """What `summed_by_row` needs of each table with sparse gradients."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Updates the rows that have a gradient; a closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["eps"])

    def _update(self, parameter: Tensor, lr: float, eps: float) -> None:
        total = self.state[parameter]["row_sum"]
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            if parameter not in self._places:
                self._places[parameter] = torch.empty_like(total, dtype=torch.int32).squeeze(1)
            rows = gradient._indices()[0]
            values = summed_by_row(rows, gradient._values(), self._places[parameter])
            total.index_add_(0, rows, values.pow(2).mean(1, keepdim=True))
            parameter.index_add_(0, rows, values / (total[rows].sqrt() + eps), alpha=-lr)
        else:
            total += gradient.pow(2).mean(1, keepdim=True)
            parameter.addcdiv_(gradient, total.sqrt() + eps, value=-lr)


def summed_by_row(rows: Tensor, values: Tensor, place_of_row: Tensor) -> Tensor:
    """Adds up the values of each row, which may be named many times.

    There are as many results as values, since how many rows differ would have to be asked of a
    GPU: where a row is named again and again the sum stands at one of its places, and zeros stand
    at the others. No row is sorted, which would be some ten operations on a GPU.

    Args:
        rows: (R,) int64.
        values: (R, D).
        place_of_row: (rows of the table,) int32 to work in. What it holds is of no account.

    Returns:
        (R, D).

    >>> rows, values = torch.tensor([7, 3, 7]), torch.tensor([[1.0], [2.0], [4.0]])
    >>> summed_by_row(rows, values, torch.empty(9, dtype=torch.int32)).sum(0).tolist()
    [7.0]
    """
    places = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    place_of_row.scatter_(0, rows, places)  # any of a row's places remains
    return torch.zeros_like(values).index_add_(0, place_of_row[rows], values)


def make_adamw(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, one operation for all parameters, with its state in place from the start.

    It makes its state in the first step otherwise, and a checkpoint that is loaded before it finds
    nothing to put the stored moments into.
    """
    adamw = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    for group in adamw.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                adamw.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),  # a fused step counts there
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
    return adamw


class _Optimizers:
    """Several optimizers stepped as one, with their state by parameter name."""

    def __init__(self, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        self.model, self.optimizers = model, optimizers

    @property
    def param_groups(self) -> Collection[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> StateDict:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        return get_optimizer_state_dict(self.model, tuple(self.optimizers), options=options)

    def load_state_dict(self, state: StateDict) -> None:
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        set_optimizer_state_dict(
            self.model, tuple(self.optimizers), optim_state_dict=state, options=options
        )


def build_plain(config: RunConfig, sizes: Sizes, device: torch.device) -> Trainable:
    """The same model with plain embeddings, a copy on each worker (laptop mode)."""
    workers = dist.get_world_size() if dist.is_initialized() else 1
    specs = table_specs(config.model, sizes)
    # DDP cannot average sparse gradients over gloo and nccl alike; one worker has no such need.
    tables = PlainTables(specs, sparse=workers == 1)
    model = Recommender(config.model, sizes, tables=tables).to(device)
    named = list(model.named_parameters())
    dense = make_adamw([p for name, p in named if not name.startswith(TABLE_PREFIX)], config.train)
    sparse = RowWiseAdagrad(tables.parameters(), lr=config.train.table_lr)
    module: nn.Module = model
    if workers > 1:
        if config.train.average_every > 1:
            raise InputError(
                f"train.average_every={config.train.average_every}: {workers} workers' copies of "
                "the tables would part; set train.tables=torchrec (pip install 'recsys[cpu]' or "
                "[gpu]) or train.average_every=1"
            )
        module = DistributedDataParallel(model, static_graph=True, broadcast_buffers=False)
        set_exchange(module, [], dense, config.train)
    return Trainable(
        module=module,
        model=model,
        dense_optimizer=dense,
        optimizer=_Optimizers(model, [dense, sparse]),
        plan="plain torch tables, a copy on each worker",
        half=config.train.precision == "bfloat16",
    )
