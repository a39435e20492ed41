"""Codes of ids, worked out digit by digit."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.vocab import Vocab
from recsys.serve.retrieve import cursors
from recsys.serve.retrieve.catalogue import Changed
from recsys.serve.retrieve.cursors import Cursors, id_codes

FACTOR, MIXER = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


def code_of(id_: str) -> int:
    digits = enumerate(id_.encode(), start=1)
    number = sum((byte + 1) * pow(FACTOR, place, 2**64) for place, byte in digits)
    return (number % 2**64 * MIXER % 2**64) >> 32


def test_a_code_is_that_of_the_ids_bytes() -> None:
    ids = ["a", "ab", "ba", "", "caf\u00e9", "x" * 300]
    assert id_codes(pa.array(ids)).tolist() == [code_of(id_) for id_ in ids]
    assert code_of("") == 0 and code_of("ab") != code_of("ba")
    assert id_codes(pa.array([], pa.string())).tolist() == []


def test_ids_of_a_part_have_the_codes_that_they_have_in_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = pa.array([f"v{number}" for number in range(10)])
    whole = id_codes(ids)
    monkeypatch.setattr(cursors, "AT_ONCE", 3)
    assert id_codes(ids).tolist() == whole.tolist()
    assert id_codes(ids.slice(4, 3)).tolist() == whole[4:7].tolist()


def test_ids_that_are_numbered_have_different_codes() -> None:
    codes = id_codes(pa.array([f"video-{number}" for number in range(20_000)]))
    assert len(np.unique(codes)) >= 20_000 - 2  # chance alone makes one pair in 20,000 of 2^32


class _Catalogue:
    """Videos of a bundle, behind which others come."""

    def __init__(self, vocab: Vocab) -> None:
        self.num_bundle, self._ids = len(vocab), vocab.ids.to_pylist()
        self.on_change: list[Any] = []
        self.videos = self

    def ids_of(self, rows: np.ndarray) -> list[str]:
        return [self._ids[row - 1] for row in rows]

    def come(self, id_: str) -> None:
        self._ids.append(id_)
        for part in self.on_change:
            part(Changed(np.array([len(self._ids)]), 1))


def test_a_cursor_remembers_videos_of_the_bundle_and_live_ones() -> None:
    vocab = Vocab(["b", "a", "c"])
    catalogue: Any = _Catalogue(vocab)
    bundle: Any = SimpleNamespace(vocabs={"video": vocab})
    made = Cursors(bundle, catalogue)
    catalogue.come("d"), catalogue.come("e")
    first = made.after(None, np.array([3, 4]))
    assert made.rows(first).tolist() == [3, 4]
    second = made.after(first, np.array([1]))
    assert made.rows(second).tolist() == [1, 3, 4]
    assert made.rows(None).tolist() == [] and made.after(second, np.array([], np.int64)) is None
