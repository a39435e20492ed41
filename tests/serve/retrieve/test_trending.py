import numpy as np
import pytest

from recsys.data.ragged import Ragged
from recsys.features.counts import trending
from recsys.serve.retrieve.trending import HELD_HOURS, Trending
from tests.bundles import NUM_VIDEOS, START_MS, TinyRun, make_run

HOUR_MS = 3600 * 1000
NOW = (START_MS // HOUR_MS + 60) * HOUR_MS


@pytest.fixture
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One of its own: its counts change."""
    return make_run(tmp_path_factory.mktemp("trending") / "run")


def count(server: Trending, row: int, time_ms: int, flags: tuple[int, int, int]) -> None:
    """One event of a video, in no known context, which is followed at once."""
    nowhere, counts = np.zeros((1, 1), np.int64), np.array([[1, *flags]])
    server._counts.count_many(np.array([row]), nowhere, np.array([time_ms]), counts)
    server.follow()


def expected(run: TinyRun, time_ms: int) -> np.ndarray:
    weight = float(run.recommender.trending)
    return weight * trending(run.counts.shown(time_ms))


def test_gains_of_an_hour(tiny_run: TinyRun) -> None:
    server = Trending(tiny_run.recommender, tiny_run.counts)
    gains = server.at(NOW)
    assert gains == pytest.approx(expected(tiny_run, NOW), abs=1e-6)
    assert gains.any() and not gains[0]
    assert server.at(NOW + HOUR_MS - 1) is gains
    assert server.at(NOW + HOUR_MS) is not gains


def test_a_live_event_counts_from_the_next_hour_on(tiny_run: TinyRun) -> None:
    """Also in hours that somebody has asked for already; what was given away does not change."""
    server = Trending(tiny_run.recommender, tiny_run.counts)
    before, later = server.at(NOW), server.at(NOW + HOUR_MS)
    kept = later.copy()
    count(server, 7, NOW + 5, (1, 0, 0))
    assert server.at(NOW) is before
    changed = server.at(NOW + HOUR_MS)
    assert changed == pytest.approx(expected(tiny_run, NOW + HOUR_MS), abs=1e-6)
    assert changed[7] > later[7]
    assert np.array_equal(later, kept)


def test_a_video_that_comes_neither_trends_nor_makes_all_anew(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is shown, and both are what they would be made anew."""
    counts, server = tiny_run.counts, Trending(tiny_run.recommender, tiny_run.counts)
    before, popular = server.at(NOW), server.popular(NOW)
    new = len(before)
    counts.put_videos(np.array([new]), np.array([1]), Ragged.from_lists([[1]]))
    with monkeypatch.context() as patched:
        patched.setattr(type(counts), "shown", lambda *_: pytest.fail("all were made anew"))
        patched.setattr(type(counts), "positives", lambda *_: pytest.fail("all were made anew"))
        after, more = server.at(NOW), server.popular(NOW)
    np.testing.assert_array_equal(after, [*before, 0])
    np.testing.assert_array_equal(more, [*popular, 0])
    assert after == pytest.approx(expected(tiny_run, NOW), abs=1e-6)
    count(server, new, NOW - HOUR_MS, (1, 0, 0))
    assert server.at(NOW) == pytest.approx(expected(tiny_run, NOW), abs=1e-6)
    assert server.at(NOW)[new] != 0


def test_an_event_of_the_day_before_yesterday_is_not_of_the_last_24_hours(
    tiny_run: TinyRun,
) -> None:
    server = Trending(tiny_run.recommender, tiny_run.counts)
    server.at(NOW)
    for hours in (23, 24, 25, 48):
        count(server, 7, NOW - hours * HOUR_MS, (1, 0, 0))
        assert server.at(NOW) == pytest.approx(expected(tiny_run, NOW), abs=1e-6)


def test_what_is_popular_is_at_most_a_minute_old(tiny_run: TinyRun) -> None:
    server = Trending(tiny_run.recommender, tiny_run.counts)
    popular = server.popular(NOW)
    assert np.array_equal(popular, tiny_run.counts.positives(NOW))
    count(server, 7, NOW, (1, 0, 0))
    count(server, 7, NOW, (0, 1, 0))
    assert server.popular(NOW + 59_999) is popular
    later = server.popular(NOW + 60_000)
    assert (later - popular).tolist() == [float(row == 7) for row in range(NUM_VIDEOS + 1)]


def test_few_hours_are_held(tiny_run: TinyRun) -> None:
    """Those asked for last, however many different times requests name."""
    server = Trending(tiny_run.recommender, tiny_run.counts)
    first = server.at(NOW)
    for hour in range(1, HELD_HOURS):
        server.at(NOW + hour * HOUR_MS)
    assert server.at(NOW) is first
    for hour in range(1, HELD_HOURS + 1):
        server.at(NOW + hour * HOUR_MS)
    assert server.at(NOW) is not first


def test_a_model_without_weights_gains_nothing(tiny_run: TinyRun) -> None:
    tiny_run.recommender.trending.zero_()
    server = Trending(tiny_run.recommender, tiny_run.counts)
    count(server, 7, NOW, (1, 0, 0))
    assert server.at(NOW + HOUR_MS).tolist() == [0] * (NUM_VIDEOS + 1)


def test_counts_are_asked_what_has_changed_only_after_a_change(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by every request of a batch; and an event of this hour changes no gains."""
    asked: list[int] = []
    version = type(tiny_run.counts).version
    monkeypatch.setattr(
        type(tiny_run.counts), "version", lambda c, hour: asked.append(hour) or version(c, hour)
    )
    server = Trending(tiny_run.recommender, tiny_run.counts)
    first = server.at(NOW)
    assert server.at(NOW + 1) is first and len(asked) == 1
    count(server, 7, NOW + 5, (1, 0, 0))
    assert server.at(NOW) is first and server.at(NOW) is first and len(asked) == 2
    count(server, 7, NOW - 5 * HOUR_MS, (1, 0, 0))
    assert server.at(NOW)[7] > first[7]
    server.take_live(tiny_run.counts.without_live())
    assert server.at(NOW) == pytest.approx(first, abs=1e-6)
