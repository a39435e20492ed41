import gc
import re
from pathlib import Path

import faiss
import numpy as np
import pytest

from recsys.errors import InputError
from recsys.inference import index as index_module
from recsys.inference.index import IndexFacts, VideoIndex

VECTORS = np.array([[9, 9], [1, 0], [0, 2], [-1, -1], [3, 0]], np.float32)
QUERY = np.array([1, 1], np.float32)  # dot products 18 (row 0), 1, 2, -2, 3
ALLOWED = np.array([False, True, True, True, True])


def test_the_largest_dot_products_come_first_and_what_is_not_allowed_never() -> None:
    """Each dimension has fewer values than levels: the codes are exact but for their tables."""
    index = VideoIndex.build(VECTORS)
    rows, scores = index.candidates(QUERY, 3, ALLOWED)
    assert rows.tolist() == [4, 2, 1]
    assert scores == pytest.approx([3, 2, 1], abs=0.1)
    assert index.candidates(QUERY, 1, np.ones(5, np.bool_))[0].tolist() == [0]


def test_fewer_are_found_where_fewer_are_allowed() -> None:
    index = VideoIndex.build(VECTORS)
    assert index.candidates(QUERY, 3, np.arange(5) == 2)[0].tolist() == [2]
    assert index.candidates(QUERY, 3, np.zeros(5, np.bool_))[0].tolist() == []


def test_it_is_made_of_its_levels_and_codes() -> None:
    built = VideoIndex.build(VECTORS)
    index = VideoIndex(built.levels, built.codes.copy(), margin=0.5)
    assert (index.shape, index.margin) == ((5, 2), 0.5)
    assert index.candidates(QUERY, 1, ALLOWED)[0].tolist() == [4]


@pytest.mark.parametrize("dim", [5, 24])
def test_the_codes_are_those_that_faiss_makes(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows wider than the vectors, some of them at a time; the last block is not full."""
    rows = np.random.default_rng(0).normal(size=(1003, dim + 3)).astype(np.float32)
    monkeypatch.setattr(index_module, "ADDED_AT_ONCE", 400)
    built = VideoIndex.build(rows[:, :dim])
    theirs = faiss.deserialize_index(np.frombuffer(built.levels, np.uint8))
    theirs.reset()
    theirs.add(np.ascontiguousarray(rows[:, :dim]))
    lists = faiss.downcast_InvertedLists(theirs.invlists)
    codes = faiss.rev_swig_ptr(lists.get_codes(0), len(built.codes) - 8 * len(rows))
    assert (built.codes[: -8 * len(rows)] == codes).all()
    assert built.codes[-8 * len(rows) :].view(np.int64).tolist() == list(range(len(rows)))


def test_three_standard_deviations_where_nothing_else_is_said() -> None:
    """Of the codes' errors, 99.7 % lie within that."""
    index = VideoIndex.build(VECTORS)
    assert index.margin == VideoIndex(index.levels, index.codes).margin == 3
    assert IndexFacts("pq").margin == 3


def test_wrong_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="not a nearest-neighbour index"):
        VideoIndex(b"something else", np.zeros(0, np.uint8))


def test_an_index_of_another_kind_is_refused() -> None:
    flat = bytes(faiss.serialize_index(faiss.IndexFlatIP(2)))
    with pytest.raises(InputError, match="not an index of codes but IndexFlatIP; publish again"):
        VideoIndex(flat, np.zeros(0, np.uint8))


def test_codes_of_other_videos_are_refused() -> None:
    index = VideoIndex.build(VECTORS)
    with pytest.raises(InputError, match="codes of 71 bytes, not of 5; publish again"):
        VideoIndex(index.levels, index.codes[:-1])


def test_codes_are_searched_where_they_lie(tmp_path: Path) -> None:
    """In a mapped file, of which no page is copied, and for as long as the index is there."""
    vectors = np.random.default_rng(0).normal(size=(1 << 16, 32)).astype(np.float32)
    built = VideoIndex.build(vectors)
    np.save(tmp_path / "codes.npy", built.codes)
    index = VideoIndex(built.levels, np.load(tmp_path / "codes.npy", mmap_mode="r"))
    gc.collect()
    every = np.ones(len(vectors), np.bool_)
    for ours, theirs in zip(
        *(one.candidates(vectors[0], 10, every) for one in (index, built)), strict=True
    ):
        assert ours.tolist() == theirs.tolist()
    _, _, lines = Path("/proc/self/smaps").read_text().partition(f"{tmp_path}/codes.npy\n")
    facts = dict(re.findall(r"(\w+): +(\d+) kB", lines.partition("VmFlags")[0]))
    assert int(facts["Rss"]) >= len(vectors) * 32 // 2 // 1024
    assert facts["Anonymous"] == "0"


def test_codes_are_of_the_vectors_themselves() -> None:
    """And not of what is left of them beside a cell's middle: there is one cell, at 0."""
    index = VideoIndex.build(VECTORS + 5)
    cell = faiss.downcast_index(index._index.quantizer)
    assert (cell.ntotal, cell.reconstruct(0).tolist()) == (1, [0, 0])


def test_the_same_vectors_make_the_same_codes() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    one, other = VideoIndex.build(vectors), VideoIndex.build(vectors)
    assert one.levels == other.levels and np.array_equal(one.codes, other.codes)


def test_vectors_that_are_added_some_at_a_time_get_the_same_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are the first columns of wider rows, as a bundle's are."""
    wide = np.random.default_rng(0).normal(size=(500, 9)).astype(np.float32)
    whole = VideoIndex.build(wide[:, :6])
    monkeypatch.setattr(index_module, "ADDED_AT_ONCE", 33)
    other = VideoIndex.build(wide[:, :6])
    assert other.levels == whole.levels and np.array_equal(other.codes, whole.codes)


def test_codes_say_nearly_what_the_vectors_do() -> None:
    """The 16 best levels of a normal number are wrong by 0.0974 of its spread (Lloyd, Max)."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_001, 32)).astype(np.float32)
    query = rng.normal(size=32).astype(np.float32)
    rows, coded = VideoIndex.build(vectors).candidates(query, 20_001, np.ones(20_001, np.bool_))
    assert sorted(rows) == list(range(20_001))
    wrong = vectors[rows] @ query - coded
    assert wrong.std() == pytest.approx(0.0974 * np.linalg.norm(query), rel=0.25)


@pytest.mark.parametrize(("number", "fitted_to"), [(3, 16), (70_000, 65_536)])
def test_levels_are_fitted_to_a_sample(
    monkeypatch: pytest.MonkeyPatch, number: int, fitted_to: int
) -> None:
    """Of a large catalogue to some of its videos, of a tiny one to each several times."""
    lengths: list[int] = []
    train = faiss.IndexIVFPQFastScan.train

    def spy(codes: faiss.IndexIVFPQFastScan, vectors: np.ndarray) -> None:
        lengths.append(len(vectors))
        train(codes, vectors)

    monkeypatch.setattr(faiss.IndexIVFPQFastScan, "train", spy)
    vectors = np.random.default_rng(0).normal(size=(number, 2)).astype(np.float32)
    assert len(VideoIndex.build(vectors)) == number
    assert lengths == [fitted_to]
