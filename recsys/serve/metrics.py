"""The figures of one replica, for Prometheus.

Each replica keeps its own and `/metrics` gives those of the replica that happens to answer, under
the label `replica`. `serve/ray_metrics.py` gives those of all replicas through Ray. No label has a
value that a caller chooses, so the number of series is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from recsys.live.videos.encoding_queue import VideoCounts
from recsys.serve.retrieve.monitor import SearchShape

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the latency buckets."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets of requests that the model answers together."""
STEPS = ("follow", "read", "retrieve", "rank", "rerank", "answer")
"""What a recommendation goes through."""
UNKNOWN = ("user", "video")
WORK = ("batch", "encoder", "figures", "index", "lists", "request", "versions", "videos")
"""What the server goes on with after a failure: a micro-batch, whose requests are then answered one
by one, a request of another kind, which is refused or answered by what stands in for it, and what
is done between requests: making the vectors of new videos, telling others of this
replica, comparing the index with an exact search, keeping the lists ready that stand in for others,
looking which version is to be served, and looking what became of new videos."""
FAILURES = ("recsys_failures", "Work that failed and that the server goes on with.")
"""Name and description of what counts them."""
LEFT = 499
"""What a request is counted under whose client left before the answer, as proxies do."""
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """What one replica counts and measures."""

    def __init__(self, replica: str) -> None:
        """Begins with nothing counted.

        Args:
            replica: Name of the replica, the value of the label.
        """
        self.replica = replica
        self._registry = CollectorRegistry()
        self._of_requests()
        self._of_answers()
        self._of_state()

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: The route's own text, with its parameters unfilled.
            status: Of HTTP; 0 if the client left before.
            seconds: From its arrival to the end of the answer.
        """
        self._requests.labels(route, str(status or LEFT)).observe(seconds)

    def inside(self, requests: int) -> None:
        """So many requests are being answered now."""
        self._inside.set(requests)

    def refused(self, reason: str) -> None:
        """A request was refused for want of room; `reason` is one of a few words of the code's."""
        self._refused.labels(reason).inc()

    def degraded(self, kind: str, cause: str) -> None:
        """An answer was not all it might be; see `asks.Degraded`."""
        self._degraded.labels(kind, cause).inc()

    def failed(self, work: str) -> None:
        """Something failed that the server goes on with; `work` is one of `WORK`."""
        self._failures[work].inc()

    def step(self, name: str, seconds: float) -> None:
        """One of `STEPS` took so long, for one micro-batch."""
        self._steps[name].observe(seconds)

    def batch(self, requests: int) -> None:
        """The model answered so many requests together."""
        self._batch.observe(requests)

    def unknown(self, kind: str, number: int = 1) -> None:
        """So many ids were asked for that nothing is known of; `kind` is one of `UNKNOWN`."""
        self._unknown[kind].inc(number)

    def propensities_left_out(self, videos: int) -> None:
        """So many videos were tried out whose propensity could not be recorded."""
        self._propensities_left_out.inc(videos)

    def events(self, statuses: Mapping[str, int]) -> None:
        """Events were sent: how many were accepted, duplicate, conflict or forgotten."""
        for status, number in statuses.items():
            self._events.labels(status).inc(number)

    def log_lag(self, events: int, seconds: float) -> None:
        """How far this replica is behind the event log: events, and age of the oldest of them."""
        self._lag_events.set(events)
        self._lag_seconds.set(seconds)

    def waiting(self, events: int) -> None:
        """Events of videos that the bundle does not hold, so that nothing counts them yet."""
        self._waiting_events.set(events)

    def log_failed(self) -> None:
        """The event log was looked at and could not be read."""
        self._log_failures.inc()

    def model(self, version: str, created_s: float) -> None:
        """The bundle that is served from now on, and when it was made (Unix seconds)."""
        self._version.clear()
        self._version.labels(version).set(1)
        self._age.set_function(lambda: max(0.0, time.time() - created_s))

    def version_swapped(self) -> None:
        """Another version serves from now on."""
        self._swaps.inc()

    def version_refused(self) -> None:
        """A version was looked at and is not served."""
        self._refused_versions.inc()

    def index(self, videos: int, recall: float | None) -> None:
        """The index's size, and its recall@100 against exact search where it was measured."""
        self._index_size.set(videos)
        self._index_recall.set(float("nan") if recall is None else recall)

    def index_online(self, recalls: Mapping[SearchShape, float], left_out: int) -> None:
        """The index's recall by the shape of a search, and sampled searches not looked at."""
        self._index_online.clear()  # of the version before, perhaps
        for shape, recall in recalls.items():
            self._index_online.labels(shape).set(recall)
        self._index_left_out.set(left_out)

    def challenger_index(self, recalls: Mapping[SearchShape, float]) -> None:
        """The same of the version that is tried beside; empty without one."""
        self._challenger_index.clear()
        for shape, recall in recalls.items():
            self._challenger_index.labels(shape).set(recall)

    def known(self, users: int, videos: int) -> None:
        """So many users are known, and so many videos may be listed, live ones among them."""
        self._known.labels("user").set(users)
        self._known.labels("video").set(videos)

    def live_videos(self, counts: VideoCounts, version: str) -> None:
        """So many videos came live; of the version that serves some may lack a vector."""
        self._live_videos.clear()
        for state, number in counts.states.items():
            self._live_videos.labels(state).set(number)
        self._refused_videos.clear()
        for reason, number in counts.refused.items():
            self._refused_videos.labels(reason).set(number)
        self._videos_not_encoded.set(counts.not_encoded.get(version, 0))

    def cache(self, name: str, entries: int) -> None:
        """So many entries are in a cache; `name` is one of a few words of the code's."""
        self._caches.labels(name).set(entries)

    def text(self) -> bytes:
        """All figures in Prometheus's text format; its type is `MEDIA_TYPE`."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The figures, with the label of the replica put on only when they are read."""
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, "replica": self.replica})
                for sample in family.samples
                if not sample.name.endswith("_created")  # of no use, and doubles what is sent
            ]
            yield family

    def _of_requests(self) -> None:
        here = self._registry
        self._requests = Histogram(
            "recsys_request_seconds",
            "Time from a request's arrival to the end of its answer.",
            ("route", "status"),
            buckets=SECONDS,
            registry=here,
        )
        self._inside = Gauge("recsys_requests_inside", "Requests being answered.", registry=here)
        self._refused = Counter(
            "recsys_refused", "Requests refused for want of room.", ("reason",), registry=here
        )
        self._degraded = Counter(
            "recsys_degraded",
            "Answers that were not all they might be.",
            ("kind", "cause"),
            registry=here,
        )

    def _of_answers(self) -> None:
        here = self._registry
        steps = Histogram(
            "recsys_step_seconds",
            "Time of one step of a recommendation, for one micro-batch.",
            ("step",),
            buckets=SECONDS,
            registry=here,
        )
        self._steps = {name: steps.labels(name) for name in STEPS}
        self._batch = Histogram(
            "recsys_batch_size",
            "Requests that the model answered together.",
            buckets=BATCHES,
            registry=here,
        )
        unknown = Counter("recsys_unknown_ids", "Ids that are not known.", ("kind",), registry=here)
        self._unknown = {kind: unknown.labels(kind) for kind in UNKNOWN}
        self._events = Counter("recsys_events", "Events sent.", ("status",), registry=here)
        self._propensities_left_out = Counter(
            "recsys_propensities_left_out",
            "Videos tried out without a record of how likely that was.",
            registry=here,
        )
        failures = Counter(*FAILURES, ("work",), registry=here)
        self._failures = {work: failures.labels(work) for work in WORK}
        self._log_failures = Counter(
            "recsys_log_failures", "Looks at the event log that failed.", registry=here
        )

    def _of_state(self) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"recsys_{name}", text, labels, registry=self._registry)

        self._lag_events = gauge("log_lag_events", "Events of the log not followed yet.")
        self._lag_seconds = gauge("log_lag_seconds", "Age of the oldest event not followed yet.")
        self._waiting_events = gauge(
            "log_events_waiting", "Followed events of videos that this version does not know."
        )
        self._version = gauge("model_info", "The bundle that is served.", "version")
        self._swaps = Counter(
            "recsys_version_swaps", "Versions that took over.", registry=self._registry
        )
        self._refused_versions = Counter(
            "recsys_versions_refused", "Versions that are not served.", registry=self._registry
        )
        self._age = gauge("model_age_seconds", "Time since the bundle was made.")
        self._index_size = gauge("index_videos", "Videos in the index.")
        self._index_recall = gauge("index_recall", "Recall@100 of the index; NaN: not measured.")
        self._index_online = gauge(
            "index_online_recall", "Recall@100 of the index in searches of now.", "shape"
        )
        self._challenger_index = gauge(
            "challenger_index_recall", "The same of the version that is tried beside.", "shape"
        )
        self._index_left_out = gauge(
            "index_searches_left_out", "Sampled searches that were not made again."
        )
        self._known = gauge("known", "Users and videos that are known.", "kind")
        self._live_videos = gauge("live_videos", "Videos that came live.", "state")
        self._refused_videos = gauge("live_videos_refused", "Videos that were refused.", "reason")
        self._videos_not_encoded = gauge(
            "live_videos_not_encoded",
            "Videos that could not be encoded for the version that serves.",
        )
        self._caches = gauge("cache_entries", "Entries of a cache.", "cache")
