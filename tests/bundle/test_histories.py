"""Histories go into a bundle part by part, and come out mapped and whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.bundle.histories import read_histories, write_histories
from recsys.bundle.spooled import write_parts
from recsys.config.data import EventColumns
from recsys.errors import InputError
from recsys.features.timelines import EVENT_FIELDS, Timelines
from recsys.schema import history_schema

COLUMNS = EventColumns(tasks=["click"], context=["tab"], watched="seconds")


def part(*users: tuple[str, list[int], list[int]]) -> pa.Table:
    """Users with the rows of their events and of what they liked before; all else follows."""
    rows = [row for _, row, _ in users]
    columns = {
        "user_id": [user for user, _, _ in users],
        "video_row": rows,
        "time_ms": [[1000 * row for row in of] for of in rows],
        "positive": [[row % 2 for row in of] for of in rows],
        "labels": [[1 - row % 2 for row in of] for of in rows],
        "watched": [[value for row in of for value in (row / 2, 0.5)] for of in rows],
        "context_rows": [[row + 1 for row in of] for of in rows],
        "split": [[0 for _ in of] for of in rows],
        "count_features": [[value for row in of for value in (row, -row, 7)] for of in rows],
        "older_liked": [older for _, _, older in users],
    }
    return pa.table(columns, schema=history_schema())


def written(folder: Path, *parts: pa.Table) -> CheckedReader:
    writer = CheckedWriter(str(folder))
    write_histories(writer, iter(parts), COLUMNS, num_count_features=3)
    return CheckedReader(str(folder), writer.files)


PARTS = (part(("ada", [3, 5], [9]), ("zoë", [], [])), part(), part(("李", [4], [1, 2])))


def test_they_are_those_of_all_parts_one_after_the_other(tmp_path: Path) -> None:
    histories, older = read_histories(written(tmp_path, *PARTS))
    assert list(histories.user_ids) == ["ada", "zoë", "李"]
    assert histories.offsets.tolist() == [0, 2, 2, 3]
    assert histories.video_rows.tolist() == [3, 5, 4]
    assert histories.watched.tolist() == [[1.5, 0.5], [2.5, 0.5], [2, 0.5]]
    assert histories.count_features[:].tolist() == [[3, -3, 7], [5, -5, 7], [4, -4, 7]]
    assert [older[user].tolist() for user in range(3)] == [[9], [], [1, 2]]
    whole = Timelines.from_histories(pa.concat_tables(PARTS), COLUMNS, num_count_features=3)
    for name in EVENT_FIELDS:
        ours, theirs = getattr(histories, name)[:], getattr(whole, name)[:]
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name


def test_they_are_mapped(tmp_path: Path) -> None:
    histories, older = read_histories(written(tmp_path, *PARTS))
    for array in (histories.video_rows, histories.time_ms, histories.count_features, older.values):
        assert isinstance(array.base, np.memmap)  # type: ignore[union-attr]


def test_more_than_memory_holds_and_32_bits_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of holes: the user in the middle has 2^34 events, and the last one's come after them.

    They have the types that were written; to sum up their bytes would take minutes.
    """
    reader = written(tmp_path, *PARTS)
    monkeypatch.setattr(CheckedReader, "check", lambda *_: None)
    for ends, names in (("ends", EVENT_FIELDS), ("older_ends", ["older"]), ("id_ends", ["ids"])):
        stretch(tmp_path / "histories", ends, names)
    histories, older = read_histories(reader)
    assert histories.offsets.tolist() == [0, 2, 2 + 2**34, 3 + 2**34]
    assert [histories.user_ids[user] for user in (0, 2)] == ["ada", "李"]
    assert [older[user].tolist() for user in (0, 2)] == [[9], [1, 2]]
    known = histories.windows(histories.offsets[[0, 2]], histories.offsets[[1, 3]])
    assert known.video_rows.tolist() == [[3, 5], [4, 0]]
    assert known.count_features.tolist() == [[[3, -3, 7], [5, -5, 7]], [[4, -4, 7], [0, 0, 0]]]


def stretch(folder: Path, ends_name: str, names: Sequence[str]) -> None:
    """Gives the user in the middle 2^34 more values, all 0, in the array of each of these names."""
    ends = np.load(folder / f"{ends_name}.npy")
    middle = int(ends[2])
    ends[2:] += 2**34
    np.save(folder / f"{ends_name}.npy", ends)
    for name in names:
        path = folder / f"{name}.npy"
        small = np.load(path)
        shape = (len(small) + 2**34, *small.shape[1:])
        large = np.lib.format.open_memmap(path, "w+", small.dtype, shape)
        large[:middle], large[middle + 2**34 :] = small[:middle], small[middle:]


def test_ends_go_on_beyond_32_bits(tmp_path: Path) -> None:
    writer = CheckedWriter(str(tmp_path))
    parts = [{"ends": np.array([0, 2**31 - 1])}, {"ends": np.array([0, 3, 2**31])}]
    write_parts(writer, "users", parts)
    ends = CheckedReader(str(tmp_path), writer.files).array("users/ends.npy")
    assert ends.tolist() == [0, 2**31 - 1, 2**31 + 2, 2**32 - 1]


def test_blocks_of_rows_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.bundle.spooled.BLOCK", 16)
    histories, _ = read_histories(written(tmp_path, part(("u", list(range(1, 40)), []))))
    assert histories.video_rows.tolist() == list(range(1, 40))
    assert histories.count_features[30].tolist() == [31, -31, 7]


def test_nobody_has_a_history(tmp_path: Path) -> None:
    histories, older = read_histories(written(tmp_path))
    assert (len(histories), len(older)) == (0, 0)
    assert (histories.count_features.shape, histories.labels.shape) == ((0, 3), (0, 1))


def test_arrays_of_several_lengths_are_refused(tmp_path: Path) -> None:
    reader, other = written(tmp_path / "a", *PARTS), written(tmp_path / "b", PARTS[0])
    name = "histories/positive.npy"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    files = {**reader._files, name: other._files[name]}
    with pytest.raises(InputError, match="histories: its arrays are not of one length"):
        read_histories(CheckedReader(str(tmp_path / "a"), files))
