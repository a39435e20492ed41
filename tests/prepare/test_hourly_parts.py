"""Counts of partitions, added up a block of rows at a time, are those of all events at once."""

from pathlib import Path

import numpy as np
import pytest

from recsys.data.ragged import Ragged
from recsys.features.hourly import HourlyCounts, join_sorted, sampled_rows, sum_rows
from recsys.prepare import hourly_parts
from recsys.prepare.hourly_parts import CountedEvents, block_starts, write_part
from recsys.schema import TRAIN
from tests.steps import COLUMNS

HOUR = 3600 * 1000
THINGS = {
    "video": Ragged.from_lists([[0], [1], [2], [3]]),
    "category": Ragged.from_lists([[1], [1], [1, 2], []]),
}


def events(videos: list[int], hours: list[int], tabs: list[int], liked: list[int]) -> CountedEvents:
    flags = [np.array(liked, np.int8), *(np.zeros(len(liked), np.int8) for _ in COLUMNS.tasks)]
    return CountedEvents(np.array(videos), [np.array(tabs)], np.array(hours) * HOUR, flags)


def counts_in(folder: Path, name: str, first: int = 0, end: int = 99) -> list[tuple[int, ...]]:
    """Row, hour, events and liked ones, of the partitions' files."""
    paths = sorted(str(path) for path in (folder / "count-parts" / name).iterdir())
    hourly = sum_rows(paths, first, end)
    rows, hours, counts = hourly.entries()
    return list(zip(rows.tolist(), hours.tolist(), *counts[:, :2].T.tolist(), strict=True))


def test_partitions_add_up(tmp_path: Path) -> None:
    """Video 2 is of two categories, video 3 of none; the unknown video counts for its tab alone."""
    parts = [
        events([1, 2, 2], [7, 7, 9], [1, 1, 2], [1, 0, 1]),
        events([2, 0, 3], [9, 9, 7], [2, 1, 2], [1, 1, 0]),
    ]
    for number, part in enumerate(parts):
        write_part(part, COLUMNS, THINGS, str(tmp_path), number)
    assert counts_in(tmp_path, "video") == [(1, 7, 1, 1), (2, 7, 1, 0), (2, 9, 2, 2), (3, 7, 1, 0)]
    assert counts_in(tmp_path, "video", 2, 3) == [(2, 7, 1, 0), (2, 9, 2, 2)]
    assert counts_in(tmp_path, "category") == [
        (1, 7, 2, 1),
        (1, 9, 2, 2),
        (2, 7, 1, 0),
        (2, 9, 2, 2),
    ]
    assert counts_in(tmp_path, "context_tab") == [
        (1, 7, 2, 1),
        (1, 9, 1, 1),
        (2, 7, 1, 0),
        (2, 9, 2, 2),
    ]


def test_some_events_alone(tmp_path: Path) -> None:
    """As leave-one-out counts those of the training."""
    split = np.array([TRAIN, TRAIN, 2])
    kept = events([1, 2, 2], [7, 7, 9], [1, 1, 2], [1, 0, 1]).take(np.flatnonzero(split == TRAIN))
    write_part(kept, COLUMNS, THINGS, str(tmp_path), 0)
    assert counts_in(tmp_path, "video") == [(1, 7, 1, 1), (2, 7, 1, 0)]
    assert counts_in(tmp_path, "context_tab") == [(1, 7, 2, 1)]


def test_blocks_end_between_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose entries lie in several row groups is never cut."""
    monkeypatch.setattr(hourly_parts, "BLOCK_ENTRIES", 10)
    assert block_starts([]) == [0]
    assert block_starts([(7, 6), (3, 6), (9, 1)]) == [0, 8]
    assert block_starts([(7, 20), (7, 20), (9, 1)]) == [0, 8]
    assert block_starts([(7, 20)]) == [0], "no block without entries"


def test_every_so_many_entries_are_looked_at(tmp_path: Path) -> None:
    rows, ones = np.array([1, 1, 4, 6, 9]), np.ones((5, 2), np.int64)
    HourlyCounts(rows, np.arange(5), ones).write_part(str(tmp_path))
    assert sampled_rows(str(tmp_path), 2) == [(1, 2), (6, 2), (9, 1)]
    assert sampled_rows(str(tmp_path), 5) == [(9, 5)]


def test_joined_blocks_are_the_counts_of_all(tmp_path: Path) -> None:
    """In blocks, one of them empty and one of a single row, as all of them at once."""
    rng = np.random.default_rng(0)
    rows, hours = rng.integers(1, 40, 500), rng.integers(0, 30, 500)
    counts = rng.integers(0, 3, (500, 2))
    whole = HourlyCounts(rows, hours, counts)
    bounds = [0, 7, 8, 30, 50, 60]
    folders = []
    for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        kept = (rows >= first) & (rows < end)
        folders.append(str(tmp_path / f"{first:02d}"))
        HourlyCounts(rows[kept], hours[kept], counts[kept]).write_part(folders[-1])
    join_sorted(folders, str(tmp_path / "all"))
    hourly = HourlyCounts.open(str(tmp_path / "all"))
    asked = np.repeat(np.arange(60), 32), np.tile(np.arange(32), 60)
    assert np.array_equal(hourly.before(*asked), whole.before(*asked))
    for ours, theirs in zip(hourly.entries(), whole.entries(), strict=True):
        assert np.array_equal(ours, theirs)


def test_joined_blocks_without_any_event(tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int64)
    HourlyCounts(nothing, nothing, np.zeros((0, 3), np.int64)).write_part(str(tmp_path / "a"))
    join_sorted([str(tmp_path / "a")], str(tmp_path / "all"))
    hourly = HourlyCounts.open(str(tmp_path / "all"))
    assert hourly.before(np.array([0, 5]), np.array([9, 9])).tolist() == [[0, 0, 0]] * 2
