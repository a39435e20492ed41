"""One ranker's result as plain numbers, ready for report.json.

Shapes: U users, R resamplings, M columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.config.run import EvaluateConfig
from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.metrics.accuracy import SliceMetrics, own_slices
from recsys.evaluation.metrics.bootstrap import Table, bootstrap_means, interval, jackknife_interval
from recsys.evaluation.metrics.fairness import (
    Grouped,
    creator_exposure,
    new_video_exposure,
    popularity_bias,
    quality_gap,
)
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.evaluation.ranking import RankerResult

Floats = NDArray[np.float64]

HISTORY_LENGTHS = (0, 1, 5, 20, 100)
"""Where the slices by number of known positives begin."""


def summarise(
    data: RankingSet, result: RankerResult, config: EvaluateConfig, *, new_days: float = 3.0
) -> dict[str, object]:
    """All figures of a ranker.

    Returns:
        `all`, `warm`, `cold`, the names of `own_slices` and `no_history`, each `{"users": n,
        metric: mean, …, "ci": {metric: [low, high]}}`; the same under `history` by number of known
        positives, under `video_age` and under `groups`, column by column, with `quality` by name
        and the `gap` between them;
        `coverage@k`, `novelty@k`, `diversity@k`, `average_popularity@k` and `new@k` with their own
        `ci`; `creators`, `new_videos` and `popularity_bias` at the headline cutoff, where
        the catalogue knows creators and ages.
    """
    slices = {**result.slices, **_user_slices(data, result.slices["all"])}
    tables = {name: _table(part) for name, part in slices.items() if len(part.users)}
    for name, values in result.lists.items():
        users = np.flatnonzero(~np.isnan(values))
        if len(users):
            tables[f"lists: {name}"] = Table(users, values[users][:, None])
    count, seed = config.bootstrap, config.seed
    samples = bootstrap_means(tables, data.num_users, count=count, seed=seed) if count else {}
    nobody = {name: {"users": 0} for name in own_slices(data.videos)}
    by_kind: dict[str, dict[str, object]] = {"history": {}, "video_age": {}}
    summary: dict[str, object] = {**by_kind, **nobody}
    for name, part in slices.items():
        figures = _figures(part, samples.get(name))
        kind, _, rest = name.partition(": ")
        if kind in ("history", "age"):
            by_kind["video_age" if kind == "age" else kind][rest] = figures
        elif kind != "group":
            summary[name] = figures
    summary["groups"] = _groups(data, slices, samples, result, config)
    summary |= _list_figures(result, samples)
    return summary | _exposure_figures(data, result, config.headline_k, new_days)


def _user_slices(data: RankingSet, whole: SliceMetrics) -> dict[str, SliceMetrics]:
    """By history length and group; every user has a relevant video, so `whole` has them all."""
    lengths = data.known.lengths
    slices = {"no_history": _of_users(whole, lengths == 0)}
    for low, high in zip(HISTORY_LENGTHS, (*HISTORY_LENGTHS[1:], np.inf), strict=True):
        name = (
            f"{low} or more"
            if high == np.inf
            else f"{low}"
            if high == low + 1
            else f"{low} to {high - 1}"
        )
        slices[f"history: {name}"] = _of_users(whole, (lengths >= low) & (lengths < high))
    for column in data.groups:
        grouped = Grouped.of(data, column)
        for number, name in enumerate(grouped.names):
            slices[f"group: {column}: {name}"] = _of_users(whole, grouped.group_U == number)
    return slices


def _of_users(whole: SliceMetrics, wanted_U: NDArray[np.bool_]) -> SliceMetrics:
    values = {name: column[wanted_U] for name, column in whole.values.items()}
    return SliceMetrics(whole.users[wanted_U], values)


def _table(part: SliceMetrics) -> Table:
    return Table(part.users, np.stack(list(part.values.values()), 1))


def _figures(part: SliceMetrics, samples_RM: Floats | None) -> dict[str, object]:
    if not len(part.users):
        return {"users": 0}
    means = {name: float(values.mean()) for name, values in part.values.items()}
    figures: dict[str, object] = {"users": len(part.users), **means}
    if samples_RM is not None:
        columns = zip(part.values, samples_RM.T, strict=True)
        figures["ci"] = {name: interval(column) for name, column in columns}
    return figures


def _groups(
    data: RankingSet,
    slices: Mapping[str, SliceMetrics],
    samples: Mapping[str, Floats],
    result: RankerResult,
    config: EvaluateConfig,
) -> dict[str, object]:
    metric = f"ndcg@{config.headline_k}"
    groups: dict[str, object] = {}
    for column in data.groups:
        begin = f"group: {column}: "
        quality = {
            name.removeprefix(begin): _figures(part, samples.get(name))
            for name, part in slices.items()
            if name.startswith(begin)
        }
        gap = quality_gap(Grouped.of(data, column), result.slices["all"].values[metric], config)
        groups[column] = {"quality": quality, "metric": metric, **gap}
    return groups


def _list_figures(result: RankerResult, samples: Mapping[str, Floats]) -> dict[str, object]:
    figures: dict[str, float | None] = {}
    intervals: dict[str, list[float] | None] = {}
    of_exposure = {
        metric.name: metric.compute.of
        for metric in metric_table.METRICS
        if isinstance(metric.compute, metric_table.OfExposure)
    }
    for k, exposure in result.exposure.items():
        for metric, compute in of_exposure.items():
            name = f"{metric}@{k}"
            figures[name] = value = compute(exposure, None)
            blocks = range(len(exposure.sure_GN))
            left_out = np.array([compute(exposure, block) for block in blocks])
            intervals[name] = jackknife_interval(value, left_out)
    for name, values in result.lists.items():
        public = metric_table.figure_name(name)
        defined = values[~np.isnan(values)]
        figures[public] = float(defined.mean()) if len(defined) else None
        column = samples.get(f"lists: {name}")
        intervals[public] = None if column is None else interval(column[:, 0])
    return {**figures, "ci": intervals}


def _exposure_figures(
    data: RankingSet, result: RankerResult, k: int, new_days: float
) -> dict[str, object]:
    figures: dict[str, object] = {
        "popularity_bias": popularity_bias(data, result.lists[f"popularity@{k}"])
    }
    if data.videos.creator_row_N is not None:
        figures["creators"] = creator_exposure(data, result.exposure[k])
    if data.videos.age_days_N is not None:
        figures["new_videos"] = new_video_exposure(data, result.lists[f"new@{k}"], new_days)
    return figures
