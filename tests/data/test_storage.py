import errno
import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from recsys.data.storage import (
    as_url,
    copy_folder,
    exists,
    filesystem,
    is_uri,
    join,
    list_files,
    local_folder,
    open_input,
    read_json,
    remove,
    replace_file,
    write_json,
    write_table,
    write_text,
)
from recsys.errors import InputError


@pytest.fixture(params=["disk", "store", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on the disk and in two object stores."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_bucket')}/run"
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{tmp_path.name}/run"


NAMES = ["run [v1] #2::x", "a*", "q?x", "[ab]", "100%20", "~x", "größe €", "tr{a}", "it's", "a&b=c"]
"""Names that hold what elsewhere is a pattern, a chain, an option, an escape or a home."""


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


@pytest.fixture
def beside(folder: str) -> list[str]:
    """Files that the patterns in `NAMES` would match, if they were patterns."""
    files = [join(folder, name, "x", "f") for name in ("aa", "qzx", "a", "b", "run v #2::x", "x")]
    for path in files:
        write_text("mine", path)
    return files


def test_a_name_is_a_name(folder: str, beside: list[str], tmp_path: Path) -> None:
    """Everything that storage does, in folders of such names; nothing beside them changes."""
    for name in NAMES:
        made, target = tmp_path / f"made {name}", join(folder, name, "x")
        (made / "deep").mkdir(parents=True)
        (made / "f").write_text("1")
        (made / "deep" / name).write_text("2")
        copy_folder(str(made), target)
        copy_folder(str(made), target)  # over what is there
        assert list_files(target, "f") == [join(target, "f")]
        with local_folder(target) as local:
            assert (Path(local) / "f").read_text() == "1"
            assert (Path(local) / "deep" / name).read_text() == "2"
        write_json({"a": 1}, join(folder, name, "report.json"))
        assert read_json(join(folder, name, "report.json")) == {"a": 1}
        with open_input(join(target, "deep", name)) as file:
            assert file.read() == b"2"
        remove(join(target, "deep", name))
        assert exists(join(target, "f")) and not exists(join(target, "deep", name)), name
        remove(join(folder, name))
        assert not exists(join(target, "f")) and not exists(join(folder, name, "report.json"))
        for path in beside:
            with open_input(path) as file:
                assert file.read() == b"mine"


def test_a_folder_whose_name_goes_on_is_another_one(folder: str) -> None:
    write_text("1", join(folder, "run", "f"))
    write_text("2", join(folder, "run2", "f"))
    remove(join(folder, "run"))
    assert not exists(join(folder, "run", "f")) and exists(join(folder, "run2", "f"))


def test_a_trailing_slash_changes_nothing(folder: str) -> None:
    write_text("1", join(f"{folder}/", "f"))
    assert list_files(folder, "") == [join(folder, "f")]
    assert exists(f"{folder}/f")
    remove(f"{folder}/")
    assert not exists(join(folder, "f"))


def test_nothing_is_chained() -> None:
    fs, inner = filesystem("memory://a::file:///etc")
    assert fs.protocol == "memory" and inner.endswith("a::file:///etc")
    with pytest.raises(InputError, match="cannot open this kind of address"):
        filesystem("simplecache::memory://a")


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    write_text("1", str(tmp_path / "kept" / "f"))
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove(str(tmp_path / "link"))
    assert not (tmp_path / "link").exists() and (tmp_path / "kept" / "f").exists()


def test_names_are_escaped_for_libraries_that_parse_urls() -> None:
    assert as_url("/runs/[v1] #2::x%20") == "/runs/[v1] #2::x%20"
    assert as_url("s3://bucket/[v1] #2?x%20") == "s3://bucket/%5Bv1%5D%20%232%3Fx%2520"


def test_rays_and_lances_own_reading_of_a_name_is_ours(s3_bucket: str) -> None:
    """Where Ray keeps checkpoints and Lance clips is where we look for them."""
    lance = pytest.importorskip("lance")
    for name in NAMES:
        path = join(s3_bucket, name, "f")
        _, inner = pyarrow.fs.FileSystem.from_uri(as_url(path))
        assert inner == path.removeprefix("s3://")
        lance.write_dataset(pa.table({"x": [1]}), as_url(path))
        assert exists(path)
        assert list_files(join(s3_bucket, name), "") == [path]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.txt")
    write_text("old", path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match=r"a.txt: cannot be written \(No space left on device\)"):
        with replace_file(path):
            raise full

    def fsync(_: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="No space left on device"):
        write_text("new", path)
    assert Path(path).read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_other_errors_of_who_writes_stay_theirs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replace_file(str(tmp_path / "a")):
        raise FileNotFoundError(errno.ENOENT, "another file")


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for act in (write_text, lambda _, path: copy_folder(str(tmp_path), path)):
        with pytest.raises(InputError, match="cannot be written .*(Not a directory|File exists)"):
            act("x", str(tmp_path / "run" / "a"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: cannot be written \(Is a directory\)"):
        write_text("x", str(tmp_path / "folder"))


def test_a_store_that_refuses_is_one_line(s3_bucket: str) -> None:
    with pytest.raises(InputError, match="s3://no-such-bucket/a: cannot be written"):
        write_text("x", "s3://no-such-bucket/a")


@pytest.fixture(autouse=True, scope="module")
def _empty_store() -> None:
    fsspec.filesystem("memory").store.clear()
