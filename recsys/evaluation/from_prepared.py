"""What a prepared run says of its test users, of what they liked before, and of its videos.

Shapes: N video rows, E events.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.config.run import EvaluateConfig
from recsys.data.catalog import Catalog
from recsys.data.ragged import Ragged, join_lists
from recsys.data.storage import open_input
from recsys.evaluation.baselines.likes import DAY_MS, Likes
from recsys.evaluation.metrics.classification import TaskFigures, TaskMeter, auc_by_user
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import Columns
from recsys.inference.predict import Predictions
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST

MOST_LIKES = 1 << 24
"""What the baselines are made of at most. The process that makes them holds 13 bytes of each, and
60 more while it chooses the validation users."""


def ranking_set(
    prepared: Prepared, predictions: Predictions, cold_N: NDArray[np.bool_], *, split: int = TEST
) -> RankingSet:
    """What the rankers are measured against, of the predictions for a split (VALID or TEST)."""
    catalog = prepared.catalog
    return RankingSet(
        user_ids=predictions.user_ids,
        relevant=predictions.relevant,
        known=predictions.known,
        videos=VideoTable(
            cold_N=cold_N,
            popularity_N=catalog.known_positives(with_valid=split == TEST),
            creator_row_N=_creators(prepared.config.data.video_columns.creator, catalog),
            categories=catalog.categories,
            age_days_N=_ages_days(prepared, split),
            lessons=prepared.lessons,
        ),
        groups=_user_groups(prepared, predictions.user_ids),
    )


def _creators(creator: str | None, catalog: Catalog) -> NDArray[np.int32] | None:
    """The creators, where the data have any."""
    return catalog.creator_rows.astype(np.int32) if creator else None


def _ages_days(prepared: Prepared, split: int) -> NDArray[np.float64]:
    """Days from each video's first event to the newest one before the split (N); NaN unknown."""
    first = prepared.catalog.table.column("first_time_ms").combine_chunks()
    known = np.asarray(first.is_valid())
    first_ms = np.asarray(first.fill_null(0), dtype=np.float64)
    newest = 0
    for number in range(len(prepared.partitions)):
        times, split_of = _flat(prepared.columns(number, ("time_ms", "split")))
        newest = max(newest, int(times[split_of < split].max(initial=0)))
    return np.where(known, (newest - first_ms) / DAY_MS, np.nan)


def _user_groups(prepared: Prepared, user_ids: list[str]) -> dict[str, list[str | None]]:
    """Group column → each user's group."""
    with open_input(prepared.folder.users) as file:
        table = pq.read_table(file)
    known = table.column("user_id").combine_chunks()
    rows = pc.index_in(pa.array(user_ids, pa.string()), value_set=known)
    names = prepared.config.data.user_columns.groups
    return {name: table.column(name).take(rows).to_pylist() for name in names}


def known_likes(prepared: Prepared) -> Likes:
    """The positives before the test: all users', or where they are too many some users'.

    Users lie in partitions by a hash of their ids, so that those of whole partitions are drawn at
    random. At least one partition is read.
    """
    names, total = ("video_row", "time_ms", "positive", "split"), len(prepared.partitions)
    parts: list[Likes] = []
    for number in range(total):
        part = _known_part(prepared.columns(number, names))
        if parts and sum(len(one.time_ms) for one in [*parts, part]) > MOST_LIKES:
            break
        parts.append(part)
    return Likes(
        join_lists([part.lists for part in parts]),
        np.concatenate([part.time_ms for part in parts]),
        np.concatenate([part.split for part in parts]),
        share_of_users=len(parts) / total,
    )


def _known_part(table: pa.Table) -> Likes:
    rows, times, positive, split = _flat(table)
    kept = (split < TEST) & (positive > 0)
    lengths = np.asarray(pc.list_value_length(table.column("video_row")), np.int64)
    counts = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(lengths)])]
    lists = Ragged(counts.astype(np.int64), rows[kept].astype(np.int32))
    return Likes(lists, times[kept].astype(np.int64), split[kept].astype(np.int8))


def _flat(table: pa.Table) -> list[NDArray[np.integer]]:
    """The values of each column's lists, one list after the other."""
    return [np.asarray(pc.list_flatten(column)) for column in table.columns]


def task_figures(
    predictions: Predictions,
    cold_N: NDArray[np.bool_],
    tasks: tuple[str, ...],
    config: EvaluateConfig,
) -> tuple[dict[str, TaskFigures], Columns]:
    """The ranking head's figures by task, and `auc: <task>` by user of `predictions.asked_ids`."""
    figures: dict[str, TaskFigures] = {}
    columns: dict[str, NDArray[np.float64]] = {}
    cold_E, num_users = cold_N[predictions.event_videos], len(predictions.asked_ids)
    for number, task in enumerate(tasks):
        labels, logits = predictions.labels[:, number], predictions.logits[:, number]
        if np.isnan(logits).any():  # a previous bundle need not know all tasks
            continue
        meter = TaskMeter()
        meter.add(labels, logits, cold_E, predictions.event_users)
        figures[task] = meter.result(bootstrap=config.bootstrap, seed=config.seed)
        by_user = auc_by_user(labels, logits, predictions.event_users, num_users)
        if by_user is not None:
            columns[f"auc: {task}"] = by_user
    return figures, columns
