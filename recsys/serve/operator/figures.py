"""How one replica does: its figures of now, and those of the last half hour, a few seconds apart.

A replica keeps its own series, for as long as it runs; behind one address each request reaches
another replica, and whoever looks puts them together by their names.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass as plain
from dataclasses import field

from pydantic.dataclasses import dataclass

from recsys.live.clock import now
from recsys.serve.http.messages import Described
from recsys.serve.metrics import STEPS, Metrics

EVERY_MS = 5_000
"""Between two samples."""
KEPT = 360
"""Samples of a replica: half an hour."""
OF_THE_MODEL = frozenset({"/v1/recommend", "/v1/recommend/batch", "/v1/score"})
"""Routes whose latency is told: an upload takes as long as it takes."""


@dataclass(config=Described)
class RunSample:
    """A few seconds of a replica."""

    time_ms: int
    """Their end."""
    version: str
    requests_per_s: float
    errors: int
    """Answers with status 500 and above."""
    p50_ms: float | None
    """Half of the recommendations and scores took less; null without any."""
    p99_ms: float | None
    mean_batch: float | None
    """Requests that the model answered together; null without any."""
    log_lag_events: int
    memory_bytes: int | None
    """Resident; null where the system does not tell."""
    events: int
    """That were sent here and kept, since the replica started."""
    users: int
    """That the bundle knows by events."""
    videos: int
    """That may be recommended, with those that came live."""


@dataclass(config=Described)
class StepFigures:
    """One step of a recommendation, since the replica started."""

    step: str
    times: int
    """Micro-batches that went through it."""
    mean_ms: float | None


@dataclass(config=Described)
class RunResponse:
    """The answer of /v1/operator/run: how the replica does that answers."""

    replica: str
    started_ms: int
    version: str
    now_ms: int
    sample_ms: int
    """Between two samples."""
    requests: int
    """Since the replica started, as those below."""
    errors: int
    refused: int
    """For want of room."""
    degraded: int
    """Answers that were not all they might be."""
    unknown_users: int
    unknown_videos: int
    log_lag_seconds: float
    steps: list[StepFigures]
    samples: list[RunSample]
    """The oldest first."""


@plain
class Sums:
    """What a replica has counted since it started."""

    requests: int = 0
    errors: int = 0
    fast: dict[float, int] = field(default_factory=dict)
    """Upper bound of the latency in seconds → answers of the model within it."""
    batches: int = 0
    batched: int = 0

    @classmethod
    def of(cls, values: Values) -> Sums:
        """The sums among a replica's figures."""
        sums = cls(
            batches=int(values.total("recsys_batch_size_count")),
            batched=int(values.total("recsys_batch_size_sum")),
        )
        for labels, value in values.of("recsys_request_seconds_count"):
            sums.requests += int(value)
            sums.errors += int(value) if labels["status"] >= "500" else 0
        for labels, value in values.of("recsys_request_seconds_bucket"):
            if labels["route"] in OF_THE_MODEL:
                bound = float(labels["le"])
                sums.fast[bound] = sums.fast.get(bound, 0) + int(value)
        return sums


class Values:
    """A replica's figures as they are now."""

    def __init__(self, metrics: Metrics) -> None:
        self._of: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in metrics.collect():
            for sample in family.samples:
                self._of.setdefault(sample.name, []).append((sample.labels, sample.value))

    def of(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each figure of a name."""
        return self._of.get(name, [])

    def total(self, name: str, **labels: str) -> float:
        """The sum of the figures of a name that have some labels."""
        return sum(
            value
            for said, value in self.of(name)
            if all(said[key] == wanted for key, wanted in labels.items())
        )


class RunFigures:
    """Takes a replica's samples and gives them; any thread may call it.

    Args:
        metrics: Of the replica.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._samples: deque[RunSample] = deque(maxlen=KEPT)
        self._started_ms = self._last_ms = now()
        self._before = Sums()

    def tick(self, version: str, now_ms: int | None = None) -> None:
        """Takes a sample where one is due; costs nothing otherwise.

        Args:
            version: That serves.
            now_ms: The time; that of the clock without it.
        """
        now_ms = now() if now_ms is None else now_ms
        if now_ms - self._last_ms < EVERY_MS:
            return
        values = Values(self._metrics)
        sums = Sums.of(values)
        sample = _sample(self._before, sums, values, version, (self._last_ms, now_ms))
        with self._lock:
            self._samples.append(sample)
        self._before, self._last_ms = sums, now_ms

    def response(self, version: str, after_ms: int) -> RunResponse:
        """How the replica does, with the samples after a time."""
        values = Values(self._metrics)
        sums = Sums.of(values)
        with self._lock:
            samples = [one for one in self._samples if one.time_ms > after_ms]
        return RunResponse(
            replica=self._metrics.replica,
            started_ms=self._started_ms,
            version=version,
            now_ms=now(),
            sample_ms=EVERY_MS,
            requests=sums.requests,
            errors=sums.errors,
            refused=int(values.total("recsys_refused_total")),
            degraded=int(values.total("recsys_degraded_total")),
            unknown_users=int(values.total("recsys_unknown_ids_total", kind="user")),
            unknown_videos=int(values.total("recsys_unknown_ids_total", kind="video")),
            log_lag_seconds=values.total("recsys_log_lag_seconds"),
            steps=[_step(values, step) for step in STEPS],
            samples=samples,
        )


def _sample(
    before: Sums, sums: Sums, values: Values, version: str, between_ms: tuple[int, int]
) -> RunSample:
    begun_ms, now_ms = between_ms
    batches = sums.batches - before.batches
    fast = {bound: count - before.fast.get(bound, 0) for bound, count in sums.fast.items()}
    return RunSample(
        time_ms=now_ms,
        version=version,
        requests_per_s=1000 * (sums.requests - before.requests) / (now_ms - begun_ms),
        errors=sums.errors - before.errors,
        p50_ms=quantile_ms(fast, 0.5),
        p99_ms=quantile_ms(fast, 0.99),
        mean_batch=(sums.batched - before.batched) / batches if batches else None,
        log_lag_events=int(values.total("recsys_log_lag_events")),
        memory_bytes=_resident_bytes(),
        events=int(values.total("recsys_events_total", status="accepted")),
        users=int(values.total("recsys_known", kind="user")),
        videos=int(values.total("recsys_known", kind="video")),
    )


def quantile_ms(counts: Mapping[float, int], share: float) -> float | None:
    """A quantile of a histogram, on the line between the two bounds that it lies between.

    Args:
        counts: Upper bound in seconds → how many are not above it; the last bound is infinite.
        share: Of the quantile.

    Returns:
        Milliseconds, the last finite bound for what lies above it; None of an empty histogram.

    >>> quantile_ms({0.01: 5, 0.02: 10, float("inf"): 10}, 0.75)
    15.0
    """
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return None
    wanted, low, below = share * counts[bounds[-1]], 0.0, 0
    for bound in bounds:
        if counts[bound] >= wanted and bound != float("inf"):
            part = (wanted - below) / (counts[bound] - below)
            return 1000 * (low + (bound - low) * part)
        if bound != float("inf"):
            low, below = bound, counts[bound]
    return 1000 * low


def _step(values: Values, step: str) -> StepFigures:
    times = int(values.total("recsys_step_seconds_count", step=step))
    seconds = values.total("recsys_step_seconds_sum", step=step)
    return StepFigures(step, times, 1000 * seconds / times if times else None)


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # another system than Linux
        return None
