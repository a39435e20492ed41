"""The hourly counts of all partitions as one: never more than a block of them is held at a time.

Each partition leaves its own counts of every thing, sorted by row. Blocks of rows are cut so that
each holds about `BLOCK_ENTRIES` of them; a Ray task adds up the partitions' entries of a block, and
the blocks are joined one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.config.data import EventColumns
from recsys.config.run import RunConfig
from recsys.data.ragged import IntArray, Ragged
from recsys.data.run_folder import RunFolder
from recsys.data.storage import join, list_files
from recsys.features.counts import CountLayout
from recsys.features.hourly import HourlyCounts, hour_of, join_sorted, sampled_rows, sum_rows

BLOCK_ENTRIES = 1 << 21
"""Entries (a row in an hour of a partition) that are added up together."""
GROUP_ENTRIES = 1 << 14
"""Entries of a partition of which only the last row is looked at, to cut the blocks."""
PARTS, BLOCKS = "count-parts", "count-blocks"


@dataclass(frozen=True)
class CountedEvents:
    """E events of a partition that are counted."""

    video_rows: IntArray
    context_rows: list[IntArray]
    """Of each context column (E,)."""
    time_ms: IntArray
    flags: list[npt.NDArray[np.int8]]
    """The positive flag and each task's label (E,)."""

    def take(self, events: IntArray) -> CountedEvents:
        """Some of them, by their places."""
        return CountedEvents(
            self.video_rows[events],
            [rows[events] for rows in self.context_rows],
            self.time_ms[events],
            [flag[events] for flag in self.flags],
        )


def write_part(
    events: CountedEvents, columns: EventColumns, things: dict[str, Ragged], spill: str, number: int
) -> None:
    """Writes the counts of one partition, by its number.

    Args:
        events: That are counted.
        columns: Of the run.
        things: The rows of each thing that each video belongs to: `rows_of_things`.
        spill: Folder of what prepare needs meanwhile.
        number: The partition's.
    """
    counts = np.stack([np.ones_like(events.time_ms), *events.flags], 1).astype(np.int64)
    hours = hour_of(events.time_ms)
    known = np.flatnonzero(events.video_rows)
    counted: dict[str, HourlyCounts] = {}
    for name, rows_of in things.items():
        rows = rows_of.select(events.video_rows[known])
        event = known[rows.list_of_value]
        counted[name] = HourlyCounts(rows.values, hours[event], counts[event])
    names = CountLayout.of(columns).context_names
    for name, context in zip(names, events.context_rows, strict=True):
        counted[name] = HourlyCounts(context, hours, counts)
    for name, hourly in counted.items():
        hourly.write_part(join(spill, PARTS, name, f"{number:05d}"))


def block_starts(groups: Iterable[tuple[int, int]]) -> list[int]:
    """First rows of blocks of about `BLOCK_ENTRIES` entries, the first of them 0.

    Args:
        groups: Of all partitions, some entries' last row and their number.

    >>> block_starts([(9, BLOCK_ENTRIES), (5, BLOCK_ENTRIES - 1), (5, 1), (20, 3)])
    [0, 6, 10]
    """
    starts, entries = [0], 0
    ordered = sorted(groups)
    for place, (last, size) in enumerate(ordered):
        entries += size
        is_rows_end = place + 1 < len(ordered) and ordered[place + 1][0] > last
        if entries >= BLOCK_ENTRIES and is_rows_end:
            starts.append(last + 1)
            entries = 0
    return starts


@dataclass(frozen=True)
class SumBlocks:
    """Adds up one block a call, as a Ray task."""

    spill: str
    blocks: list[tuple[str, int, int]]
    """The thing, its first row, and the row after its last one."""

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, list[int]]:
        """Takes the number of a block and writes it."""
        (number,) = batch["id"].tolist()
        name, first, end = self.blocks[number]
        hourly = sum_rows(list_files(join(self.spill, PARTS, name), ""), first, end)
        hourly.write_part(join(self.spill, BLOCKS, name, f"{first:012d}"))
        return {"id": [number]}


def write_counts(config: RunConfig, *, spill: str) -> None:
    """Joins the partitions' counts of each thing into RUN/prepare/counts."""
    import ray

    layout = CountLayout.of(config.data.columns)
    blocks: list[tuple[str, int, int]] = []
    for name in layout.statistics:
        parts = list_files(join(spill, PARTS, name), "")
        starts = block_starts(
            group for part in parts for group in sampled_rows(part, GROUP_ENTRIES)
        )
        ends = [*starts[1:], np.iinfo(np.int64).max]
        blocks += [(name, first, end) for first, end in zip(starts, ends, strict=True)]
    worker = SumBlocks(spill, blocks)
    dataset = ray.data.range(len(blocks), override_num_blocks=len(blocks))
    for _ in dataset.map_batches(worker, batch_size=1).iter_rows():
        pass
    for name in layout.statistics:
        parts = [
            join(spill, BLOCKS, name, f"{first:012d}") for of, first, _ in blocks if of == name
        ]
        join_sorted(parts, join(RunFolder(config.run).counts, name))
