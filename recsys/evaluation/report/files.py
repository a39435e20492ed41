"""What an evaluated run leaves behind, and the comparison of two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import (
    exists,
    join,
    open_input,
    read_json,
    write_json,
    write_table,
    write_text,
)
from recsys.errors import InputError
from recsys.evaluation.ranking import Columns
from recsys.evaluation.report.compare import align, compare, corrected, main_metrics
from recsys.evaluation.report.page import render
from recsys.evaluation.report.schema import Difference, Report, Shown, Tested

LISTS, TASKS = "model", "model-tasks"
"""Tables of the model's metrics of each user: of their list, and of their events."""


def write_users(out: str, name: str, user_ids: Sequence[str], columns: Columns) -> None:
    """Keeps metrics of each user in the folder of an evaluation, for a later comparison."""
    write_table(pa.table({"user_id": list(user_ids), **columns}), _users_path(out, name))


def _users_path(out: str, name: str) -> str:
    return join(out, "users", f"{name}.parquet")


def write_page(config: RunConfig, out: str, report: Report) -> None:
    """Writes report.html into the folder of an evaluation."""
    title = f"Evaluation of {config.run.rstrip('/').rsplit('/', 1)[-1]}"
    write_text(render(report, title=title), join(out, "report.html"))


def compare_runs(config: RunConfig, against: str) -> list[Tested | Shown]:
    """This run's model and another's on the users that both have.

    The rows are added to the run's own report, and its page is written anew.

    Raises:
        InputError: One of the runs has no evaluation, or they share no user.
    """
    lists = _compare(config, against, LISTS)
    tasks = _compare(config, against, TASKS)
    tested = main_metrics(config.evaluate) + [row["metric"] for row in tasks]
    rows = corrected(lists + tasks, tested)
    order = {metric: place for place, metric in enumerate(tested)}
    rows.sort(key=lambda row: order.get(row["metric"], len(order)))
    out = RunFolder(config.run).evaluate
    path = join(out, "report.json")
    report: Report = read_json(path)
    report["against"] = {"run": against, "rows": rows}
    write_json(report, path)
    write_page(config, out, report)
    return rows


def _compare(config: RunConfig, against: str, name: str) -> list[Difference]:
    our_users, ours = read_users(config.run, name)
    their_users, theirs = read_users(against, name)
    mine, other = align(our_users, their_users)
    return compare(
        {metric: values[mine] for metric, values in ours.items()},
        {metric: values[other] for metric, values in theirs.items()},
        config.evaluate,
    )


def read_users(run: str, name: str) -> tuple[list[str], Columns]:
    """Users of an evaluated run, and their metrics by name, NaN where one is not defined.

    Raises:
        InputError: The run was not evaluated.
    """
    path = _users_path(RunFolder(run).evaluate, name)
    if not exists(path):
        raise InputError(f"{path}: this run was not evaluated; run recsys evaluate on it first")
    with open_input(path) as file:
        table = pq.read_table(file)
    names = [column for column in table.column_names if column != "user_id"]
    return table["user_id"].to_pylist(), {column: np.asarray(table[column]) for column in names}
