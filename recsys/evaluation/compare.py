"""Two rankers, or two runs, on the same users: differences with intervals and paired tests.

Shapes: U users, S users who count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.config import EvaluateConfig
from recsys.errors import InputError
from recsys.evaluation.bootstrap import Table, bootstrap_means, holm, interval, sign_flip_test

Columns = Mapping[str, NDArray[np.float64]]
"""Metric → a value a user, NaN where it is not defined: `RankerResult.per_user()`."""


def compare(
    ours: Columns, theirs: Columns, config: EvaluateConfig, *, metrics: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Tests each metric that both have, on the users for whom both are defined.

    Args:
        ours: Columns of one ranker; row i of both is one and the same user.
        theirs: Columns of the other.
        config: Number of resamplings and the seed.
        metrics: Which to test; without it all that both have.

    Returns:
        A row a metric: `metric`, `users`, means `ours` and `theirs`, `difference` with its
        interval `low` and `high` (paired bootstrap), `p` of the sign-flip test and `p_holm`,
        corrected for the number of rows.
    """
    wanted = [name for name in metrics or ours if name in ours and name in theirs]
    rows = [row for name in wanted if (row := _row(name, ours[name], theirs[name], config))]
    corrected = holm([row["p"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _row(
    name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], config: EvaluateConfig
) -> dict[str, Any] | None:
    users = np.flatnonzero(~np.isnan(ours) & ~np.isnan(theirs))
    if not len(users):
        return None
    difference = ours[users] - theirs[users]
    table = {name: Table(users, difference[:, None])}
    count, seed = config.bootstrap, config.seed
    means = bootstrap_means(table, len(ours), count=count, seed=seed) if count else {}
    low, high = (interval(means[name][:, 0]) if means else None) or (None, None)
    return {
        "metric": name,
        "users": len(users),
        "ours": float(ours[users].mean()),
        "theirs": float(theirs[users].mean()),
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "p": sign_flip_test(difference, seed=config.seed),
    }


def align(
    our_users: Sequence[str], their_users: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the users that two runs have in common, in one order.

    >>> [rows.tolist() for rows in align(["a", "b", "c"], ["c", "a", "x"])]
    [[0, 2], [1, 0]]

    Raises:
        InputError: There are none: the runs are of other data.
    """
    rows = {user: row for row, user in enumerate(their_users)}
    pairs = [(row, rows[user]) for row, user in enumerate(our_users) if user in rows]
    if not pairs:
        raise InputError("the two runs have no test user in common; compare runs of the same data")
    found = np.array(pairs, np.int64)
    return found[:, 0], found[:, 1]
