"""What report.json of an evaluation holds, for those who write it and those who read it.

The types are those of the JSON tree itself, so that a report that was read from a file is the same
as one that was just made. Keys that depend on the metrics' table (`ndcg@10`) cannot be listed here;
the mappings that have them are `Figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from recsys.evaluation.baselines.table import MadeWith

Figures = Mapping[str, Any]
"""Figures by name, with their intervals under `ci`: `report.figures.summarise` says which a ranker
has, `TaskMeter.result` which a task, `report.tradeoff.tradeoff` which the curve."""


class Comparison(TypedDict):
    """One metric of our ranker beside another's, on the users that both are measured on."""

    metric: str
    users: int
    ours: float
    theirs: float
    difference: float
    low: float | None
    """Ends of the difference's 95 % interval; None where nothing was resampled."""
    high: float | None


class Difference(Comparison):
    """A comparison with its test."""

    p: float
    """Of the sign-flip test."""


class Tested(Difference):
    """A comparison whose test counts."""

    p_holm: float
    """Corrected for the number of tests."""


class Shown(Comparison):
    """A comparison that is shown and not tested."""

    p: None
    p_holm: None


class Finding(TypedDict):
    """Something that a launch must know of."""

    level: str
    """`good`, `warn` or `info`."""
    text: str


class BaselineDecision(TypedDict):
    """Whether the model is better than every baseline."""

    decision: str
    """`better`, `worse` or `unclear`."""
    headline: str
    evidence: str


class Verdict(BaselineDecision):
    """The decision with the findings."""

    findings: list[Finding]


class Previous(TypedDict):
    """The bundle that the model is to replace."""

    version: str
    created: str
    same_split: bool


class Drawn(TypedDict):
    """A random part of the users with an event in the test."""

    users: int
    of: int


class Circumstances(TypedDict):
    """What an evaluation of a run says of how it was measured, beside its settings."""

    split: NotRequired[str]
    drawn: NotRequired[Drawn]
    """Who was measured, where it is not everybody."""
    previous: NotRequired[Previous]
    baselines: NotRequired[MadeWith]


class Setup(Circumstances):
    """How it was measured."""

    users: int
    videos: int
    cold_videos: int
    relevant: int
    k: list[int]
    headline_k: int
    metric: str
    """The metric that the verdict goes by."""
    mask_history: bool
    bootstrap: int
    seed: int


class Against(TypedDict):
    """Another run beside this one."""

    run: str
    rows: Sequence[Tested | Shown]


class Measured(TypedDict):
    """All figures, which the verdict is made of."""

    setup: Setup
    evaluation: Mapping[str, Figures]
    """Of each ranker."""
    comparisons: Mapping[str, Sequence[Tested]]
    """The model beside each of the others."""
    tradeoff: Figures | None
    """None where no curve was drawn."""


class Report(Measured):
    """The whole evaluation."""

    verdict: Verdict
    training: NotRequired[Sequence[Figures]]
    """A row an epoch."""
    against: NotRequired[Against]
