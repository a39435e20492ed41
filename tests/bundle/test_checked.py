import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.data.storage import join, open_input, write_text
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


def test_an_array_is_written_in_pieces_and_hashed_on_the_way(tmp_path: Path) -> None:
    writer = CheckedWriter(str(tmp_path))
    pieces = [np.array([[1, 2]]), np.array([[3, 4], [5, 6]])]
    writer.write_array("a.npy", pieces, shape=(3, 2))
    data = (tmp_path / "a.npy").read_bytes()
    assert writer.files["a.npy"] == {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert CheckedReader(str(tmp_path), writer.files).array("a.npy").tolist() == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]
    with pytest.raises(ValueError, match="1 rows were written of 2"):
        writer.write_array("b.npy", pieces[:1], shape=(2, 2))
    assert not (tmp_path / "b.npy").exists() and "b.npy" not in writer.files


@pytest.mark.parametrize("folder", ["{}", "memory://test_checked"])
def test_a_table_is_written_in_parts_and_read_from_the_disk_or_from_memory(
    folder: str, tmp_path: Path
) -> None:
    place = folder.format(tmp_path)
    whole = pa.table({"duration_s": [None, 2.0, 3.0], "poster": [None, b"webp", b""]})
    writer = CheckedWriter(place)
    writer.write_mapped("a.arrow", [whole.slice(0, 1), whole.slice(1)], whole.schema)
    reader = CheckedReader(place, writer.files)
    assert reader.mapped("a.arrow").equals(whole)
    with open_input(join(place, "a.arrow")) as file:
        data = file.read()
    assert writer.files["a.arrow"] == {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_text("another", join(place, "a.arrow"))
    with pytest.raises(InputError, match="a.arrow: 7 bytes, the manifest says"):
        reader.mapped("a.arrow")


@pytest.mark.parametrize("folder", ["{}", "memory://test_tensors"])
def test_tensors_are_those_that_were_written(folder: str, tmp_path: Path) -> None:
    place = folder.format(tmp_path)
    tensors = {"table": torch.tensor([[1.5, -2.0]]), "steps": torch.tensor(7)}
    writer = CheckedWriter(place)
    writer.write_tensors("a.safetensors", tensors)
    reader = CheckedReader(place, writer.files)
    read_back = reader.tensors("a.safetensors")
    assert read_back.keys() == tensors.keys()
    assert all(torch.equal(read_back[name], tensors[name]) for name in tensors)
    write_text("another", join(place, "a.safetensors"))
    with pytest.raises(InputError, match="a.safetensors: 7 bytes, the manifest says"):
        reader.tensors("a.safetensors")


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


def test_an_array_is_mapped_once_its_bytes_were_checked(tmp_path: Path) -> None:
    """What a process writes into it stays its own."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([[1, 2], [3, 4]], np.float32))
    writer = CheckedWriter(str(tmp_path))
    writer.write("a.npy", buffer.getvalue())
    reader = CheckedReader(str(tmp_path), writer.files)
    assert not reader.array("a.npy").flags.writeable
    array = reader.array("a.npy", writable=True)
    assert isinstance(array.base, np.memmap)
    array[0, 0] = 9
    assert reader.array("a.npy").tolist() == [[1, 2], [3, 4]]
    changed = bytearray(buffer.getvalue())
    changed[-1] ^= 1
    (tmp_path / "a.npy").write_bytes(changed)
    with pytest.raises(InputError, match="a.npy: sha256 is not the manifest's"):
        reader.array("a.npy")


def test_an_array_that_cannot_be_mapped_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([5, 6], np.float32))
    writer = CheckedWriter("memory://checked")
    writer.write("a.npy", buffer.getvalue())
    assert CheckedReader("memory://checked", writer.files).array("a.npy").tolist() == [5, 6]


def test_a_file_is_checked_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.bundle.checked.BLOCK", 2)
    writer = CheckedWriter(str(tmp_path))
    writer.write("file", b"12345")
    reader = CheckedReader(str(tmp_path), writer.files)
    reader.check("file")
    (tmp_path / "file").write_bytes(b"1234")
    with pytest.raises(InputError, match="file: 4 bytes, the manifest says 5"):
        reader.check("file")
