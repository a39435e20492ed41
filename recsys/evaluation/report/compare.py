"""Two rankers, or two runs, on the same users: differences with intervals and paired tests.

Only a few metrics that are fixed beforehand are tested, and the tests are corrected for their
number; of all others the difference and its interval are shown without a verdict.

Shapes: U users, S users who count, R resamplings, M columns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.config.run import EvaluateConfig
from recsys.errors import InputError
from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.metrics.accuracy import WARM_AND_COLD
from recsys.evaluation.metrics.bootstrap import (
    Table,
    bootstrap_means,
    holm,
    interval,
    sign_flip_test,
)
from recsys.evaluation.ranking import Columns
from recsys.evaluation.report.schema import Difference, Shown, Tested


def main_metrics(config: EvaluateConfig) -> list[str]:
    """The metrics of lists that are tested."""
    k = config.headline_k
    whole = [f"{metric.user_column}@{k}" for metric in metric_table.METRICS if metric.is_main]
    return [*whole, *(f"{name}/ndcg@{k}" for name in WARM_AND_COLD)]


def compare(
    ours: Columns, theirs: Columns, config: EvaluateConfig, *, metrics: Sequence[str] | None = None
) -> list[Difference]:
    """Each metric that both have, on the users for whom both are defined.

    Args:
        ours: Columns of one ranker; row i of both is one and the same user.
        theirs: Columns of the other.
        config: Number of resamplings and the seed.
        metrics: Which to compare; without it all that both have.

    Returns:
        A row a metric: `metric`, `users`, means `ours` and `theirs`, `difference` with its
        interval `low` and `high` (paired bootstrap), and `p` of the sign-flip test.
    """
    tables = {}
    for name in metrics or ours:
        if name in ours and name in theirs:
            users = np.flatnonzero(~np.isnan(ours[name]) & ~np.isnan(theirs[name]))
            if len(users):
                tables[name] = Table(users, np.stack([ours[name], theirs[name]], 1)[users])
    count, num_users = config.bootstrap, max(map(len, ours.values()), default=0)
    means = bootstrap_means(tables, num_users, count=count, seed=config.seed)
    return [_row(name, table, means.get(name), config.seed) for name, table in tables.items()]


def tested(rows: Sequence[Difference]) -> list[Tested]:
    """The rows with `p_holm`, for their number."""
    p_values = holm([row["p"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, p_values, strict=True)]


def corrected(rows: Sequence[Difference], names: Collection[str]) -> list[Tested | Shown]:
    """The rows with `p_holm`, for the number of those whose metric is named; others get no p."""
    of_named = iter(tested([row for row in rows if row["metric"] in names]))
    return [
        next(of_named) if row["metric"] in names else {**row, "p": None, "p_holm": None}
        for row in rows
    ]


def _row(name: str, table: Table, means_RM: NDArray[np.float64] | None, seed: int) -> Difference:
    ours, theirs = (float(mean) for mean in table.values_SM.mean(0))
    bounds = None if means_RM is None else interval(means_RM[:, 0] - means_RM[:, 1])
    low, high = bounds or (None, None)
    return {
        "metric": name,
        "users": len(table.users),
        "ours": ours,
        "theirs": theirs,
        "difference": ours - theirs,
        "low": low,
        "high": high,
        "p": sign_flip_test(table.values_SM[:, 0] - table.values_SM[:, 1], seed=seed),
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
    aligned = np.array(pairs, np.int64)
    return aligned[:, 0], aligned[:, 1]
