"""How far a figure may be off because other users could have come: bootstrap and paired tests.

Users are drawn, not events: what one user does hangs together (B. Efron and R. Tibshirani, "An
Introduction to the Bootstrap", 1993). All tables that are resampled with one seed are resampled
with the same users, so that differences between rankers are paired.

Shapes: U users, S users of a table, M columns, R resamplings, E events.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Of every interval."""
MANY = 10_000
"""Differences from which on a sign-flip test needs no tosses."""
BLOCK = 8
"""Resamplings that are worked on at a time."""


@dataclass(frozen=True)
class Table:
    """Figures of some of the users."""

    users: NDArray[np.int64]
    """Numbers of the users (S)."""
    values_SM: Floats
    """Without NaN."""


def draws(num_users: int, *, count: int, seed: int) -> Iterator[Floats]:
    """How often each user is drawn: blocks of (≤ `BLOCK`, U), `count` rows in all."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        drawn = [
            np.bincount(rng.integers(0, num_users, num_users), minlength=num_users)
            for _ in range(min(BLOCK, count - start))
        ]
        yield np.stack(drawn).astype(np.float64)


def bootstrap_means(
    tables: Mapping[str, Table], num_users: int, *, count: int, seed: int
) -> dict[str, Floats]:
    """Column means under each resampling of all users: (R, M) a table.

    A mean is NaN where a resampling has drawn none of a table's users.
    """
    means: dict[str, list[Floats]] = {name: [] for name in tables}
    for weights in draws(num_users, count=count, seed=seed):
        for name, table in tables.items():
            of_table = weights[:, table.users]
            total = of_table.sum(1, keepdims=True)
            sums = of_table @ table.values_SM
            means[name].append(
                np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
            )
    return {name: np.concatenate(parts) for name, parts in means.items() if parts}


def interval(samples_R: Floats) -> list[float] | None:
    """The middle 95 % of the resampled figures, or None where there are too few to say.

    >>> interval(np.arange(201.0))
    [5.0, 195.0]
    """
    defined = samples_R[~np.isnan(samples_R)]
    if len(defined) < 20:
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(defined, [round(tail, 9), round(100 - tail, 9)])
    return [float(low), float(high)]


def jackknife_interval(estimate: float, left_out: Floats) -> list[float]:
    """Normal interval from estimates that leave one block of users out each.

    For figures that are no mean over users, such as catalogue coverage, of which a resampling with
    replacement, which has fewer different users, gives too low a value.
    """
    blocks = len(left_out)
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    return [float(estimate - 1.96 * error), float(estimate + 1.96 * error)]


def sign_flip_test(differences_S: Floats, *, count: int = 10_000, seed: int = 0) -> float:
    """Chance of so large a mean difference if both rankers were equally good (two-sided).

    The randomisation test of paired differences: for each user it is a coin toss which ranker is
    called which (M. Smucker et al., "A Comparison of Statistical Significance Tests for
    Information Retrieval Evaluation", 2007). Of up to `MANY` differences `count` tosses are made,
    and the value is never below 1 / (count + 1); the sum of more is normal for all purposes.

    >>> sign_flip_test(np.zeros(5))
    1.0
    """
    differences = differences_S[differences_S != 0]
    if not len(differences):
        return 1.0
    if len(differences) > MANY:
        deviations = abs(differences.sum()) / np.sqrt((differences**2).sum())
        return math.erfc(deviations / math.sqrt(2))
    rng = np.random.default_rng(seed)
    observed = abs(differences.sum()) * (1 - 1e-12)  # equal sums count, whatever their rounding
    as_large, step = 0, max(1, 2**22 // len(differences))
    for start in range(0, count, step):
        rows = min(step, count - start)
        bits = rng.integers(0, 256, (rows, -(-len(differences) // 8)), dtype=np.uint8)
        heads = np.unpackbits(bits, axis=1, count=len(differences))
        sums = differences.sum() - 2 * (heads @ differences)
        as_large += int((np.abs(sums) >= observed).sum())
    return (as_large + 1) / (count + 1)


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (S. Holm, 1979), in the same order.

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in corrected]
