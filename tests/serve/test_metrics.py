"""The figures of one replica."""

import math
import re

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from recsys.serve import metrics as module
from recsys.serve import ray_metrics
from recsys.serve.metrics import Metrics
from recsys.serve.ray_metrics import RayFailures, RayMetrics
from recsys.serve.service import Service


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """By the name and the labels' values in the order of their names, but for the replica's."""
    figures = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("replica") == "r1"
            key = (sample.name, *(labels[name] for name in sorted(labels)))
            assert key not in figures
            figures[key] = sample.value
    return figures


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("r1")


def test_requests(metrics: Metrics) -> None:
    metrics.request("/v1/score", 200, 0.003)
    metrics.request("/v1/score", 200, 0.3)
    metrics.request("/v1/score", 503, 0.0001)
    metrics.request("none", 0, 9.0)
    figures = values(metrics)
    name = "recsys_request_seconds"
    assert figures[f"{name}_count", "/v1/score", "200"] == 2
    assert figures[f"{name}_sum", "/v1/score", "200"] == pytest.approx(0.303)
    # In the order of label names: le, route, status.
    assert figures[f"{name}_bucket", "0.002", "/v1/score", "200"] == 0
    assert figures[f"{name}_bucket", "0.005", "/v1/score", "200"] == 1
    assert figures[f"{name}_bucket", "0.5", "/v1/score", "200"] == 2
    assert figures[f"{name}_bucket", "0.001", "/v1/score", "503"] == 1
    assert figures[f"{name}_bucket", "5.0", "none", "499"] == 0
    assert figures[f"{name}_bucket", "+Inf", "none", "499"] == 1


def test_what_is_counted(metrics: Metrics) -> None:
    metrics.events({"accepted": 3, "duplicate": 1})
    metrics.events({"accepted": 2})
    metrics.unknown("video", 4)
    metrics.unknown("user")
    metrics.refused("overload")
    metrics.degraded("popular", "late")
    metrics.log_failed()
    metrics.failed("index")
    metrics.step("rank", 0.004)
    metrics.batch(3)
    figures = values(metrics)
    assert figures["recsys_events_total", "accepted"] == 5
    assert figures["recsys_events_total", "duplicate"] == 1
    assert figures["recsys_unknown_ids_total", "video"] == 4
    assert figures["recsys_unknown_ids_total", "user"] == 1
    assert figures["recsys_refused_total", "overload"] == 1
    assert figures["recsys_degraded_total", "late", "popular"] == 1
    assert figures["recsys_log_failures_total",] == 1
    failures = {work: figures["recsys_failures_total", work] for work in module.WORK}
    assert failures == {**dict.fromkeys(module.WORK, 0), "index": 1}
    assert figures["recsys_step_seconds_count", "rank"] == 1
    assert figures["recsys_step_seconds_count", "read"] == 0
    assert figures["recsys_batch_size_bucket", "2.0"] == 0
    assert figures["recsys_batch_size_bucket", "4.0"] == 1


def test_what_is_the_case_now(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time", lambda: 1_000.0)
    metrics.inside(7)
    metrics.log_lag(12, 0.5)
    metrics.waiting(3)
    metrics.known(users=24_000, videos=7_583)
    metrics.cache("histories", 9)
    metrics.index(7_583, 0.97)
    metrics.model("v1", 400.0)
    metrics.model("v2", 900.0)
    figures = values(metrics)
    assert figures["recsys_requests_inside",] == 7
    assert (figures["recsys_log_lag_events",], figures["recsys_log_lag_seconds",]) == (12, 0.5)
    assert figures["recsys_log_events_waiting",] == 3
    assert (figures["recsys_known", "user"], figures["recsys_known", "video"]) == (24_000, 7_583)
    assert figures["recsys_cache_entries", "histories"] == 9
    assert (figures["recsys_index_videos",], figures["recsys_index_recall",]) == (7_583, 0.97)
    assert figures["recsys_model_age_seconds",] == 100
    assert figures["recsys_model_info", "v2"] == 1
    assert ("recsys_model_info", "v1") not in figures
    metrics.index(10, None)
    assert math.isnan(values(metrics)["recsys_index_recall",])


def test_two_replicas_are_told_apart() -> None:
    one, two = Metrics("r1"), Metrics("r2")
    one.inside(1)
    assert 'recsys_requests_inside{replica="r1"} 1.0' in one.text().decode()
    assert 'recsys_requests_inside{replica="r2"} 0.0' in two.text().decode()
    assert "_created" not in one.text().decode()


class FakeGauge:
    """What Ray would be told."""

    told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self._name, self._keys = name, set(tag_keys)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == self._keys
        self.told[self._name, tuple(sorted(tags.items()))] = value


def test_the_same_through_ray(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_metrics, "Gauge", FakeGauge)
    reporter = RayMetrics(metrics)
    metrics.index(5, None)
    metrics.events({"accepted": 3})
    reporter.report()
    metrics.events({"accepted": 1})
    number = reporter.report()
    told = FakeGauge.told
    assert len(told) == number == len(values(metrics)) - 1  # the recall was not measured
    labels = (("replica", "r1"), ("status", "accepted"))
    assert told["recsys_events_total", labels] == 4
    assert ("recsys_index_recall", (("replica", "r1"),)) not in told


def test_an_encoders_failures_stand_beside_those_of_replicas(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_metrics, "Gauge", FakeGauge)
    monkeypatch.setattr(FakeGauge, "told", {})
    RayMetrics(metrics).report()
    failed = RayFailures("encoder", "e1")
    name, labels = "recsys_failures_total", (("replica", "e1"), ("work", "encoder"))
    assert FakeGauge.told[name, labels] == 0
    failed()
    failed()
    assert FakeGauge.told[name, labels] == 2
    assert FakeGauge.told[name, (("replica", "r1"), ("work", "encoder"))] == 0


@pytest.mark.parametrize(
    ("work", "does", "said"),
    [
        ("lists", "_keep_ready", "the lists for everybody could not be made anew"),
        ("figures", "_tell", "what is told of this replica is not up to date"),
    ],
)
def test_what_fails_beside_requests_is_counted_and_they_are_answered(
    client: TestClient,
    service: Service,
    work: str,
    does: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, does, lambda: 1 / 0)
    for _ in range(2):
        assert client.post("/v1/recommend", json={"user_id": "u9"}).status_code == 200
    service._batches.close()  # nothing counts any more
    service._idle()
    assert said in caplog.text
    figures = client.get("/metrics").text
    counted = re.search(rf'recsys_failures_total{{replica="0",work="{work}"}} (\d+)', figures)
    assert counted is not None and int(counted[1]) >= 3
