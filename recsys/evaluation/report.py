"""Everything that is measured of a run's rankers, in one tree for report.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.config import EvaluateConfig, RerankConfig
from recsys.evaluation.compare import Columns, compare
from recsys.evaluation.interactions import RankingSet
from recsys.evaluation.ranking import Ranker, evaluate_ranker
from recsys.evaluation.summary import finite, summarise
from recsys.evaluation.tradeoff import candidates, reranked, tradeoff
from recsys.evaluation.verdict import MAIN, RERANKED, verdict


def assemble(
    data: RankingSet,
    rankers: Mapping[str, Ranker],
    config: EvaluateConfig,
    rerank: RerankConfig,
    *,
    tasks: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Columns]]:
    """Measures all rankers and compares the model with each of the others.

    Args:
        data: The test users.
        rankers: By name; `model` is the one that the verdict is about.
        config: Cutoffs, masking, resamplings.
        rerank: Where any of its weights is above 0, the re-ranked model is measured too.
        tasks: Figures of the ranking head, task by task (`TaskMeter.result`).

    Returns:
        The report: `setup`, `evaluation` (ranker → `summarise`), `comparisons` (ranker → rows of
        `compare`, the model being `ours`), `tradeoff` (or None) and `verdict`; and the columns of
        each user, ranker by ranker.
    """
    summaries: dict[str, Any] = {}
    columns: dict[str, Columns] = {}
    for name, ranker in rankers.items():
        result = evaluate_ranker(data, ranker, config, new_days=rerank.new_days)
        summaries[name] = summarise(data, result, config, new_days=rerank.new_days)
        columns[name] = result.per_user()
    if rerank.creator_exposure or rerank.diversity or rerank.new_videos:
        depth = max(rerank.candidates, *config.k)
        found = candidates(data, rankers[MAIN], config, depth, sample=None)
        result, _ = reranked(found, config, rerank)
        summaries[RERANKED] = summarise(data, result, config, new_days=rerank.new_days)
        columns[RERANKED] = result.per_user()
    if tasks:
        summaries[MAIN]["tasks"] = dict(tasks)
    report = {
        "setup": _setup(data, config),
        "evaluation": summaries,
        "comparisons": _comparisons(columns, config),
        "tradeoff": tradeoff(data, rankers[MAIN], config, rerank)
        if config.tradeoff_users
        else None,
    }
    return finite({"verdict": verdict(report), **report}), columns


def _setup(data: RankingSet, config: EvaluateConfig) -> dict[str, Any]:
    return {
        "users": data.num_users,
        "videos": data.num_videos - 1,
        "cold_videos": int(data.videos.cold_N[1:].sum()),
        "relevant": len(data.relevant.values),
        "k": list(config.k),
        "metric": f"ndcg@{config.k[0]}",
        "mask_history": config.mask_history,
        "bootstrap": config.bootstrap,
        "seed": config.seed,
    }


def _comparisons(columns: Mapping[str, Columns], config: EvaluateConfig) -> dict[str, Any]:
    k = config.k[0]
    wanted = [f"{name}@{k}" for name in ("ndcg", "hr", "recall", "mrr")] + [f"cold/ndcg@{k}"]
    ours = columns[MAIN]
    return {
        name: compare(ours, theirs, config, metrics=wanted)
        for name, theirs in columns.items()
        if name != MAIN
    }
