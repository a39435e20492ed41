"""Whether a new model may take the place of the one that serves: a paired test over users.

Shapes: U users who count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.metrics.bootstrap import sign_flip_test


@dataclass(frozen=True)
class Judgement:
    """A new model beside the one that serves, on the users that both are measured on."""

    metric: str
    users: int
    ours: float
    """Mean of the new model."""
    theirs: float
    """Mean of the model that serves."""
    allowed: float
    """How far the new mean may lie below the old one, in the metric's own unit."""
    p: float
    """Chance of so good a new model if it were worse by all that is allowed (one-sided)."""
    passed: bool

    def __str__(self) -> str:
        """The figures in one line, for people."""
        return (
            f"{self.metric} {self.ours:.4f} against {self.theirs:.4f} of {self.users:,} users, "
            f"p {self.p:.3g} of a loss above {self.allowed:.4f}"
        )


def judge(
    metric: str,
    ours_U: NDArray[np.float64],
    theirs_U: NDArray[np.float64],
    *,
    allowed_loss: float,
    confidence: float,
    seed: int = 0,
) -> Judgement:
    """Tests whether a model is not worse than another by more than is allowed.

    The burden of proof is the new model's (a test of non-inferiority): it passes where the mean of
    the users' differences, with the allowed loss added, is above 0 by more than chance explains.
    With `allowed_loss=0` only a proven gain passes.

    >>> better, served = np.array([0.6] * 10), np.array([0.5] * 10)
    >>> judge("ndcg@10", better, served, allowed_loss=0, confidence=0.95).passed
    True

    Args:
        metric: What was measured; more is better.
        ours_U: Of the new model, a value a user; NaN where the user is not measured.
        theirs_U: Of the model that serves, for the same users.
        allowed_loss: Share of the served model's mean.
        confidence: 1 less the chance of passing a model that is worse by more than is allowed.
        seed: Of the coin tosses.
    """
    both = ~np.isnan(ours_U) & ~np.isnan(theirs_U)
    ours, theirs = ours_U[both], theirs_U[both]
    if not len(ours):
        return Judgement(metric, 0, 0.0, 0.0, 0.0, 1.0, False)
    allowed = allowed_loss * float(theirs.mean())
    gains = ours - theirs + allowed
    two_sided = sign_flip_test(gains, seed=seed)
    p = two_sided / 2 if gains.mean() > 0 else 1 - two_sided / 2
    means = float(ours.mean()), float(theirs.mean())
    return Judgement(metric, len(ours), *means, allowed, p, p <= 1 - confidence)
