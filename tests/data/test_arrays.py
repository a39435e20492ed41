from pathlib import Path

import fsspec
import numpy as np
import pytest

from recsys.data.arrays import open_array, write_array
from recsys.errors import InputError


def test_pieces_are_read_as_one_array(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    pieces = [np.array([[1, 2]]), np.zeros((0, 2), np.int64), np.array([[3, 4], [5, 6]])]
    write_array(pieces, path, shape=(3, 2))
    assert open_array(path, np.int64).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert np.load(path).tolist() == [[1, 2], [3, 4], [5, 6]], "it is an ordinary .npy file"


def test_an_array_of_this_machine_is_mapped_and_not_written_to(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    write_array([np.arange(4)], path, shape=(4,))
    array = open_array(path, np.int64)
    base: object = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_an_array_elsewhere_is_read() -> None:
    write_array([np.arange(3)], "memory://arrays/a.npy", shape=(3,))
    assert open_array("memory://arrays/a.npy", np.int64).tolist() == [0, 1, 2]
    fsspec.filesystem("memory").rm("/arrays", recursive=True)


def test_an_array_without_any_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    write_array([np.zeros((0, 3), np.float32)], path, shape=(0, 3))
    assert open_array(path, np.float32).shape == (0, 3)


def test_what_is_not_the_array_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    with pytest.raises(InputError, match="a.npy: there is no such file"):
        open_array(path, np.int64)
    with pytest.raises(ValueError, match="3 rows were written of 4"):
        write_array([np.arange(3)], path, shape=(4,))
    assert not list(tmp_path.iterdir()), "half an array is never left behind"
    write_array([np.arange(3)], path, shape=(3,))
    with pytest.raises(InputError, match="a.npy: holds int64, not float32; make it again"):
        open_array(path, np.float32)
