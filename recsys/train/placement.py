"""Where the tables' rows lie on GPUs: on the card itself, or on the host behind a cache there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from recsys.model.embeddings import TableSpec

Kernel = Literal["fused", "fused_uvm_caching"]
"""TorchRec's names: `fused_uvm_caching` keeps the rows in the host's memory, which the card can
read (unified memory), and the rows in use in a cache on the card."""

TABLES_SHARE = 0.7
"""Of a card's memory that tables may take; the rest is the dense part's and the step's."""
CACHED_SHARE = 0.2
"""Of a table on the host whose rows the cache holds at a time."""
_VALUE_BYTES = 4
_STATE_BYTES = 4  # row-wise Adagrad: a number a row


@dataclass(frozen=True)
class Card:
    """A GPU of this worker, as far as the plan of the tables needs it."""

    memory_bytes: int
    workers: int
    """Over which each table is sharded."""


def table_bytes(table: TableSpec) -> int:
    """Bytes of a table and its optimizer's state.

    >>> table_bytes(TableSpec(num_rows=1000, dim=64))
    260000
    """
    return table.num_rows * (table.dim * _VALUE_BYTES + _STATE_BYTES)


def choose_kernels(tables: Mapping[str, TableSpec], card: Card) -> dict[str, Kernel]:
    """The kernel of each table: the largest go to the host, one by one, until the rest fit.

    A table on the host still takes its cache on the card.

    >>> tables = {"video": TableSpec(20_000_000, 256), "creator": TableSpec(1000, 256)}
    >>> choose_kernels(tables, Card(80 * 2**30, workers=1))
    {'video': 'fused', 'creator': 'fused'}
    >>> choose_kernels(tables, Card(16 * 2**30, workers=1))
    {'video': 'fused_uvm_caching', 'creator': 'fused'}
    """
    sizes = {name: table_bytes(table) / card.workers for name, table in tables.items()}
    kernels: dict[str, Kernel] = dict.fromkeys(tables, "fused")
    needed, room = sum(sizes.values()), TABLES_SHARE * card.memory_bytes
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if needed <= room:
            break
        kernels[name] = "fused_uvm_caching"
        needed -= (1 - CACHED_SHARE) * sizes[name]
    return kernels
