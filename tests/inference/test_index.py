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


def test_bytes_and_back() -> None:
    index = VideoIndex.from_bytes(VideoIndex.build(VECTORS).to_bytes(), margin=0.5)
    assert (index.shape, index.margin) == ((5, 2), 0.5)
    assert index.candidates(QUERY, 1, ALLOWED)[0].tolist() == [4]


def test_three_standard_deviations_where_nothing_else_is_said() -> None:
    """Of the codes' errors, 99.7 % lie within that."""
    index = VideoIndex.build(VECTORS)
    assert index.margin == VideoIndex.from_bytes(index.to_bytes()).margin == 3
    assert IndexFacts("pq").margin == 3


def test_wrong_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="not a nearest-neighbour index"):
        VideoIndex.from_bytes(b"something else")


def test_an_index_of_another_kind_is_refused() -> None:
    flat = bytes(faiss.serialize_index(faiss.IndexFlatIP(2)))
    with pytest.raises(InputError, match="not an index of codes but IndexFlatIP; publish again"):
        VideoIndex.from_bytes(flat)


def test_codes_are_of_the_vectors_themselves() -> None:
    """And not of what is left of them beside a cell's middle: there is one cell, at 0."""
    index = VideoIndex.build(VECTORS + 5)
    cell = faiss.downcast_index(index._codes.quantizer)
    assert (cell.ntotal, cell.reconstruct(0).tolist()) == (1, [0, 0])


def test_the_same_vectors_make_the_same_codes() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    assert VideoIndex.build(vectors).to_bytes() == VideoIndex.build(vectors).to_bytes()


def test_vectors_that_are_added_some_at_a_time_get_the_same_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are the first columns of wider rows, as a bundle's are."""
    wide = np.random.default_rng(0).normal(size=(500, 9)).astype(np.float32)
    whole = VideoIndex.build(wide[:, :6]).to_bytes()
    monkeypatch.setattr(index_module, "ADDED_AT_ONCE", 33)
    assert VideoIndex.build(wide[:, :6]).to_bytes() == whole


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
