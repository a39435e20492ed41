import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig
from recsys.errors import InputError
from recsys.prepare.tables import (
    absolute_uri,
    check_events,
    check_table,
    column_names,
    event_roles,
    parquet_files,
)

ROWS: dict[str, Any] = {
    "user": ["a", "b"],
    "video": [1, 2],
    "time": [1_651_507_200_000, 1_651_507_200_001],
    "click": [1, 0],
    "tab": [3, 4],
}
COLUMNS = {
    "user": "user",
    "video": "video",
    "time": "time",
    "positive": "click",
    "tasks": ["click"],
    "context": ["tab"],
}


def data(events: Path | str, **columns: Any) -> DataConfig:
    return DataConfig.model_validate({"events": str(events), "columns": {**COLUMNS, **columns}})


def write(path: Path, rows: dict[str, Any] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**ROWS, **(rows or {})}), path)
    return str(path)


def check(path: Path, rows: dict[str, Any] | None = None, **columns: Any) -> str:
    write(path, rows)
    return check_events(data(path, **columns))[1].unit


def check_two(
    folder: Path, first: dict[str, Any], second: dict[str, Any], **columns: Any
) -> list[str]:
    """The files that are taken of two."""
    write(folder / "a.parquet", first)
    write(folder / "b.parquet", second)
    return [Path(file.path).name for file in check_events(data(folder, **columns))[0]]


def test_files_of_a_path_a_glob_and_a_folder(tmp_path: Path) -> None:
    b, a = write(tmp_path / "b.parquet"), write(tmp_path / "deep" / "a.pq")
    (tmp_path / "_SUCCESS").write_text("")
    assert parquet_files(b, "data.events") == [b]
    assert parquet_files(str(tmp_path / "*.parquet"), "data.events") == [b]
    assert parquet_files(str(tmp_path), "data.events") == [b, a]


@pytest.mark.parametrize("spec", ["none.parquet", "*.csv", "empty"])
def test_no_files_are_named(tmp_path: Path, spec: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"data.events=.*{spec[1:]}: no Parquet file is there"):
        parquet_files(str(tmp_path / spec), "data.events")


def test_a_folder_with_rows_of_older_versions_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(InputError, match="this is a Delta table, and its folder holds the rows of"):
        parquet_files(str(tmp_path), "data.events")


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    Path(write(tmp_path / "a.parquet")).rename(tmp_path / os.fsdecode(b"caf\xe9.parquet"))
    assert check_events(data(tmp_path))[0][0].num_rows == 2


def test_event_columns_once_each_with_the_first_setting() -> None:
    roles = event_roles(data("unused"))
    assert column_names(roles) == ["user", "video", "time", "click", "tab"]
    assert next(role.setting for role in roles if role.column == "click") == "data.columns.positive"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ({}, {"user": "uid"}, r"no column 'uid' \(data.columns.user\); it has user, video, time"),
        ({}, {"tasks": ["like"]}, r"no column 'like' \(data.columns.tasks\)"),
        ({"user": [True, False]}, {}, "'user' is bool; allowed is text or an integer; convert it"),
        ({"user": [b"a", b"b"]}, {}, "'user' is binary; allowed is text or an integer; convert it"),
        ({"tab": [[1], [2]]}, {}, "'tab' is list.*; allowed is text, an integer or true/false"),
        ({"time": ["x", "y"]}, {}, "'time' is string; allowed is an integer, a double or a timest"),
        ({"time": pa.array([1.0, 2.0], pa.float32())}, {}, "'time' is float; allowed is an integ"),
        ({"click": ["y", "n"]}, {}, "'click' is string; allowed is 0/1 or true/false"),
        ({}, {"watched": "seconds"}, r"no column 'seconds' \(data.columns.watched\)"),
        ({"seen": ["x", "y"]}, {"watched": "seen"}, "'seen' is string; allowed is a number"),
        ({name: [] for name in ROWS}, {}, "data.events=.*: there are no events in it"),
        (
            {name: pa.array([], pa.int64()) for name in ROWS},
            {},
            "data.events=.*: there are no events in it",
        ),
    ],
)
def test_wrong_events_are_named(
    tmp_path: Path, rows: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        check(tmp_path / "events.parquet", rows, **columns)
    assert "events.parquet" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_text("user,video\n1,2\n")
    with pytest.raises(InputError, match="data.events=.*events.parquet: not a Parquet file") as e:
        check_events(data(path))
    assert "\n" not in str(e.value)


def test_files_of_different_kinds_are_refused(tmp_path: Path) -> None:
    message = r"b.parquet: column 'user' is int64, and string in .*a.parquet; give it the same type"
    with pytest.raises(InputError, match=message):
        check_two(tmp_path, {}, {"user": [1, 2]})
    with pytest.raises(InputError, match="b.parquet: column 'tab' is bool, and int64 in .*a.parq"):
        check_two(tmp_path, {}, {"tab": [True, False]})
    with pytest.raises(InputError, match="a.parquet: column 'user' is double, and string in .*b.p"):
        check_two(tmp_path, {"user": [1.0, None]}, {"user": ["a", "b"]})
    times = pa.array([0, 1], pa.timestamp("us"))
    with pytest.raises(InputError, match="b.parquet: column 'time' is timestamp.us., and int64 in"):
        check_two(tmp_path, {}, {"time": times})


NAN = float("nan")
NUMBERS = {
    "int32": pa.array([1, 2], pa.int32()),
    "uint64": pa.array([1, None], pa.uint64()),
    "double": pa.array([1.0, NAN]),
    "float": pa.array([1.0, 2.0], pa.float32()),
    "decimal": pa.array([Decimal("1"), Decimal("2")]),
    "category": pa.array([1, 2]).dictionary_encode(),
    "missing": pa.nulls(2),
}
TEXTS = {
    "string": pa.array(["a", "b"]),
    "large": pa.array(["a", None], pa.large_string()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "category": pa.array(["a", "a"]).dictionary_encode(),
    "missing": pa.nulls(2),
    "nan": pa.array([NAN, NAN]),
}
TIMES = {
    "ms": pa.array([0, 1], pa.timestamp("ms")),
    "us with zone": pa.array([0, 1], pa.timestamp("us", tz="Asia/Shanghai")),
    "ns": pa.array([0, None], pa.timestamp("ns")),
    "missing": pa.nulls(2),
}


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        (name, types[first], types[second])
        for name, types in (("video", NUMBERS), ("user", TEXTS), ("tab", TEXTS), ("time", TIMES))
        for first in types
        for second in types
        if first != second
    ],
    ids=str,
)
def test_files_whose_types_differ_as_writers_do_go_together(
    tmp_path: Path, column: str, first: pa.Array, second: pa.Array
) -> None:
    assert check_two(tmp_path, {column: first}, {column: second}) == ["a.parquet", "b.parquet"]


def test_flags_are_numbers_or_true_and_false(tmp_path: Path) -> None:
    flags = [True, False], pa.nulls(2), [1.0, NAN], pa.array([1, 0], pa.int8())
    for flag in flags:
        assert len(check_two(tmp_path, {}, {"click": flag})) == 2


def test_files_without_rows_are_left_out(tmp_path: Path) -> None:
    """Their types say nothing: a table made of empty lists has none."""
    assert check_two(tmp_path, {name: [] for name in ROWS}, {}) == ["b.parquet"]
    empty = {name: pa.array([], pa.binary()) for name in ROWS}
    assert check_two(tmp_path, empty, {}) == ["b.parquet"]


def test_every_kind_of_id_time_and_flag_is_taken(tmp_path: Path) -> None:
    rows = {
        "user": pa.array(["a", "b"]).dictionary_encode(),
        "video": pa.array(["x", "y"], pa.large_string()),
        "time": pa.array([0, 1], pa.timestamp("us", tz="Asia/Shanghai")),
        "click": [True, False],
        "tab": pa.array([True, None]),
    }
    assert check(tmp_path / "events.parquet", rows) == "us"


def twice(name: str, path: Path) -> str:
    """A file with two columns of one name."""
    table = pa.table(ROWS)
    pq.write_table(table.append_column(name, pa.array([5, 6])), path)
    return str(path)


def test_two_columns_of_one_name_are_refused_where_they_are_wanted(tmp_path: Path) -> None:
    path = twice("user", tmp_path / "events.parquet")
    message = (
        r"events.parquet: there are 2 columns 'user' \(data.columns.user\); rename or drop all"
    )
    with pytest.raises(InputError, match=message) as error:
        check_events(data(path))
    assert "\n" not in str(error.value)
    unwanted = twice("tab", tmp_path / "events.parquet")
    assert check_events(data(unwanted, context=[]))[1].unit == "ms"


def test_a_column_that_is_only_in_the_folders_names_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS).drop_columns("tab"), write_folder(tmp_path / "tab=3"))
    message = "no column 'tab' .*; the folder's name 'tab=3' is not read as one, write it into the"
    with pytest.raises(InputError, match=message):
        check_events(data(tmp_path))


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder / "part-0.parquet"


def test_a_file_is_its_rows_by_group(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(
        pa.table({name: values * 3 for name, values in ROWS.items()}), path, row_group_size=4
    )
    (file,) = check_table([str(path)], "data.events", event_roles(data(path)))
    assert (file.group_rows, file.num_rows) == ((4, 2), 6)


def test_the_unit_is_the_columns_own_the_settings_or_told_from_the_size(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    assert check(path) == "ms"
    assert check(path, {"time": [1_651_507_200, None]}) == "s"
    assert check(path, {"time": [1_651_507_200.25, NAN]}) == "s"
    given = data(write(path)).model_copy(update={"time_unit": "ms"})
    assert check_events(given)[1].told_by == "data.time_unit"


def test_wild_times_at_the_head_of_a_sorted_file_do_not_tell_the_unit(tmp_path: Path) -> None:
    """400 missing times cast to the least number stand before 600 seconds, the year 9999 after."""
    times = [-(2**63)] * 400 + [1_651_507_200] * 600 + [253_402_300_799_000] * 10
    rows = {name: values * 505 for name, values in ROWS.items()} | {"time": times}
    path = tmp_path / "events.parquet"
    for size in (100, 2000):
        pq.write_table(pa.table(rows), path, row_group_size=size)
        assert check_events(data(path))[1].unit == "s"


def test_a_file_in_another_unit_is_refused(tmp_path: Path) -> None:
    message = "the times of .*a.parquet look like ms, those of .*b.parquet like s; write all in one"
    with pytest.raises(InputError, match=message):
        check_two(tmp_path, {}, {"time": [1_651_507_200, 1_651_507_201]})
    assert len(check_two(tmp_path, {}, {"time": [0, -1]})) == 2  # missing ones, in no unit


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a.mp4", "/data/a.mp4"),
        ("../a.mp4", "/data/../a.mp4"),
        ("/x/a.mp4", "/x/a.mp4"),
        ("https://host/a.mp4", "https://host/a.mp4"),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_meant_from_the_tables_folder(uri: str | None, expected: str | None) -> None:
    assert absolute_uri(uri, "/data/videos.parquet") == expected


def test_an_address_in_a_folder_that_is_not_utf8_is_text() -> None:
    folder = os.fsdecode(b"/caf\xe9")
    assert absolute_uri("a#b.mp4", f"{folder}/videos.parquet") == "file:///caf%E9/a%23b.mp4"
