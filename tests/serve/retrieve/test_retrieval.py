"""The index against comparing everything, on catalogues that are awkward for an index.

Shapes: N videos, D retrieval vector, K results.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from recsys.data.ragged import FloatArray
from recsys.inference.index import VideoIndex
from recsys.serve.retrieve import retrieval as module
from recsys.serve.retrieve.retrieval import Retriever, Search

NUM, DIM, K = 12_001, 24, 50
NOTHING = np.zeros(0, np.int64)
Mask = npt.NDArray[np.bool_]


def catalogue(seed: int = 0) -> FloatArray:
    """40 clusters, a creator each, in random order; lengths from 0.1 to 5, most of them short."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, DIM))
    points = centres[CREATORS] + 0.4 * rng.normal(size=(NUM, DIM))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (points * np.exp(rng.uniform(np.log(0.1), np.log(5), (NUM, 1)))).astype(np.float32)


CREATORS = np.random.default_rng(1).integers(40, size=NUM)
VECTORS = catalogue()
LENGTHS = np.linalg.norm(VECTORS, axis=1)
QUERIES = 2 * np.random.default_rng(2).normal(size=(10, DIM)).astype(np.float32)
BIASES = {
    "none": np.zeros(NUM, np.float32),
    "as large as scores": 3 * np.random.default_rng(3).normal(size=NUM).astype(np.float32),
    "all alike": np.random.default_rng(3).uniform(0, 8, NUM).astype(np.float32),
    "a few trend": np.where(np.arange(NUM) % 500 == 7, 9, -0.2).astype(np.float32),
}
FILTERS: dict[str, Callable[[FloatArray], Mask] | None] = {
    "all": None,
    "half": lambda _: np.random.default_rng(4).random(NUM) < 0.5,
    "a tenth": lambda _: np.random.default_rng(4).random(NUM) < 0.1,
    "a hundredth": lambda _: np.random.default_rng(4).random(NUM) < 0.01,
    "the short": lambda _: np.quantile(LENGTHS, 0.3) > LENGTHS,
    "one creator": lambda _: CREATORS == 3,
    "what the user likes least": lambda query: np.quantile(VECTORS @ query, 0.2) > VECTORS @ query,
    "three": lambda _: np.isin(np.arange(NUM), [5, 6, 700]),
    "none": lambda _: np.zeros(NUM, np.bool_),
}


def search(query: FloatArray, bias: FloatArray, allowed: Mask | None) -> Search:
    """With videos that were seen, which gain or lose, and some that are out."""
    rng = np.random.default_rng(5)
    seen = np.unique(rng.integers(1, NUM, 30))
    return Search(
        query=query,
        trending=bias,
        seen=seen,
        seen_bias=rng.normal(size=len(seen)).astype(np.float32) * 4,
        excluded=np.unique(rng.integers(1, NUM, 20)),
        allowed=allowed,
    )


@pytest.fixture(scope="module")
def index() -> VideoIndex:
    return VideoIndex.build(VECTORS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the catalogue were large: few are compared at once, and few are lifted."""
    monkeypatch.setattr(module, "MOST_COMPARED", 200)
    monkeypatch.setattr(module, "LEAST_LIFTED", 50)


def expected_scores(one: Search) -> FloatArray:
    every: FloatArray = VECTORS @ one.query + one.trending
    every[one.seen] += one.seen_bias
    every[one.excluded] = -np.inf
    every[0] = -np.inf
    if one.allowed is not None:
        every[~one.allowed] = -np.inf
    return every


def recall(index: VideoIndex, one: Search) -> float:
    """Of what is right; what is found must be allowed, once, in order and with its own score."""
    every = expected_scores(one)
    rows, scores = (line[0] for line in Retriever(index, VECTORS).best([one], K))
    there = rows > 0
    assert there.sum() == min(K, np.isfinite(every).sum())
    assert (scores[~there] == -np.inf).all() and (np.diff(scores[there]) <= 0).all()
    assert len(set(rows[there].tolist())) == there.sum()
    assert scores[there] == pytest.approx(every[rows[there]], abs=1e-4)
    right = np.argsort(-every, kind="stable")[: there.sum()]
    return float(np.isin(right, rows).mean()) if len(right) else 1.0


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", FILTERS)
def test_what_is_right_is_found(index: VideoIndex, bias: str, kind: str) -> None:
    make = FILTERS[kind]
    searches = [
        search(query, BIASES[bias], None if make is None else make(query)) for query in QUERIES
    ]
    assert np.mean([recall(index, one) for one in searches]) >= 0.99


@pytest.mark.parametrize("bias", BIASES)
def test_with_a_margin_that_is_never_met_the_index_is_exact(index: VideoIndex, bias: str) -> None:
    """Nothing is taken as found until all videos were compared."""
    careful = index.with_margin(1e9)
    assert all(recall(careful, search(query, BIASES[bias], None)) == 1.0 for query in QUERIES)


@pytest.mark.parametrize("kind", ["all", "half"])
def test_without_its_bound_the_search_would_miss_what_trends(index: VideoIndex, kind: str) -> None:
    """The first candidates are those of the codes, and most of the right ones are further down."""
    make = FILTERS[kind]
    searches = [
        search(query / 5, BIASES["all alike"], None if make is None else make(query))
        for query in QUERIES
    ]
    hasty = index.with_margin(-1e9)
    assert np.mean([recall(hasty, one) for one in searches]) < 0.95
    assert np.mean([recall(index, one) for one in searches]) >= 0.99


def test_few_are_looked_at_where_few_decide(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bias most searches end with the first candidates, eight for each that is wanted."""
    widths = []
    looked = VideoIndex.candidates

    def counted(self: VideoIndex, query: FloatArray, width: int, allowed: Mask) -> object:
        widths.append(width)
        return looked(self, query, width, allowed)

    monkeypatch.setattr(VideoIndex, "candidates", counted)
    Retriever(index.with_margin(0), VECTORS).best(
        [search(query, BIASES["none"], None) for query in QUERIES], K
    )
    assert widths == [8 * K] * len(QUERIES)


def test_where_the_index_names_too_few_all_are_compared(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = np.zeros(0, np.int64), np.zeros(0, np.float32)
    monkeypatch.setattr(VideoIndex, "candidates", lambda *_: nobody)
    assert recall(index, search(QUERIES[0], BIASES["none"], None)) == 1.0


def test_what_trends_is_chosen_anew_when_it_changes(index: VideoIndex) -> None:
    """A retriever that kept the first hour's choice would not find the second's video."""
    retriever = Retriever(index, VECTORS)
    for row in (9000, 9500):
        bias = np.zeros(NUM, np.float32)
        bias[row] = 1000
        one = replace(search(QUERIES[0], bias, None), excluded=NOTHING)
        assert retriever.best([one], 1)[0].tolist() == [[row]]


def test_only_the_first_numbers_of_a_vector_are_for_retrieval(index: VideoIndex) -> None:
    longer = np.concatenate([VECTORS, np.full((NUM, 3), 100, np.float32)], 1)
    one = search(QUERIES[0], BIASES["none"], None)
    for made in (None, index):
        rows, _ = Retriever(made, longer, dim=DIM).best([one], 5)
        assert rows.tolist() == Retriever(made, VECTORS).best([one], 5)[0].tolist()


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("by_index", [True, False])
def test_scores_without_what_trends_are_never_too_high(
    index: VideoIndex, bias: str, kind: str, by_index: bool
) -> None:
    """And hardly too low; beside them is found what is found without them."""
    make, retriever = FILTERS[kind], Retriever(index if by_index else None, VECTORS)
    for query in QUERIES:
        one = search(query, BIASES[bias], None if make is None else make(query))
        *found, (untrended,) = retriever.best_and_untrended([one], K)
        for here, there in zip(found, retriever.best([one], K), strict=True):
            np.testing.assert_array_equal(here, there)
        right = -np.sort(-(expected_scores(one) - one.trending))
        assert (untrended <= right[:K] + 1e-4).all()
        assert untrended[-1] >= right[K + K // 2] - 1e-4
