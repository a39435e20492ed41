"""ID embedding tables in plain torch: what a laptop trains with and what a bundle serves with.

Training at scale swaps in TorchRec's sharded tables with the same signature
(`recsys.train.sharding.ShardedTables`).

Shapes: V videos of a step, R rows that a table is asked for, D width of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.features.inputs import TableInputs


@dataclass(frozen=True)
class TableSpec:
    """Size of one embedding table; row 0 is "unknown"."""

    num_rows: int
    dim: int


def init_table(weight: Tensor) -> None:
    """Fills a table's initial rows: small, so that an unseen row adds little to a vector."""
    nn.init.normal_(weight, std=0.05)


class PlainTables(nn.Module):
    """One `weight` (rows, dim) a table, looked up on the device where it lies.

    Args:
        specs: The tables by name.
        sparse: Whether gradients are sparse: only the rows that a batch used.
    """

    def __init__(self, specs: Mapping[str, TableSpec], *, sparse: bool = False) -> None:
        super().__init__()
        tables = {name: nn.Embedding(s.num_rows, s.dim, sparse=sparse) for name, s in specs.items()}
        for table in tables.values():
            init_table(table.weight)
        self.embeddings = nn.ModuleDict(tables)

    @classmethod
    def unfilled(cls, specs: Mapping[str, TableSpec]) -> PlainTables:
        """Tables whose numbers are yet to come: no page of them is touched."""
        made = cls({})
        for name, spec in specs.items():
            weight = torch.empty(spec.num_rows, spec.dim)
            made.embeddings[name] = nn.Embedding(spec.num_rows, spec.dim, _weight=weight)
        return made

    def forward(self, inputs: TableInputs) -> dict[str, Tensor]:
        """Looks rows up: their embeddings (R, D) by the name of the table."""
        return {name: self.embeddings[name](rows) for name, (rows, _) in inputs.items()}


def mean_by_bag(values: Tensor, lengths: Tensor) -> Tensor:
    """Mean of each bag's values; zeros for an empty bag.

    Args:
        values: (R, D), the bags one after the other.
        lengths: (V,) int64, summing to R.

    Returns:
        (V, D).

    >>> mean_by_bag(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 2])).tolist()
    [[0.0], [2.0]]
    """
    # Told how many they are, torch need not add up the lengths, which a GPU would be waited for.
    bag = torch.repeat_interleave(lengths, output_size=len(values))
    total = values.new_zeros(len(lengths), values.shape[1]).index_add(0, bag, values)
    return total / lengths.clamp(min=1).unsqueeze(1)
