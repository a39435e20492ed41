from typing import Literal

import faiss
import numpy as np
import pytest

from recsys.errors import InputError
from recsys.inference.index import FLAT_UP_TO, HNSW_BUILD_WIDTH, VideoIndex

VECTORS = np.array([[9, 9], [1, 0], [0, 2], [-1, -1], [3, 0]], np.float32)
QUERY = np.array([[1, 1]], np.float32)  # dot products 18 (row 0), 1, 2, -2, 3

Kind = Literal["flat", "hnsw"]
KINDS: list[Kind] = ["flat", "hnsw"]


@pytest.mark.parametrize("kind", KINDS)
def test_finds_the_largest_dot_products_and_never_row_0(kind: Kind) -> None:
    rows, scores = VideoIndex.build(VECTORS, kind=kind).search(QUERY, 3)
    assert rows.tolist() == [[4, 2, 1]]
    assert scores.tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_still_gives_k_when_some_are_excluded(kind: Kind) -> None:
    index = VideoIndex.build(VECTORS, kind=kind)
    queries = np.repeat(QUERY, 2, axis=0)
    rows, scores = index.search(queries, 2, exclude=[[4, 4, 77], []])
    assert rows.tolist() == [[2, 1], [4, 2]]
    assert scores.tolist() == [[2, 1], [3, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_pads_with_row_0_when_there_are_too_few(kind: Kind) -> None:
    index = VideoIndex.build(VECTORS, kind=kind)
    rows, scores = index.search(QUERY, 3, exclude=[[1, 2, 3]])
    assert rows.tolist() == [[4, 0, 0]]
    assert scores.tolist() == [[3, -np.inf, -np.inf]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_is_added_to_every_score(kind: Kind) -> None:
    """Until another one is set."""
    index = VideoIndex.from_bytes(VideoIndex.build(VECTORS, kind=kind).to_bytes())
    index.set_bias(np.array([9, 4, 0, 0, -2], np.float32))
    rows, scores = index.search(QUERY, 4)
    assert rows.tolist() == [[1, 2, 4, 3]]
    assert scores.tolist() == [[5, 2, 1, -2]]
    index.set_bias(np.zeros(5, np.float32))
    assert index.search(QUERY, 4)[0].tolist() == [[4, 2, 1, 3]]
    assert (index.dim, len(index)) == (2, 4)


def test_empty_catalogue_gives_nothing() -> None:
    rows, _ = VideoIndex.build(VECTORS[:1], kind="auto").search(QUERY, 2)
    assert rows.tolist() == [[0, 0]]


def test_order_is_that_of_the_training_loss() -> None:
    """The loss ranks by `queries @ vectors.T`; vectors of unlike length tell it from cosine."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32) * rng.uniform(0.1, 5, (200, 1))
    vectors = vectors.astype(np.float32)
    queries = rng.normal(size=(20, 8)).astype(np.float32)
    rows, scores = VideoIndex.build(vectors, kind="flat").search(queries, 10)
    logits = queries @ vectors.T
    logits[:, 0] = -np.inf
    expected = np.argsort(-logits, axis=1)[:, :10]
    assert (rows == expected).all()
    np.testing.assert_allclose(scores, np.take_along_axis(logits, expected, 1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_back(kind: Kind) -> None:
    index = VideoIndex.from_bytes(VideoIndex.build(VECTORS, kind=kind).to_bytes())
    assert (index.kind, len(index), index.dim) == (kind, 4, 2)
    assert index.search(QUERY, 1)[0].tolist() == [[4]]


def test_wrong_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="not a nearest-neighbour index"):
        VideoIndex.from_bytes(b"something else")


def test_auto_is_exact_up_to_a_size_and_approximate_above(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FLAT_UP_TO == 100_000
    monkeypatch.setattr("recsys.inference.index.FLAT_UP_TO", 3)
    assert VideoIndex.build(VECTORS[:4], kind="auto").kind == "flat"
    assert VideoIndex.build(VECTORS, kind="auto").kind == "hnsw"


@pytest.mark.parametrize(("k", "least"), [(10, 0.99), (200, 0.995)])
def test_the_approximate_index_finds_nearly_all(k: int, least: float) -> None:
    """Also of long lists, for which it must look further (0.98 of 200 if it did not)."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3001, 48)) * rng.uniform(0.5, 2, (3001, 1))
    queries = rng.normal(size=(50, 48)).astype(np.float32)
    exact, near = (
        VideoIndex.build(vectors.astype(np.float32), kind=kind).search(queries, k)[0]
        for kind in KINDS
    )
    shares = [len(np.intersect1d(*rows)) / k for rows in zip(exact, near, strict=True)]
    assert np.mean(shares) >= least


def test_a_graph_is_built_and_searched_as_wide_as_its_recall_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What lists of 10 and of 200 look at: 128 videos, and four times the list."""
    index = VideoIndex.build(np.ones((301, 2), np.float32), kind="hnsw")
    assert index._index.hnsw.efConstruction == HNSW_BUILD_WIDTH == 100
    widths, make = [], faiss.SearchParametersHNSW

    def parameters(**given: int) -> object:
        widths.append(given)
        return make(**given)

    monkeypatch.setattr(faiss, "SearchParametersHNSW", parameters)
    for k in (10, 200):
        index.search(QUERY, k)
    assert [given["efSearch"] for given in widths] == [128, 800]


def test_a_graph_that_finds_too_few_names_nobody() -> None:
    """It is asked for all of 200 videos, from a far corner, and what it misses is row 0."""
    vectors = np.random.default_rng(0).normal(size=(201, 4)).astype(np.float32)
    rows, scores = VideoIndex.build(vectors, kind="hnsw").search(QUERY.repeat(2, 1), 300)
    shown = rows[0] > 0
    assert len(set(rows[0, shown].tolist())) == shown.sum() >= 190
    assert (scores[0, ~shown] == -np.inf).all()


def test_lists_to_exclude_must_be_as_many_as_queries() -> None:
    with pytest.raises(ValueError, match="2 lists to exclude for 1 queries"):
        VideoIndex.build(VECTORS, kind="flat").search(QUERY, 1, exclude=[[1], [2]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.01])
def test_only_allowed_videos_are_found_and_the_right_ones(
    kind: Kind, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By comparing the allowed ones, and by a search that passes over the others; with a bias."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_001, 16)).astype(np.float32)
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    bias = rng.normal(size=20_001).astype(np.float32)
    allowed = rng.random(20_001) < share
    every = queries @ vectors.T + bias
    every[:, ~allowed] = -np.inf
    every[:, 0] = -np.inf
    expected = np.argsort(-every, axis=1)[:, :50]
    index = VideoIndex.build(vectors, kind=kind)
    index.set_bias(bias)
    monkeypatch.setattr("recsys.inference.index.ALL_COMPARED", 3000)
    rows, scores = index.search(queries, 50, allowed=allowed)
    assert allowed[rows].all()
    found = np.mean([len(np.intersect1d(*pair)) / 50 for pair in zip(rows, expected, strict=True)])
    assert found >= (1.0 if kind == "flat" or share < 0.1 else 0.97)
    assert scores == pytest.approx(np.take_along_axis(every, rows, 1), abs=1e-3)
