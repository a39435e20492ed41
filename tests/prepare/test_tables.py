from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig
from recsys.errors import InputError
from recsys.prepare.tables import (
    absolute_uri,
    as_durations,
    as_flags,
    as_ids,
    as_time_ms,
    check_events,
    event_columns,
    guess_unit,
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
    return check_events(data(path, **columns), [write(path, rows)])[1]


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


def test_event_columns_once_each_with_the_first_setting() -> None:
    assert event_columns(data("unused")) == {
        "user": "data.columns.user",
        "video": "data.columns.video",
        "time": "data.columns.time",
        "click": "data.columns.positive",
        "tab": "data.columns.context",
    }


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ({}, {"user": "uid"}, r"no column 'uid' \(data.columns.user\); it has user, video, time"),
        ({}, {"tasks": ["like"]}, r"no column 'like' \(data.columns.tasks\)"),
        ({"user": [1.0, 2.0]}, {}, "'user' is double; allowed is text or an integer; convert it"),
        ({"tab": [[1], [2]]}, {}, "'tab' is list.*; allowed is text or an integer"),
        ({"time": ["x", "y"]}, {}, "'time' is string; allowed is an integer or a timestamp"),
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
        check_events(data(path), [str(path)])
    assert "\n" not in str(e.value)


def test_files_of_different_types_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", {"user": [1, 2]})]
    message = r"b.parquet: column 'user' is int64, and string in .*a.parquet; give it the same type"
    with pytest.raises(InputError, match=message):
        check_events(data(tmp_path), files)


def test_files_without_rows_are_left_out(tmp_path: Path) -> None:
    """Their types say nothing: a table made of empty lists has none."""
    files = [write(tmp_path / "a.parquet", {name: [] for name in ROWS})]
    files.append(write(tmp_path / "b.parquet"))
    assert check_events(data(tmp_path), files) == (files[1:], "ms")


def test_every_kind_of_id_time_and_flag_is_taken(tmp_path: Path) -> None:
    rows = {
        "user": pa.array(["a", "b"]).dictionary_encode(),
        "video": pa.array(["x", "y"], pa.large_string()),
        "time": pa.array([0, 1], pa.timestamp("us", tz="Asia/Shanghai")),
        "click": [True, False],
        "tab": pa.array([1, 2], pa.uint8()),
    }
    assert check(tmp_path / "events.parquet", rows) == "us"


def test_the_unit_is_the_columns_own_the_settings_or_told_from_the_size(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    assert check(path) == "ms"
    assert check(path, {"time": [1_651_507_200, None]}) == "s"
    files = [write(path)]
    given = data(path).model_copy(update={"time_unit": "us"})
    assert check_events(given, files) == (files, "us")


def test_guess_unit_between_1974_and_2286() -> None:
    for year in (1974, 2024, 2286):
        seconds = int(datetime(year, 1, 1).timestamp())
        guessed = [guess_unit(seconds * scale) for scale in (1, 10**3, 10**6, 10**9)]
        assert guessed == ["s", "ms", "us", "ns"], year


def test_ids_become_text() -> None:
    def ids(*chunks: Any) -> list[str | None]:
        return as_ids(pa.chunked_array(list(chunks))).to_pylist()

    assert ids(pa.array([1, None], pa.int32()), pa.array([-2], pa.int32())) == ["1", None, "-2"]
    assert ids(pa.array(["b", "a", "b"]).dictionary_encode()) == ["b", "a", "b"]
    assert ids(pa.array([2.0, None])) == ["2", None]
    assert ids(pa.array([2.5])) == ["2.5"]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([7, -2], "s"),
        ([7000, -2000], "ms"),
        ([7_000_999, -1_999_999], "us"),
        ([7_000_999_999, -1_999_999_999], "ns"),
    ],
)
def test_times_become_milliseconds_rounded_down(values: list[int], unit: str) -> None:
    assert as_time_ms(pa.chunked_array([values]), unit).tolist() == [7000, -2000]
    stamps = pa.array(values).cast(pa.timestamp(unit))
    assert as_time_ms(pa.chunked_array([stamps]), unit).tolist() == [7000, -2000]


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.uint64(), pa.float32(), pa.float64()])
def test_flags_of_every_type_and_a_missing_one_is_0(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array([1, 0, None]).cast(kind)])
    assert as_flags(column, "click").tolist() == [1, 0, 0]


@pytest.mark.parametrize(("value", "shown"), [(2, "2"), (-1, "-1"), (0.5, "0.5")])
def test_another_flag_is_named(value: float, shown: str) -> None:
    with pytest.raises(InputError, match=f"column 'click' holds {shown}; allowed are 0 and 1"):
        as_flags(pa.chunked_array([[1.0, value, 0.0]]), "click")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.float64()])
def test_durations_of_every_type_and_a_missing_one_is_0(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array([7, 0, None]).cast(kind)])
    assert as_durations(column, "seconds").tolist() == [7, 0, 0]
    assert as_durations(pa.chunked_array([[float("nan"), 2.5]]), "seconds").tolist() == [0, 2.5]


@pytest.mark.parametrize(("value", "shown"), [(-2.0, "-2"), (float("inf"), "inf")])
def test_an_impossible_duration_is_named(value: float, shown: str) -> None:
    message = f"column 'seconds' holds {shown}; allowed are 0 to 1e\\+15; correct it"
    with pytest.raises(InputError, match=message):
        as_durations(pa.chunked_array([[1.0, value]]), "seconds")


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
