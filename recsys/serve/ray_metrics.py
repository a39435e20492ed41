"""A replica's figures through Ray's own export, where those of all replicas stand together.

Ray gathers what each of its workers reports and every node gives it to Prometheus, whichever
replica its HTTP proxy would have picked.
"""

from __future__ import annotations

import math

from ray.util.metrics import Gauge

from recsys.serve.metrics import FAILURES, Metrics


class RayFailures:
    """Counts the failures of a worker that has no other figures, beside those of the replicas.

    Args:
        work: What it does, one of `WORK`.
        replica: Its name.
    """

    def __init__(self, work: str, replica: str) -> None:
        self._labels = {"work": work, "replica": replica}
        self._number = 0
        name, description = FAILURES
        self._gauge = Gauge(f"{name}_total", description, tuple(self._labels))
        self._gauge.set(0, self._labels)

    def __call__(self) -> None:
        """Something failed."""
        self._number += 1
        self._gauge.set(self._number, self._labels)


class RayMetrics:
    """Reports a replica's figures to Ray each time that it is asked to.

    Ray's own counters cannot be set, and a histogram's buckets are counts too. So every series goes
    out as a gauge; Prometheus's `rate` and `histogram_quantile` do not mind.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Of the figures of one replica."""
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}

    def report(self) -> int:
        """Reports all figures as they are now, and gives their number; once in 10 s will do."""
        number = 0
        for family in self._metrics.collect():
            for sample in family.samples:
                if math.isnan(sample.value):  # not measured
                    continue
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = Gauge(sample.name, family.documentation, tuple(sample.labels))
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
                number += 1
        return number
