"""Bug reports of other projects on tables like ours, tried here; tests/README.md lists them."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig
from recsys.errors import InputError
from recsys.prepare.catalogs import build_catalog, read_users
from recsys.prepare.tables import parquet_files
from tests.inputs import first_pass

MAY_2022 = 1_651_507_200_000
NAN = float("nan")


def events(**columns: Any) -> pa.Table:
    ids = {"user_id": ["a", "b", "c"], "video_id": [1, 2, 3]}
    return pa.table({**ids, "time": [MAY_2022, MAY_2022 + 1, MAY_2022 + 2], **columns})


def write(path: Path, table: pa.Table, **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return str(path)


def kept(spec: str, folder: Path, **settings: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """What is dropped of events, and the users and videos of the others."""
    data = DataConfig.model_validate({"events": spec, **settings})
    spilled, rows = first_pass(data, folder)
    return dict(spilled.dropped), sorted((row["user_id"], row["video_id"]) for row in rows)


ALL = [("a", "1"), ("b", "2"), ("c", "3")]


def test_polars_12876_brackets_in_a_file_name(tmp_path: Path) -> None:
    path = write(tmp_path / "type..hash.[36]string.parquet", events())
    write(tmp_path / "type..hash.3string.parquet", events(user_id=["x"] * 3))
    assert kept(path, tmp_path) == ({}, ALL)


@pytest.mark.parametrize("spec", ["", "/*", "/*.parquet", "/**/*"])
def test_polars_14377_a_folder_of_spark_in_every_spelling(tmp_path: Path, spec: str) -> None:
    folder = tmp_path / "test"
    path = write(folder / "part-00000-9943-c000.snappy.parquet", events(), compression="snappy")
    write(folder / "_temporary" / "0" / "part-00000-9943-c000.snappy.parquet", events())
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000-9943-c000.snappy.parquet.crc").write_bytes(b"crc")
    assert parquet_files(f"{folder}{spec}", "data.events") == [path]


def test_polars_17105_a_pattern_that_matches_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "set" / "day=1" / "a.parquet", events())
    assert parquet_files(f"{tmp_path}/set/**/*", "data.events") == [path]
    assert parquet_files(f"{tmp_path}/set/*", "data.events") == [path]


def test_duckdb_10431_a_folder_called_as_a_column(tmp_path: Path) -> None:
    """The column of the file counts, not the folder's name."""
    write(tmp_path / "set" / "time=2023-08-28" / "video_id=9" / "a.parquet", events())
    assert kept(str(tmp_path / "set"), tmp_path) == ({}, ALL)


def test_polars_27393_two_columns_of_one_name(tmp_path: Path) -> None:
    twice = events().append_column("user_id", pa.array([4, 5, 6]))
    with pytest.raises(InputError, match="there are 2 columns 'user_id' .data.columns.user.; ren"):
        kept(write(tmp_path / "e.parquet", twice), tmp_path)


def test_pandas_56678_large_ids_beside_a_missing_one(tmp_path: Path) -> None:
    """As floats they are others already: refused, and not taken for three users of one name."""
    pandas = pytest.importorskip("pandas")
    ids = pandas.Series([4873214862074861312, None, 4873214862074860545])
    path = write(tmp_path / "e.parquet", events(user_id=pa.Array.from_pandas(ids)))
    with pytest.raises(
        InputError, match="e.parquet: column 'user_id' holds 4873214862074861568 as"
    ):
        kept(path, tmp_path)
    exact = pa.array([4873214862074861312, None, 4873214862074860545])
    dropped, pairs = kept(write(tmp_path / "e.parquet", events(user_id=exact)), tmp_path)
    assert dropped == {"missing user": 1}
    assert [user for user, _ in pairs] == ["4873214862074860545", "4873214862074861312"]


def test_pandas_62206_text_without_a_value_becomes_floats(tmp_path: Path) -> None:
    """A column that is text in one week and NaN in the other, as groupby leaves it."""
    write(tmp_path / "e" / "1.parquet", events(tab=["home", None, "home"]))
    write(tmp_path / "e" / "2.parquet", events(user_id=["d", "e", "f"], tab=[NAN] * 3))
    settings = {"columns": {"context": ["tab"]}}
    dropped, pairs = kept(str(tmp_path / "e"), tmp_path, **settings)
    assert (dropped, len(pairs)) == ({}, 6)


def test_rectools_269_a_missing_user(tmp_path: Path) -> None:
    table = events(user_id=[1.0, NAN, 3.0])
    expected = ({"missing user": 1}, [("1", "1"), ("3", "3")])
    assert kept(write(tmp_path / "e.parquet", table), tmp_path) == expected


def test_nvtabular_1865_a_column_of_nan_alone(tmp_path: Path) -> None:
    videos = pa.table({"id": [1, 2], "by": [NAN, NAN], "tag": [NAN, NAN], "path": [NAN, NAN]})
    users = pa.table({"user_id": ["a"], "age": [NAN]})
    columns = {"video": "id", "creator": "by", "categories": ["tag"], "uri": "path"}
    data = DataConfig.model_validate(
        {
            "events": "unused",
            "videos": write(tmp_path / "videos.parquet", videos),
            "video_columns": columns,
            "users": write(tmp_path / "users.parquet", users),
            "user_columns": {"features": ["age"]},
        }
    )
    draft = build_catalog(data, [])
    assert len(draft.vocabs["creator"]) == len(draft.vocabs["category"]) == 1
    assert draft.uris.to_pylist() == [None, None, None]
    assert read_users(data).table.to_pylist() == [{"user_id": "a", "user_rows": [0]}]


def test_recbole_1084_a_missing_label_is_no_negative(tmp_path: Path) -> None:
    path = write(tmp_path / "e.parquet", events(click=[1.0, NAN, 0.0]))
    columns = {"positive": "click"}
    expected = ({"missing label click": 1}, [("a", "1"), ("c", "3")])
    assert kept(path, tmp_path, columns=columns) == expected


def test_arrow2_1527_old_times_of_spark_that_wrap_around(tmp_path: Path) -> None:
    """In nanoseconds the years 1000 and 3000 are read as 2169 and 1830, or as any other."""
    times = [datetime(1000, 1, 1), datetime(2022, 5, 2), datetime(9999, 12, 31)]
    table = events(time=pa.array(times, pa.timestamp("ms")))
    options = {"use_deprecated_int96_timestamps": True, "store_schema": False}
    for number, users in enumerate(("abc", "def", "ghi")):
        more = table.set_column(0, "user_id", pa.array(list(users)))
        more = (
            more.set_column(2, "time", table["time"].take(pa.array([1, 1, 1]))) if number else more
        )
        write(tmp_path / "e" / f"{number}.parquet", more, **options)
    dropped, pairs = kept(str(tmp_path / "e"), tmp_path)
    assert dropped == {"impossible time": 2}
    assert [user for user, _ in pairs] == list("bdefghi")


def test_pandas_8596_ids_that_become_floats_match_those_that_do_not(tmp_path: Path) -> None:
    """Of three writers; the catalogue knows each video once."""
    for number, ids in enumerate(
        (
            pa.array([1, 2, 3], pa.int64()),
            pa.array([1.0, 2.0, NAN]),
            pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(38, 0)),
            pa.array(np.array([1, 2, 3], np.uint32)).dictionary_encode(),
        )
    ):
        write(tmp_path / "e" / f"{number}.parquet", events(user_id=[number] * 3, video_id=ids))
    videos = pa.table({"video_id": [1.0, 2.0, 3.0, NAN]})
    settings = {"videos": write(tmp_path / "videos.parquet", videos)}
    data = DataConfig.model_validate({"events": str(tmp_path / "e"), **settings})
    spilled, _ = first_pass(data, tmp_path)
    draft = build_catalog(data, spilled.videos.all())
    assert (draft.only_in_events, draft.dropped) == (0, {"missing id": 1})
    assert draft.vocabs["video"].ids.to_pylist() == ["1", "2", "3"]
