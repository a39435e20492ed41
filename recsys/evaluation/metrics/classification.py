"""How good the ranking head's probabilities are: AUC, log loss and calibration of each task.

Shapes: E events, U users, G groups of events with one and the same logit, in rising order, R
resamplings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.evaluation.metrics.bootstrap import draws, interval

CALIBRATION_BINS = 15


_Part = tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]
"""Labels, logits, cold videos and users of a chunk of events."""


class Bin(TypedDict):
    """Events of about one predicted probability."""

    events: int
    predicted: float
    observed: float


class EventFigures(TypedDict):
    """Figures of a set of events; those that are not defined are None, or left out."""

    events: int
    auc: float | None
    log_loss: float | None
    normalised_entropy: NotRequired[float | None]
    """The log loss over that of always saying the base rate: under 1 is better."""
    observed_rate: NotRequired[float]
    predicted_rate: NotRequired[float]
    calibration_error: NotRequired[float]
    calibration: NotRequired[list[Bin]]
    ci: NotRequired[dict[str, list[float] | None]]
    """95 % intervals by figure."""


class TaskFigures(EventFigures):
    """Figures of all events of a task, and of those of warm and of cold videos."""

    warm: NotRequired[EventFigures]
    cold: NotRequired[EventFigures]


@dataclass
class TaskMeter:
    """Gathers one task's labels and logits chunk by chunk.

    All of them are kept, 14 bytes an event, since an AUC of binned scores is not exact.
    """

    _parts: list[_Part] = field(default_factory=list)

    def add(
        self,
        labels: ArrayLike,
        logits: ArrayLike,
        cold: ArrayLike,
        users: ArrayLike | None = None,
    ) -> None:
        """Adds events.

        Args:
            labels: 0 or 1 of each event.
            logits: The head's output before the sigmoid.
            cold: Whether the event's video has no training event.
            users: A number of the event's user, for the intervals; without it they draw events,
                which makes them too narrow where users have many.

        Raises:
            ValueError: A label is neither 0 nor 1, or a logit is not finite.
        """
        labels, logits = np.asarray(labels), np.asarray(logits, np.float32)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("a label is neither 0 nor 1")
        if not np.isfinite(logits).all():
            raise ValueError("a logit is not finite")
        if users is None:
            begin = sum(len(part[0]) for part in self._parts)
            users = np.arange(begin, begin + len(labels))
        rest = np.asarray(cold, np.bool_), np.asarray(users, np.int64)
        self._parts.append((labels.astype(np.int8), logits, *rest))

    def result(self, *, bootstrap: int = 0, seed: int = 0) -> TaskFigures:
        """The figures of all events that were added.

        Args:
            bootstrap: Resamplings of users behind the intervals under `ci`; 0 leaves them out.
            seed: Of the resamplings.
        """
        if not self._parts:
            return {"events": 0, "auc": None, "log_loss": None}
        labels, logits, cold, users = (
            np.concatenate(part) for part in zip(*self._parts, strict=True)
        )

        def of(at: NDArray[np.bool_]) -> EventFigures:
            figures = task_metrics(labels[at], logits[at])
            if bootstrap and figures["auc"] is not None:
                samples = resampled(labels[at], logits[at], users[at], count=bootstrap, seed=seed)
                figures["ci"] = {metric: interval(values) for metric, values in samples.items()}
            return figures

        return {**of(np.ones_like(cold)), "warm": of(~cold), "cold": of(cold)}


def resampled(
    labels_E: NDArray[np.number],
    logits_E: NDArray[np.floating],
    users_E: NDArray[np.int64],
    *,
    count: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """AUC, log loss and calibration error with users drawn anew `count` times."""
    order = np.argsort(logits_E, kind="stable")
    labels, logits = labels_E[order].astype(np.float64), logits_E[order].astype(np.float64)
    first, losses = _group_starts(logits), np.logaddexp(0, logits) - labels * logits
    probabilities = _probabilities(logits)
    bins, excess = _bin_starts(probabilities), probabilities - labels
    names, user = np.unique(users_E[order], return_inverse=True)
    samples: dict[str, list[float]] = {"auc": [], "log_loss": [], "calibration_error": []}
    for drawn_RU in draws(len(names), count=count, seed=seed):
        for drawn_U in drawn_RU:
            weight = drawn_U[user]
            positives = np.add.reduceat(weight * labels, first)
            value = _auc_of_groups(positives, np.add.reduceat(weight, first) - positives)
            samples["auc"].append(np.nan if value is None else value)
            samples["log_loss"].append(float(weight @ losses / weight.sum()))
            gaps = np.abs(np.add.reduceat(weight * excess, bins))
            samples["calibration_error"].append(float(gaps.sum() / weight.sum()))
    return {name: np.array(values) for name, values in samples.items()}


def task_metrics(labels_E: NDArray[np.number], logits_E: NDArray[np.floating]) -> EventFigures:
    """Figures of one set of events; a figure that is not defined is None.

    `normalised_entropy` is the log loss over that of always saying the base rate (X. He et al.,
    "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014): under 1 is better.
    """
    if not len(labels_E):
        return {"events": 0, "auc": None, "log_loss": None}
    order = np.argsort(logits_E, kind="stable")
    labels, logits = labels_E[order].astype(np.float64), logits_E[order].astype(np.float64)
    rate = labels.mean()
    loss = (np.logaddexp(0, logits) - labels * logits).mean()
    entropy = -sum(p * np.log(p) for p in (rate, 1 - rate) if p > 0)
    probability = _probabilities(logits)
    bins = calibration(labels, probability)
    gap = sum(b["events"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(labels)
    return {
        "events": len(labels),
        "auc": auc(labels, logits),
        "log_loss": float(loss),
        "normalised_entropy": float(loss / entropy) if entropy else None,
        "observed_rate": float(rate),
        "predicted_rate": float(probability.mean()),
        "calibration_error": float(gap),
        "calibration": bins,
    }


def auc(labels_E: ArrayLike, scores_E: ArrayLike) -> float | None:
    """Chance that a positive event scores above a negative one; an equal score counts half.

    None where there is no positive or no negative event.

    >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    labels, scores = np.asarray(labels_E, np.float64), np.asarray(scores_E)
    if not len(labels):
        return None
    order = np.argsort(scores, kind="stable")
    first = _group_starts(scores[order])
    positives_G = np.add.reduceat(labels[order], first)
    return _auc_of_groups(positives_G, np.diff(np.append(first, len(labels))) - positives_G)


def auc_by_user(
    labels_E: ArrayLike, scores_E: ArrayLike, user_E: NDArray[np.int64], num_users: int
) -> NDArray[np.float64] | None:
    """What each user's events make of the AUC (U): values whose mean is the AUC.

    The structural components of E. DeLong et al. (1988), summed over each user's events as by
    N. Obuchowski ("Nonparametric analysis of clustered ROC curve data", 1997), so that an AUC can
    be compared as any mean over users is. None where the AUC is not defined.

    >>> auc_by_user([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8], np.array([0, 0, 1, 1]), 2).tolist()
    [0.875, 0.875]
    """
    labels, scores = np.asarray(labels_E, np.float64), np.asarray(scores_E)
    whole = auc(labels, scores)
    if whole is None:
        return None
    order = np.argsort(scores, kind="stable")
    first = _group_starts(scores[order])
    sizes = np.diff(np.append(first, len(labels)))
    positives_G = np.add.reduceat(labels[order], first)
    negatives_G = sizes - positives_G
    num_positives, num_negatives = positives_G.sum(), negatives_G.sum()
    # The share of the other kind that each event is on the right side of.
    of_positive_G = (negatives_G.cumsum() - negatives_G / 2) / num_negatives - whole
    of_negative_G = 1 - (positives_G.cumsum() - positives_G / 2) / num_positives - whole
    part_E = np.where(
        labels[order] > 0,
        np.repeat(of_positive_G, sizes) / num_positives,
        np.repeat(of_negative_G, sizes) / num_negatives,
    )
    by_user = np.bincount(user_E[order], part_E, num_users)
    return np.asarray(whole + num_users * by_user, np.float64)


def _group_starts(rising_E: NDArray[np.number]) -> NDArray[np.int64]:
    return np.flatnonzero(np.concatenate([[True], rising_E[1:] != rising_E[:-1]]))


def _auc_of_groups(
    positives_G: NDArray[np.number], negatives_G: NDArray[np.number]
) -> float | None:
    pairs = positives_G.sum() * negatives_G.sum()
    if not pairs:
        return None
    below_G = negatives_G.cumsum() - negatives_G
    return float((positives_G * (below_G + negatives_G / 2)).sum() / pairs)


def calibration(labels_E: NDArray[np.float64], probabilities_E: NDArray[np.float64]) -> list[Bin]:
    """Mean prediction and observed rate in bins of about equally many events.

    Args:
        labels_E: Labels in order of rising probability.
        probabilities_E: Rising; events with one and the same probability share a bin.
    """
    starts = _bin_starts(probabilities_E)
    stops = np.append(starts[1:], len(labels_E))
    return [
        {
            "events": int(stop - start),
            "predicted": float(probabilities_E[start:stop].mean()),
            "observed": float(labels_E[start:stop].mean()),
        }
        for start, stop in zip(starts, stops, strict=True)
    ]


def _bin_starts(rising_E: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.linspace(0, len(rising_E), CALIBRATION_BINS + 1).round().astype(np.int64)[1:-1]
    starts = np.searchsorted(rising_E, rising_E[edges[edges < len(rising_E)]])
    return np.unique(np.concatenate([[0], starts]))


def _probabilities(logits_E: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits_E))
    return probabilities
