from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.vocab import DistinctIds, Vocab
from recsys.schema import vocab_schema


def test_rows_start_at_one_in_the_order_given() -> None:
    vocab = Vocab(["b", "a", "ü"])
    assert len(vocab) == 4
    assert vocab.rows(["a", "ü", "b", "b"]).tolist() == [2, 3, 1, 1]
    assert [vocab.row(id_) for id_ in ("b", "a", "zzz")] == [1, 2, 0]
    assert [vocab.id(row) for row in (1, 2, 3)] == ["b", "a", "ü"]
    assert vocab.ids.to_pylist() == ["b", "a", "ü"]


def test_unknown_and_missing_ids_are_row_0() -> None:
    vocab = Vocab(["a"])
    assert vocab.rows(["x", None, "a"]).tolist() == [0, 0, 1]
    assert vocab.rows([]).tolist() == []


def test_integers_are_cast_to_text() -> None:
    vocab = Vocab(pa.array([30, 7]))
    assert vocab.rows(pa.array([7, 30, 3], pa.int32())).tolist() == [2, 1, 0]
    assert vocab.rows(pa.chunked_array([["7"], ["30", None]])).tolist() == [2, 1, 0]


def test_an_empty_vocabulary_knows_nothing() -> None:
    vocab = Vocab([])
    assert (len(vocab), vocab.rows(["a", None]).tolist(), vocab.row("a")) == (1, [0, 0], 0)


@pytest.mark.parametrize("row", [0, -1])
def test_row_0_has_no_id(row: int) -> None:
    with pytest.raises(KeyError, match=f"row {row} has no id; rows start at 1"):
        Vocab(["a"]).id(row)


@pytest.mark.parametrize("ids", [["b", "a"], []])
def test_comes_back_from_disk_with_row_0_first(tmp_path: Path, ids: list[str]) -> None:
    path = str(tmp_path / "vocab" / "video.parquet")
    Vocab(ids).write(path)
    table = pq.read_table(path)
    assert table.schema.equals(vocab_schema())
    assert table.column("id").to_pylist() == [None, *ids]
    assert Vocab.read(path).ids.to_pylist() == ids


def test_different_ids_are_gathered_however_they_come() -> None:
    """Also where more wait than are known, and where nothing comes."""
    ids = DistinctIds()
    assert ids.all().to_pylist() == []
    for part in (["b", "a"], [], ["b"], ["c", "a", "d", "e"], ["e"]):
        ids.add(pa.array(part, pa.string()))
    assert ids.all().to_pylist() == ids.all().to_pylist() == ["b", "a", "c", "d", "e"]
