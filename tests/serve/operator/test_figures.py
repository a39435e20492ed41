"""A replica's samples: what each few seconds were, by hand."""

import pytest

from recsys.serve.metrics import Metrics
from recsys.serve.operator.figures import EVERY_MS, KEPT, RunFigures, quantile_ms

BEGIN = 10**14
"""Long after now: a time that a test goes on from."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("r1")


def test_a_sample_is_of_what_came_since_the_one_before(metrics: Metrics) -> None:
    figures = RunFigures(metrics)
    metrics.known(10, 30)
    figures.tick("v1", BEGIN)
    for _ in range(10):
        metrics.request("/v1/recommend", 200, 0.0015)
    metrics.request("/v1/videos", 500, 4.0)  # slow, and no recommendation
    metrics.batch(4)
    metrics.batch(6)
    metrics.events({"accepted": 3, "duplicate": 9})
    metrics.log_lag(7, 1.5)
    figures.tick("v2", BEGIN + EVERY_MS - 1)  # not due yet
    figures.tick("v2", BEGIN + 2 * EVERY_MS)
    figures.tick("v2", BEGIN + 3 * EVERY_MS)
    first, second, third = figures.response("v2", 0).samples
    assert (first.version, first.users, first.videos, first.events) == ("v1", 10, 30, 0)
    assert second.time_ms == BEGIN + 2 * EVERY_MS
    assert second.requests_per_s == pytest.approx(1.1)  # eleven in ten seconds
    assert (second.errors, second.mean_batch, second.log_lag_events, second.events) == (1, 5, 7, 3)
    # All ten lie between 1 and 2 ms: half of them on the middle of the line between the two.
    assert second.p50_ms == pytest.approx(1.5)
    assert second.p99_ms == pytest.approx(1.99)
    assert (third.requests_per_s, third.errors, third.events) == (0, 0, 3)
    assert (third.p50_ms, third.p99_ms, third.mean_batch) == (None, None, None)
    assert second.memory_bytes is None or second.memory_bytes > 2**20


def test_only_the_last_samples_are_kept_and_only_new_ones_given(metrics: Metrics) -> None:
    figures = RunFigures(metrics)
    for n in range(KEPT + 2):
        figures.tick("v1", BEGIN + n * EVERY_MS)
    samples = figures.response("v1", 0).samples
    assert len(samples) == KEPT and samples[0].time_ms == BEGIN + 2 * EVERY_MS
    newest = figures.response("v1", BEGIN + KEPT * EVERY_MS).samples
    assert [one.time_ms for one in newest] == [BEGIN + (KEPT + 1) * EVERY_MS]


def test_quantiles_of_a_histogram() -> None:
    endless = float("inf")
    assert quantile_ms({0.01: 0, endless: 0}, 0.5) is None
    assert quantile_ms({}, 0.5) is None
    assert quantile_ms({0.01: 0, 0.03: 4, endless: 4}, 0.5) == pytest.approx(20)
    # What lies above the last bound is at least that.
    assert quantile_ms({0.01: 1, 0.03: 1, endless: 4}, 0.5) == pytest.approx(30)
