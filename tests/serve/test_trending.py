import numpy as np
import pytest

from recsys.data.trends import Trends
from recsys.serve.trending import HELD_HOURS, Trending
from tests.bundles import NUM_VIDEOS, START_MS, TinyRun, make_run

HOUR_MS = 3600 * 1000
NOW = (START_MS // HOUR_MS + 60) * HOUR_MS


@pytest.fixture
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One of its own: its counts change."""
    return make_run(tmp_path_factory.mktemp("trending") / "run")


def expected(run: TinyRun, trends: Trends, time_ms: int) -> np.ndarray:
    """A video at a time: the offset if it was shown, and the logs of its counts."""
    offset, total, recent = run.recommender.trending.tolist()
    gains = np.zeros(NUM_VIDEOS + 1)
    for row in range(1, NUM_VIDEOS + 1):
        met, count, lately = trends.popularity(time_ms)[row].tolist()
        gains[row] = offset * met + total * count + recent * lately
    return gains


def test_gains_of_an_hour(tiny_run: TinyRun) -> None:
    trending = Trending(tiny_run.recommender, tiny_run.trends)
    gains = trending.at(NOW)
    assert gains == pytest.approx(expected(tiny_run, tiny_run.trends, NOW), abs=1e-6)
    assert gains.any() and not gains[0]
    assert trending.at(NOW + HOUR_MS - 1) is gains
    assert trending.at(NOW + HOUR_MS) is not gains


def test_a_live_event_counts_from_the_next_hour_on(tiny_run: TinyRun) -> None:
    """Also in hours that somebody has asked for already; what was given away does not change."""
    trending = Trending(tiny_run.recommender, tiny_run.trends)
    before, later = trending.at(NOW), trending.at(NOW + HOUR_MS)
    kept = later.copy()
    trending.count(7, (0,), NOW + 5, (1, 0, 0))
    assert trending.at(NOW) is before
    changed = trending.at(NOW + HOUR_MS)
    assert np.flatnonzero(changed != later).tolist() == [7]
    assert changed == pytest.approx(expected(tiny_run, tiny_run.trends, NOW + HOUR_MS), abs=1e-6)
    assert np.array_equal(later, kept)


def test_few_hours_are_held(tiny_run: TinyRun) -> None:
    """Those asked for last, however many different moments requests name."""
    trending = Trending(tiny_run.recommender, tiny_run.trends)
    first = trending.at(NOW)
    for hour in range(1, HELD_HOURS):
        trending.at(NOW + hour * HOUR_MS)
    assert trending.at(NOW) is first
    for hour in range(1, HELD_HOURS + 1):
        trending.at(NOW + hour * HOUR_MS)
    assert trending.at(NOW) is not first


def test_a_model_without_weights_gains_nothing(tiny_run: TinyRun) -> None:
    tiny_run.recommender.trending[:] = 0
    trending = Trending(tiny_run.recommender, tiny_run.trends)
    trending.count(7, (0,), NOW, (1, 0, 0))
    assert trending.at(NOW + HOUR_MS).tolist() == [0] * (NUM_VIDEOS + 1)
