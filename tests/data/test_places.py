import pickle

import pyarrow as pa
import pytest

from recsys.data.places import Places


def test_every_id_has_its_place_and_others_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the ids are hashed in several parts."""
    monkeypatch.setattr("recsys.data.places.CHUNK", 7)
    ids = [f"u{i * 7919 % 100}" for i in range(100)]
    places = Places(pa.array(ids))
    assert [places.get(id_) for id_ in ids] == list(range(100))
    assert [places.get(id_) for id_ in ("", "u100", "U1")] == [None] * 3
    assert "u0" in places and "u100" not in places
    assert len(places) == 100


def test_ids_of_equal_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.data.places.hash", lambda id_: len(id_), raising=False)
    places = Places(pa.array(["bb", "a", "cc", "dddd"]))
    assert [places.get(id_) for id_ in ("bb", "a", "cc", "dddd")] == [0, 1, 2, 3]
    assert [places.get(id_) for id_ in ("xx", "y", "zzz", "zzzzz")] == [None] * 4


def test_nobody_is_there() -> None:
    places = Places(pa.array([], pa.string()))
    assert (len(places), places.get("a")) == (0, None)


def test_another_process_hashes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its salt is another one, as the lengths stand for here."""
    crossing = pickle.dumps(Places(pa.array(["bb", "a"])))
    monkeypatch.setattr("recsys.data.places.hash", lambda id_: len(id_), raising=False)
    there = pickle.loads(crossing)
    assert [there.get(id_) for id_ in ("bb", "a", "c")] == [0, 1, None]
