from pathlib import Path

import pytest

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.errors import InputError


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    writer = CheckedWriter(str(tmp_path))
    writer.write("a/b.txt", b"hello")
    assert writer.files["a/b.txt"] == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    reader = CheckedReader(str(tmp_path), writer.files)
    assert set(reader.names) == {"a/b.txt"}
    assert reader.read("a/b.txt") == b"hello"


def test_files_that_nobody_read_are_checked_at_the_end(tmp_path: Path) -> None:
    writer = CheckedWriter(str(tmp_path))
    writer.write("read", b"1")
    writer.write("left", b"2")
    (tmp_path / "left").write_bytes(b"3")
    reader = CheckedReader(str(tmp_path), writer.files)
    reader.read("read")
    with pytest.raises(InputError, match="left: sha256 is not the manifest's"):
        reader.check_rest()


def test_a_file_that_is_not_listed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"1")
    with pytest.raises(InputError, match="other: the manifest does not list this file"):
        CheckedReader(str(tmp_path), {}).read("other")


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(InputError, match="file: cannot be read"):
        CheckedReader(str(tmp_path), {"file": {"bytes": 0, "sha256": ""}}).read("file")
