"""Features of users go into a bundle part by part, and come out mapped and whole."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.bundle.checked import CheckedReader, CheckedWriter
from recsys.bundle.users import read_users, write_users
from recsys.errors import InputError
from recsys.schema import user_schema

ROWS = {"ada": [1, 4], "zoë": [0, 5], "李": [2, 0]}


def part(*users: str) -> pa.Table:
    rows = [ROWS[user] for user in users]
    return pa.table([list(users), rows], schema=user_schema((), features=True))


def written(folder: Path, *parts: pa.Table) -> CheckedReader:
    writer = CheckedWriter(str(folder))
    write_users(writer, iter(parts), num_features=2)
    return CheckedReader(str(folder), writer.files)


def test_they_are_those_of_all_parts_one_after_the_other(tmp_path: Path) -> None:
    users = read_users(written(tmp_path, part("ada", "zoë"), part(), part("李")), num_features=2)
    assert users.of(["李", None, "ada", "who", "zoë"]).tolist() == [
        [2, 0],
        [0, 0],
        [1, 4],
        [0, 0],
        [0, 5],
    ]
    assert [users.one(user).tolist() for user in ("李", "who", "ada")] == [[2, 0], [0, 0], [1, 4]]


def test_they_are_mapped_and_four_bytes_each(tmp_path: Path) -> None:
    users = read_users(written(tmp_path, part("ada", "zoë")), num_features=2)
    assert isinstance(users._rows.base, np.memmap)
    assert users._rows.nbytes == 2 * 2 * 4
    assert users.one("ada").base is not None  # a part of what is mapped, no copy


def test_nobody_has_features(tmp_path: Path) -> None:
    users = read_users(written(tmp_path), num_features=2)
    assert users.one("ada").tolist() == [0, 0]
    assert users.of(["ada"]).tolist() == [[0, 0]]


def test_rows_of_another_config_are_refused(tmp_path: Path) -> None:
    reader = written(tmp_path, part("ada"))
    with pytest.raises(InputError, match=r"users: 1 users of 3 features, but rows of \(1, 2\)"):
        read_users(reader, num_features=3)
