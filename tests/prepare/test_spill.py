"""The first pass of prepare: what is kept, what is counted, and how files are shared out."""

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig
from recsys.data.vocab import DistinctIds
from recsys.errors import InputError
from recsys.prepare import spill
from recsys.prepare.spill import Spilled, crc32s, num_partitions, plan_tasks, require_usable
from recsys.prepare.tables import TableFile
from tests.inputs import first_pass

COLUMNS = {
    "time": "at",
    "positive": "clicked",
    "tasks": ["clicked", "liked"],
    "watched": "s",
    "context": ["tab"],
}
MAY_2022 = 1_651_507_200_000
NAN = float("nan")


def config(events: Path, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"events": str(events), "columns": COLUMNS, **settings})


def rows(count: int = 3, **columns: Any) -> dict[str, Any]:
    return {
        "user_id": [f"u{i}" for i in range(count)],
        "video_id": list(range(count)),
        "at": [MAY_2022 + i for i in range(count)],
        "clicked": [1, 0, 1, 0][:count] if count <= 4 else [1] * count,
        "liked": [0, 1, 0, 1][:count] if count <= 4 else [0] * count,
        "s": [1.5] * count,
        "tab": ["home"] * count,
        **columns,
    }


def write(path: Path, table: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, **options)
    return path


def test_what_is_dropped_is_counted_once_by_its_first_reason(tmp_path: Path) -> None:
    table = rows(
        4,
        user_id=["u0", "", "u2", None],
        video_id=[0.0, NAN, 2.0, NAN],
        at=[MAY_2022, None, 0, None],
        liked=[0.0, NAN, NAN, 1.0],
    )
    spilled, events = first_pass(config(write(tmp_path / "e.parquet", table)), tmp_path)
    assert spilled.rows == 4
    assert spilled.dropped == {"missing user": 2, "impossible time": 1}
    assert [(event["user_id"], event["video_id"]) for event in events] == [("u0", "0")]
    assert spilled.videos.all().to_pylist() == ["0"] and spilled.contexts == {"tab": {"home"}}


def test_what_is_read_otherwise_is_counted(tmp_path: Path) -> None:
    table = rows(s=[NAN, None, 2.0], tab=["", None, "home"], liked=[None, 1, 0])
    data = config(write(tmp_path / "e.parquet", table), missing_labels="zero")
    spilled, events = first_pass(data, tmp_path)
    assert spilled.read_otherwise == {"missing s as 0": 2, "missing liked as 0": 1}
    assert spilled.dropped == {}
    kept = {event["user_id"]: event for event in events}
    assert [kept[f"u{i}"]["watched"] for i in range(3)] == [0, 0, 2]
    assert [kept[f"u{i}"]["label_liked"] for i in range(3)] == [0, 1, 0]
    assert [kept[f"u{i}"]["context_tab"] for i in range(3)] == [None, None, "home"]


def test_a_label_that_is_missing_is_not_learnt_as_no(tmp_path: Path) -> None:
    table = rows(liked=[None, 1, 0], clicked=pa.array([1.0, NAN, 0.0]))
    spilled, events = first_pass(config(write(tmp_path / "e.parquet", table)), tmp_path)
    assert spilled.dropped == {"missing label liked": 1, "missing label clicked": 1}
    assert [event["user_id"] for event in events] == ["u2"]


def test_labels_that_are_never_0_are_asked_about() -> None:
    data = config(Path("x"))
    spilled = Spilled(rows=5)
    spilled.flags.update({("liked", 1): 2, ("liked", -1): 3, ("clicked", 1): 3, ("clicked", 0): 2})
    message = "'liked' holds 1 in 2 rows, nothing in 3, and never 0; if nothing means no, set data"
    with pytest.raises(InputError, match=message):
        require_usable(spilled, data)
    require_usable(spilled, config(Path("x"), missing_labels="zero"))
    spilled.flags["liked", 0] = 1
    require_usable(spilled, data)


def test_a_wrong_value_names_its_file(tmp_path: Path) -> None:
    write(tmp_path / "e" / "a.parquet", rows())
    write(tmp_path / "e" / "b.parquet", rows(liked=[0, 1, 2]))
    with pytest.raises(InputError, match="data.events=.*b.parquet: column 'liked' holds 2"):
        first_pass(config(tmp_path / "e"), tmp_path)


def test_a_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.parquet", rows(1000), compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(InputError, match="e.parquet: not a Parquet file") as error:
        first_pass(config(path), tmp_path)
    assert "\n" not in str(error.value)


def test_small_files_are_spilled_together_and_large_ones_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "SPILL_ROWS", 10)
    for number in range(8):
        users = [f"u{number} {i}" for i in range(4)]
        write(tmp_path / "e" / f"{number}.parquet", rows(4, user_id=users))
    write(tmp_path / "e" / "large.parquet", rows(30), row_group_size=15)
    spilled, events = first_pass(config(tmp_path / "e"), tmp_path)
    assert spilled.rows == len(events) == 62
    # Twice three files of 4 rows; the last two and half of the large one, in batches of at most
    # 10; the other half in two.
    assert len(list((tmp_path / "spill").rglob("*.arrow"))) == 6


def test_tasks_of_nothing_and_of_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SPILL_ROWS", 10)
    monkeypatch.setattr(spill, "MOST_TASKS", 2)
    assert plan_tasks([TableFile("a", (4, 4, 4))]) == [[("a", (0, 1, 2))]]
    tasks = plan_tasks([TableFile("a", (10,) * 6), TableFile("b", (3,))])
    assert tasks == [[("a", (0, 1, 2, 3))], [("a", (4, 5)), ("b", (0,))]]


def test_what_was_found_crosses_to_the_driver_and_so_does_what_is_wrong() -> None:
    spilled = Spilled(rows=3, videos=DistinctIds(["a"]), contexts={"tab": {"home"}})
    crossed = Spilled.from_row({name: value for name, (value,) in spilled.to_row().items()})
    assert replace(crossed, videos=spilled.videos) == spilled
    assert crossed.videos.all().to_pylist() == ["a"]
    row = Spilled.problem_row(InputError("column 'at' is text"))
    with pytest.raises(InputError, match="column 'at' is text"):
        Spilled.from_row({name: value for name, (value,) in row.items()})


def test_partitions_by_size() -> None:
    """One for each 2^20 events from 16 on; so few that one would not fit are refused."""
    assert num_partitions(None, 0) == num_partitions(None, 16 << 20) == 16
    assert num_partitions(None, (16 << 20) + 1) == 17
    assert num_partitions(2, 2 << 24) == 2
    with pytest.raises(InputError, match="prepare.partitions=2: 33,554,433 events need at least 3"):
        num_partitions(2, (2 << 24) + 1)


def test_the_hash_of_a_user_is_that_of_zlib() -> None:
    """Partitions of earlier runs hold the same users; also of long, empty and sliced texts."""
    users = ["", "u1", "ü", "x" * 300, "user-00000000001", "u2"]
    assert crc32s(pa.array(users)).tolist() == [zlib.crc32(user.encode()) for user in users]
    assert crc32s(pa.array(users)[2:5]).tolist() == [zlib.crc32(u.encode()) for u in users[2:5]]
    assert crc32s(pa.array([], pa.string())).tolist() == []
