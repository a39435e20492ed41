"""How good the ranking head's probabilities are: AUC, log loss and calibration of each task.

Shapes: E events, G groups of events with one and the same logit, in rising order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALIBRATION_BINS = 15


@dataclass
class TaskMeter:
    """Gathers one task's labels and logits chunk by chunk.

    All of them are kept, 10 bytes an event, since an AUC of binned scores is not exact.
    """

    _labels: list[NDArray[np.int8]] = field(default_factory=list)
    _logits: list[NDArray[np.float32]] = field(default_factory=list)
    _cold: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, labels: ArrayLike, logits: ArrayLike, cold: ArrayLike) -> None:
        """Adds events.

        Args:
            labels: 0 or 1 of each event.
            logits: The head's output before the sigmoid.
            cold: Whether the event's video has no training event.

        Raises:
            ValueError: A label is neither 0 nor 1, or a logit is NaN.
        """
        labels = np.asarray(labels)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("a label is neither 0 nor 1")
        logits = np.asarray(logits, np.float32)
        if np.isnan(logits).any():
            raise ValueError("a logit is NaN")
        self._labels.append(labels.astype(np.int8))
        self._logits.append(logits)
        self._cold.append(np.asarray(cold, np.bool_))

    def result(self) -> dict[str, Any]:
        """`auc`, `log_loss`, … of all events, and the same under `warm` and `cold`."""
        labels, logits, cold = (
            np.concatenate(parts or [np.empty(0)])
            for parts in (self._labels, self._logits, self._cold)
        )
        cold = cold.astype(np.bool_)
        warm = np.logical_not(cold)
        whole = task_metrics(labels, logits)
        slices = {"warm": warm, "cold": cold}
        return whole | {name: task_metrics(labels[at], logits[at]) for name, at in slices.items()}


def task_metrics(labels_E: NDArray[Any], logits_E: NDArray[Any]) -> dict[str, Any]:
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
    probability = np.exp(-np.logaddexp(0, -logits))
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
    order = np.argsort(scores, kind="stable")
    labels, scores = labels[order], scores[order]
    first = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    positives_G = np.add.reduceat(labels, first) if len(labels) else labels
    negatives_G = np.diff(np.append(first, len(labels))) - positives_G
    pairs = positives_G.sum() * negatives_G.sum()
    if not pairs:
        return None
    below_G = negatives_G.cumsum() - negatives_G
    return float((positives_G * (below_G + negatives_G / 2)).sum() / pairs)


def calibration(
    labels_E: NDArray[np.float64], probabilities_E: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Mean prediction and observed rate in bins of about equally many events.

    Args:
        labels_E: Labels in order of rising probability.
        probabilities_E: Rising; events with one and the same probability share a bin.
    """
    edges = np.linspace(0, len(labels_E), CALIBRATION_BINS + 1).round().astype(np.int64)[1:-1]
    starts = np.searchsorted(probabilities_E, probabilities_E[edges[edges < len(labels_E)]])
    starts = np.unique(np.concatenate([[0], starts]))
    stops = np.append(starts[1:], len(labels_E))
    return [
        {
            "events": int(stop - start),
            "predicted": float(probabilities_E[start:stop].mean()),
            "observed": float(labels_E[start:stop].mean()),
        }
        for start, stop in zip(starts, stops, strict=True)
    ]
