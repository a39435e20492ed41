"""What publishing measures of an index, on catalogues that codes of four bits suit and do not suit.

Shapes: N videos, D retrieval vector.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.contents import Asked, Bundle
from recsys.bundle.stage import publish
from recsys.data.ragged import FloatArray
from recsys.inference.index import IndexFacts, VideoIndex
from recsys.serve.retrieve.retrieval import Search
from recsys.serve.versions import index_recall
from recsys.serve.versions.index_recall import Measured, index_facts, tuned
from recsys.serve.versions.known import check_known, known_answers
from tests.bundles import NUM_USERS, make_run, trained_of

NUM, DIM = 12_001, 24
NOBODY, NOTHING = np.zeros(0, np.int64), np.zeros(0, np.float32)
TASTE = np.where(np.arange(DIM) % 2, 1.0, -1.0)
"""What all users look for, more or less."""


def ordinary() -> FloatArray:
    return np.random.default_rng(0).normal(size=(NUM, DIM)).astype(np.float32)


def with_lone_numbers(num: int, score: float) -> FloatArray:
    """The last videos have one number each that none of the 16 levels of its dimension is near.

    It alone brings them a score; the rest of each is a little against the taste of all.
    """
    vectors = ordinary()
    vectors[-num:] = -0.3 * TASTE
    one = np.arange(num) % DIM
    vectors[np.arange(-num, 0), one] = score / TASTE[one]
    return vectors


def searches() -> list[Search]:
    trending = np.zeros(NUM, np.float32)
    rng = np.random.default_rng(2)
    queries = (TASTE + 0.05 * rng.normal(size=(40, DIM))).astype(np.float32)
    return [Search(query, trending, NOBODY, NOTHING, NOBODY) for query in queries]


def measured(
    vectors: FloatArray, asked: Sequence[Search], log: pytest.LogCaptureFixture
) -> tuple[IndexFacts, str]:
    """The facts and the line that is said."""
    with log.at_level(logging.INFO, logger=index_recall.__name__):
        facts = tuned(VideoIndex.build(vectors), vectors, asked)
    (line,) = log.messages
    return facts, line


def test_an_index_that_finds_enough_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    facts, line = measured(ordinary(), searches(), caplog)
    assert (facts.kind, facts.margin) == ("pq", 0.0)
    assert facts.recall is not None and facts.recall >= 0.99 and facts.time_of_flat is not None
    assert line.startswith("publish: the index finds ") and line.endswith("comparing all takes")


def test_users_of_the_bundle_are_asked_for_with_what_trends_and_what_they_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, publish={"index": "pq"})
    asked: list[Search] = []

    def spy(index: VideoIndex, vectors: FloatArray, searches: Sequence[Search]) -> IndexFacts:
        asked.extend(searches)
        return IndexFacts("pq")

    monkeypatch.setattr(index_recall, "tuned", spy)
    bundle = Bundle.load(str(tmp_path))
    index_facts(bundle)
    assert len(asked) == NUM_USERS
    assert all(len(search.trending) == len(bundle.vectors) for search in asked)
    assert all(np.ptp(search.trending) > 0 for search in asked)
    assert [len(search.seen) > 0 for search in asked] == [False] + [True] * (NUM_USERS - 1)


def test_where_no_margin_finds_enough_all_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    vectors = with_lone_numbers(80, 30)
    facts, line = measured(vectors, searches(), caplog)
    assert facts == IndexFacts("flat")
    assert "an index would find " in line and "(at least 98% is wanted)" in line
    assert "all are compared instead, " in line and line.endswith(" ms a search")


def test_the_bar_under_filters_counts(caplog: pytest.LogCaptureFixture) -> None:
    """What codes miss is among the 100 best only where a filter leaves half of the others."""
    vectors = with_lone_numbers(80, 30)
    vectors[1:131] = np.linspace(1.6, 2.4, 130)[:, None] * TASTE
    facts, line = measured(vectors, searches(), caplog)
    assert facts == IndexFacts("flat")
    assert "an index would find 100.0% of the 100 best videos" in line
    assert "% under filters (at least 95%)" in line


@pytest.mark.parametrize(
    ("recall", "filtered", "is_enough"),
    [(0.98, 0.95, True), (0.979, 1.0, False), (1.0, 0.949, False)],
)
def test_both_bars_are_to_be_met(recall: float, filtered: float, is_enough: bool) -> None:
    assert Measured(recall, filtered, 1.0, 2.0).is_enough is is_enough


def test_a_bundle_whose_index_misses_its_bar_has_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, publish={"index": "pq"})
    loaded = Bundle.load(str(tmp_path))
    assert loaded.index is not None
    trained = trained_of(run.config, run.recommender, loaded.sizes, run.vectors)
    asked = Asked(index=lambda _: IndexFacts("flat"), known=known_answers)
    version = publish(trained, str(tmp_path / "bundles"), asked=asked)
    flat = Bundle.load(str(tmp_path))
    assert (flat.version, flat.index, flat.index_facts) == (version, None, IndexFacts("flat"))
    assert not list((tmp_path / "bundles" / version).glob("index*"))
    assert index_facts(flat) == IndexFacts("flat")
    check_known(flat)
