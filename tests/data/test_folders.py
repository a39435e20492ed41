"""Which files a name stands for: patterns, hidden names, links, circles, odd letters."""

import os
from pathlib import Path

import fsspec
import pytest

from recsys.data.folders import HIDDEN_ROWS, PARQUET, find_files
from recsys.errors import InputError


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path, spec: str = "", **rules: str) -> list[str]:
    """What is found, from the folder on."""
    files = find_files(os.path.join(folder, spec).rstrip("/"), "data", **rules)  # type: ignore[arg-type]
    return [os.path.relpath(file, folder) for file in files]


def rows(folder: Path, spec: str = "") -> list[str]:
    files = find_files(os.path.join(folder, spec), "data", hidden=HIDDEN_ROWS, endings=PARQUET)
    return [os.path.relpath(file, folder) for file in files]


SPARK = (
    "part-0.parquet",
    "day=2024-01-01/part-1.PARQUET",
    "_day=2024-01-02/part-2.pq",
    "_SUCCESS",
    "_metadata",
    "_temporary/0/task/part-0.parquet",
    "day=2024-01-01/_temporary/part-1.parquet",
    ".part-0.parquet.crc",
    "._part-0.parquet",
    ".part-2.parquet",
    ".ipynb_checkpoints/part-0.parquet",
    "README.md",
)


def test_of_a_spark_folder_the_rows_alone_are_taken(tmp_path: Path) -> None:
    make(tmp_path, *SPARK)
    expected = ["_day=2024-01-02/part-2.pq", "day=2024-01-01/part-1.PARQUET", "part-0.parquet"]
    assert rows(tmp_path) == expected
    assert rows(tmp_path, "**/*.p*q*") == expected[:1] + ["part-0.parquet"]
    assert rows(tmp_path, "*=*") == expected[:2]
    assert rows(tmp_path, "*.parquet") == ["part-0.parquet"]


def test_a_place_below_a_hidden_one_is_not_hidden(tmp_path: Path) -> None:
    make(tmp_path, "_data/.x/a.parquet", "_data/.x/_b.parquet")
    assert rows(tmp_path, "_data/.x") == ["_data/.x/a.parquet"]
    assert rows(tmp_path, "_data/.x/_b.parquet") == ["_data/.x/_b.parquet"]
    assert rows(tmp_path, "_d*/.x/*.parquet") == ["_data/.x/a.parquet"]
    assert rows(tmp_path, "_d*/.x/_*.parquet") == ["_data/.x/_b.parquet"]
    assert rows(tmp_path, "*") == []


@pytest.mark.parametrize("name", ["data [v1]", "a*b", "what?", "a::b", "a#b", "50%25", "{x}", "ü"])
def test_a_name_that_exists_is_a_name(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/a.parquet", f"{name}.parquet", "data v/a.parquet", "axb/a.parquet")
    make(tmp_path, "whatx/a.parquet")
    assert rows(tmp_path, name) == [f"{name}/a.parquet"]
    assert rows(tmp_path, f"{name}/*.parquet") == [f"{name}/a.parquet"]
    assert rows(tmp_path, f"{name}/*.p[aq]*") == [f"{name}/a.parquet"]
    assert rows(tmp_path, f"{name}.parquet") == [f"{name}.parquet"]


def test_what_does_not_exist_is_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "w1/a.parquet", "w2/deep/b.parquet", "w3", "w4/c.txt")
    assert rows(tmp_path, "w[12]") == ["w1/a.parquet", "w2/deep/b.parquet"]
    assert rows(tmp_path, "w?/*.parquet") == ["w1/a.parquet"]
    assert rows(tmp_path, "**/b*") == ["w2/deep/b.parquet"]
    assert rows(tmp_path, "**") == ["w1/a.parquet", "w2/deep/b.parquet"]
    assert rows(tmp_path, "w*/*.txt") == ["w4/c.txt"]
    assert rows(tmp_path, "w3") == ["w3"]
    assert rows(tmp_path, "none/*.parquet") == rows(tmp_path, "none") == []


def test_links_are_followed_once_and_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "a.mp4", "deep/b.mp4")
    folder = tmp_path / "videos"
    make(folder, "own/c.mp4")
    (folder / "1").symlink_to(tmp_path / "elsewhere")
    (folder / "2").symlink_to(tmp_path / "elsewhere" / "deep")
    (folder / "own" / "up").symlink_to(folder)
    (folder / "also c.mp4").symlink_to(folder / "own" / "c.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "none.mp4")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    assert listed(folder) == ["1/a.mp4", "1/deep/b.mp4", "gone.mp4", "own/c.mp4"]
    assert listed(folder, "*/*.mp4") == ["1/a.mp4", "2/b.mp4", "own/c.mp4"]
    assert listed(folder, "**/b.mp4") == ["1/deep/b.mp4"]


def test_many_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for one in range(12):
        make(tmp_path, f"{one}/a.mp4")
    for one in range(12):
        for other in range(12):
            (tmp_path / str(one) / f"to {other}").symlink_to(tmp_path / str(other))
    assert len(listed(tmp_path)) == len(listed(tmp_path, "**/*.mp4")) == 12


def test_the_place_itself_may_be_a_link(tmp_path: Path) -> None:
    make(tmp_path, "real/a.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert listed(tmp_path, "link") == ["link/a.mp4"]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    make(tmp_path, f"{name}/a.parquet")
    assert rows(tmp_path) == [f"{name}/a.parquet"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path, "shut/a.parquet")
    (tmp_path / "shut").chmod(0)
    with pytest.raises(InputError, match="data: cannot be read .*shut: Permission denied"):
        rows(tmp_path)


def test_the_same_rules_hold_behind_an_address() -> None:
    memory = fsspec.filesystem("memory")
    for name in (*SPARK, "data [v1]/a.parquet"):
        memory.pipe(f"/walked/{name}", b"x")

    def files(spec: str) -> list[str]:
        root = "memory://walked"
        names = find_files(f"{root}/{spec}", "data", hidden=HIDDEN_ROWS, endings=PARQUET)
        return [name.removeprefix("memory://").removeprefix("/walked/") for name in names]

    days = ["_day=2024-01-02/part-2.pq", "day=2024-01-01/part-1.PARQUET"]
    assert files("") == [*days[:1], "data [v1]/a.parquet", *days[1:], "part-0.parquet"]
    assert files("data [v1]") == files("data [v1]/*") == ["data [v1]/a.parquet"]
    assert files("*=*") == days
    assert files("*/part-1.*") == days[1:]
    assert files("**/part-0.*") == files("part-?.parquet") == ["part-0.parquet"]
