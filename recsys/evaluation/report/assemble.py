"""Everything that is measured of a run's rankers, in one tree for report.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.data.storage import finite
from recsys.evaluation.metrics.classification import TaskFigures
from recsys.evaluation.metrics.interactions import RankingSet
from recsys.evaluation.ranking import Columns, evaluate_ranker
from recsys.evaluation.report.compare import compare, main_metrics, tested
from recsys.evaluation.report.figures import summarise
from recsys.evaluation.report.schema import Circumstances, Measured, Report, Setup, Tested
from recsys.evaluation.report.tradeoff import reranked, tradeoff
from recsys.evaluation.report.verdict import MAIN, RERANKED, verdict
from recsys.inference.ranker import Ranker
from recsys.inference.rerank import is_active

Head = tuple[Mapping[str, TaskFigures], Columns]
"""Of a ranking head: figures by task (`TaskMeter.result`), and `auc: <task>` → `auc_by_user`."""


def assemble(
    data: RankingSet,
    rankers: Mapping[str, Ranker],
    config: EvaluateConfig,
    rerank: RerankConfig,
    *,
    heads: Mapping[str, Head] | None = None,
    about: Circumstances | None = None,
) -> tuple[Report, dict[str, Columns]]:
    """Measures all rankers and compares the model with each of the others.

    Args:
        data: The test users.
        rankers: By name; `model` is the one that the verdict is about.
        config: Cutoffs, masking, resamplings.
        rerank: Where any of its weights is above 0, the re-ranked model is measured too.
        heads: Of the rankers that have one; a row of `auc_by_user` is the same user in all.
        about: What else `setup` says.

    Returns:
        The report: `setup`, `evaluation` (ranker → `summarise`), `comparisons` (ranker → rows of
        `compare`, the model being `ours`), `tradeoff` (or None) and `verdict`; and the columns of
        each user, ranker by ranker.
    """
    summaries: dict[str, dict[str, object]] = {}
    columns: dict[str, Columns] = {}
    for name, ranker in rankers.items():
        result = evaluate_ranker(data, ranker, config, new_days=rerank.new_days)
        summaries[name] = summarise(data, result, config, new_days=rerank.new_days)
        columns[name] = result.per_user()
        del result  # what it holds of each video, before the next one's
    if is_active(rerank):
        result = reranked(data, rankers[MAIN], config, rerank)
        summaries[RERANKED] = summarise(data, result, config, new_days=rerank.new_days)
        columns[RERANKED] = result.per_user()
    heads = heads or {}
    for name, (figures, _) in heads.items():
        summaries[name]["tasks"] = dict(figures)
    setup: Setup = {**_setup(data, config), **(about or {})}
    report: Measured = {
        "setup": setup,
        "evaluation": summaries,
        "comparisons": _comparisons(columns, heads, config),
        "tradeoff": tradeoff(data, rankers[MAIN], config, rerank)
        if config.tradeoff_users
        else None,
    }
    return finite({"verdict": verdict(report), **report}), columns


def _setup(data: RankingSet, config: EvaluateConfig) -> Setup:
    return {
        "users": data.num_users,
        "videos": data.num_videos - 1,
        "cold_videos": int(data.videos.cold_N[1:].sum()),
        "relevant": len(data.relevant.values),
        "k": list(config.k),
        "headline_k": config.headline_k,
        "metric": f"ndcg@{config.headline_k}",
        "mask_history": config.mask_history,
        "bootstrap": config.bootstrap,
        "seed": config.seed,
    }


def _comparisons(
    columns: Mapping[str, Columns], heads: Mapping[str, Head], config: EvaluateConfig
) -> dict[str, list[Tested]]:
    comparisons = {}
    for name, theirs in columns.items():
        if name != MAIN:
            rows = compare(columns[MAIN], theirs, config, metrics=main_metrics(config))
            if name in heads:
                rows += compare(heads[MAIN][1], heads[name][1], config)
            comparisons[name] = tested(rows)
    return comparisons
