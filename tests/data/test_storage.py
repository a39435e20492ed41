import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.storage import (
    exists,
    filesystem,
    is_uri,
    join,
    list_files,
    open_input,
    read_json,
    remove,
    replace_file,
    write_json,
    write_table,
    write_text,
)
from recsys.errors import InputError


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on the disk and one in an object store."""
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{tmp_path.name}/run"


def test_a_path_is_no_uri() -> None:
    assert is_uri("s3://bucket/x")
    assert not is_uri("/data/x")
    assert join("/data", "a", "b.parquet") == "/data/a/b.parquet"


def test_an_address_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match="nope://x: cannot open this kind of address"):
        filesystem("nope://x")


def test_a_file_comes_back(folder: str) -> None:
    write_text("grüße", join(folder, "a.txt"))
    with open_input(join(folder, "a.txt")) as file:
        assert file.read() == "grüße".encode()


def test_a_table_comes_back(folder: str) -> None:
    table = pa.table({"x": [1, None, 3]})
    write_table(table, join(folder, "deep", "x.parquet"))
    with open_input(join(folder, "deep", "x.parquet")) as file:
        assert pq.read_table(file).equals(table)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(folder: str) -> None:
    path = join(folder, "a.txt")
    write_text("old", path)
    with pytest.raises(RuntimeError, match="power cut"), replace_file(path) as file:
        file.write(b"half of the ne")
        raise RuntimeError("power cut")
    with open_input(path) as file:
        assert file.read() == b"old"
    fs, inner = filesystem(folder)
    assert [Path(name).name for name in fs.ls(inner, detail=False)] == ["a.txt"]


def test_a_first_write_that_fails_leaves_nothing(folder: str) -> None:
    with pytest.raises(RuntimeError, match="power cut"), replace_file(join(folder, "a")) as file:
        file.write(b"half")
        raise RuntimeError("power cut")
    assert not exists(join(folder, "a"))
    assert list_files(folder, "") == []


def test_json_comes_back_and_what_is_no_number_is_null(folder: str) -> None:
    path = join(folder, "a.json")
    write_json({"a": float("nan"), "b": [1.5, float("-inf")], "c": {"d": (1, "x")}}, path)
    assert read_json(path) == {"a": None, "b": [1.5, None], "c": {"d": [1, "x"]}}


def test_the_json_is_strict(tmp_path: Path) -> None:
    write_json({"a": float("inf")}, str(tmp_path / "a.json"))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)


def test_no_json_is_none_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_json(str(tmp_path / "none.json")) is None
    (tmp_path / "half.json").write_text('{"a": 1')
    with pytest.raises(InputError, match=r"half.json: not valid JSON .*delete the file"):
        read_json(str(tmp_path / "half.json"))


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.parquet: there is no such file"):
        open_input(str(tmp_path / "a.parquet"))
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        open_input(str(tmp_path))


def test_list_files_is_in_order_and_by_ending(folder: str) -> None:
    for name in ("b.parquet", "a.parquet", "a.txt"):
        write_text("", join(folder, name))
    assert list_files(folder, ".parquet") == [
        join(folder, "a.parquet"),
        join(folder, "b.parquet"),
    ]
    assert list_files(join(folder, "none"), ".parquet") == []


def test_remove_takes_files_folders_and_nothing(folder: str) -> None:
    write_text("", join(folder, "deep", "a"))
    write_text("", join(folder, "b"))
    for name in ("deep", "b", "never there"):
        remove(join(folder, name))
        assert not exists(join(folder, name))


@pytest.fixture(autouse=True, scope="module")
def _empty_store() -> None:
    fsspec.filesystem("memory").store.clear()
