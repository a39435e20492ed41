"""The validation figures of an epoch, by the very metrics of the evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from recsys.config.run import EvaluateConfig
from recsys.evaluation.metrics.classification import auc
from recsys.evaluation.metrics.interactions import RankingSet, Videos
from recsys.evaluation.ranking import list_metrics
from recsys.features.batches import VideoInputs
from recsys.inference.encode import all_vectors
from recsys.inference.predict import Predictions, Predictor, concat
from recsys.inference.ranker import Ranker
from recsys.model.recommender import Recommender
from recsys.prepare.prepared import Prepared
from recsys.schema import VALID
from recsys.train.trending import AddUp, fit_trending

K = 10


def validate(
    model: Recommender,
    prepared: Prepared,
    videos: VideoInputs,
    device: torch.device,
    *,
    rank: int,
    workers: int,
    add_up: AddUp,
) -> dict[str, float]:
    """NDCG@10 and HR@10 of the validation users, AUC of each task, and the score to choose by.

    Every worker takes its share of the partitions; all get the same figures. The vectors of the
    catalogue come through the sharded tables, so that all workers must call this. The weight of
    what trends at the cut is fitted first, and the model keeps it; where the split is not by time
    there is no such moment, and nothing is added.
    """
    vectors = all_vectors(model, videos, device)
    predictor = Predictor(model, vectors.to(device), prepared.config.model.max_history)
    parts = [
        predictor.predict(prepared.timelines(number), split=VALID)
        for number in range(rank, len(prepared.partitions), workers)
    ]
    tasks = prepared.config.data.columns.tasks
    found = concat(parts, model.dim, len(tasks))
    trending = prepared.trending(VALID)
    if trending is not None:
        now, ranker = torch.from_numpy(trending), predictor.ranker(found)
        weight = fit_trending(ranker, found.relevant, now, add_up=add_up, workers=workers)
        model.trending.fill_(weight)
        predictor = replace(predictor, trending_N=weight * now)
    ranker = predictor.ranker(found)
    sums = _ranking_sums(found, ranker, len(vectors), prepared.config.evaluate)
    gathered: list[Any] = [(sums, found.labels, found.logits)]
    if workers > 1:
        gathered = [None] * workers
        dist.all_gather_object(gathered, (sums, found.labels, found.logits))
    users, ndcg, hr = np.sum([part[0] for part in gathered], axis=0)
    labels = np.concatenate([part[1] for part in gathered])
    logits = np.concatenate([part[2] for part in gathered])
    figures = {f"valid_ndcg@{K}": ndcg / max(users, 1), f"valid_hr@{K}": hr / max(users, 1)}
    for number, task in enumerate(tasks):
        value = auc(labels[:, number], logits[:, number])
        figures[f"valid_{task}_auc"] = 0.5 if value is None else value
    return {**figures, "score": score(figures)}


def score(figures: dict[str, float]) -> float:
    """What epochs are chosen by: relative gains in NDCG and in AUC over chance count alike.

    log NDCG@10 + mean over tasks of log (AUC - 1/2).
    """
    value = float(np.log(max(figures[f"valid_ndcg@{K}"], 1e-9)))
    gains = [v - 0.5 for name, v in figures.items() if name.endswith("_auc")]
    if gains:
        value += float(np.mean(np.log(np.maximum(gains, 1e-9))))
    return value


def _ranking_sums(
    found: Predictions, ranker: Ranker, num_videos: int, config: EvaluateConfig
) -> np.ndarray[Any, Any]:
    """(users, summed NDCG, summed HR); what they liked before is masked as in the evaluation."""
    if not found.user_ids:
        return np.zeros(3)
    zeros = np.zeros(num_videos, dtype=np.int64)
    data = RankingSet(
        user_ids=found.user_ids,
        relevant=found.relevant,
        known=found.known,
        videos=Videos(cold_N=zeros.astype(bool), popularity_N=zeros),
    )
    values = list_metrics(data, ranker, config, K).values
    return np.array([len(found.user_ids), values[f"ndcg@{K}"].sum(), values[f"hr@{K}"].sum()])
