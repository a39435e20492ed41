"""The validation figures of an epoch, by the very metrics of the evaluation.

Shapes: N videos, Y video vector, R creators, E events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from recsys.config.run import RunConfig
from recsys.data.ragged import IntArray
from recsys.evaluation.metrics.beyond import ExposureMeter
from recsys.evaluation.metrics.classification import auc
from recsys.evaluation.metrics.fairness import gini
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import list_metrics
from recsys.features.batches import VideoInputs
from recsys.inference.encode import all_contents, all_vectors
from recsys.inference.predict import Predictions, Predictor, asked_users, concat, drawn_users
from recsys.inference.ranker import Ranker
from recsys.model.recommender import Recommender
from recsys.prepare.prepared import Prepared
from recsys.schema import VALID
from recsys.train.collectives import Collectives
from recsys.train.trending import fit_trending

Floats = NDArray[np.float64]
K = 10


@dataclass(frozen=True)
class ValidationAnswers:
    """What a model predicts for the validation users of this worker's share of the partitions."""

    config: RunConfig
    predictor: Predictor
    predictions: Predictions
    trending_N: Tensor | None
    """How much videos trend when the validation begins (N,); None where it begins for every user at
    a time of their own, so that there is no such moment."""
    creators_N: IntArray | None = None
    """Row of each video's creator, 0 for an unknown one; None where the data name no creators."""

    def ranker(self, trending_weight: float | None) -> Ranker:
        """The order of the videos for these users; what trends adds so much to their scores."""
        predictor = self.predictor
        if trending_weight is not None and self.trending_N is not None:
            predictor = replace(predictor, trending_N=trending_weight * self.trending_N)
        return predictor.ranker(self.predictions)


def predict_validation(
    model: Recommender,
    prepared: Prepared,
    videos: VideoInputs,
    device: torch.device,
    *,
    collectives: Collectives,
    split: int = VALID,
) -> ValidationAnswers:
    """Predicts the validation events, or another split, of this worker's share of the partitions.

    Of `evaluate.users` users at most, the same ones in every epoch. The vectors of the catalogue
    come through the sharded tables, so that all workers must call it.
    """
    alone = collectives.workers == 1
    contents = None if alone else shared_contents(model, videos, device, collectives)
    vectors = all_vectors(model, videos, device, contents=contents)
    predictor = Predictor(model, vectors, prepared.config.model.max_history)
    total, parts = len(prepared.partitions), []
    for number in range(collectives.rank, total, collectives.workers):
        timelines = prepared.timelines(number)
        asked = asked_users(timelines, split)
        users = drawn_users(asked, prepared.config.evaluate, number, total)
        parts.append(predictor.predict(timelines, split=split, users=users))
    predictions = concat(parts, model.dim, len(prepared.config.data.columns.tasks))
    trending = prepared.trending(split)
    now = None if trending is None else torch.from_numpy(trending)
    named = prepared.config.data.video_columns.creator is not None
    creators_N = prepared.catalog.creator_rows if named else None
    return ValidationAnswers(prepared.config, predictor, predictions, now, creators_N)


def shared_contents(
    model: Recommender, videos: VideoInputs, device: torch.device, collectives: Collectives
) -> Tensor | None:
    """The content vectors of the catalogue (N, content dim), on the device of each worker.

    Each worker encodes its share of the clips. None where the model looks at none.
    """
    share = (collectives.rank, collectives.workers)
    mine = all_contents(model, videos, device, share=share)
    return None if mine is None else collectives.sum(mine).to(device)


def fit_trending_weight(answers: ValidationAnswers, collectives: Collectives) -> float | None:
    """The weight of what trends that suits the validation users best; None without a moment."""
    if answers.trending_N is None:
        return None
    return fit_trending(
        answers.predictor.ranker(answers.predictions),
        answers.predictions.relevant,
        answers.trending_N,
        add_up=collectives.sum,
        workers=collectives.workers,
    )


def validate(
    answers: ValidationAnswers,
    collectives: Collectives,
    *,
    trending_weight: float | None,
    prefix: str = "valid",
) -> dict[str, float]:
    """NDCG@10 and HR@10 of the validation users, AUC of each task, and the score to choose by.

    Where creators are known there is the Gini coefficient of their exposure in the first 10 too.
    Every worker calls it with its own answers, and all get the same figures.

    Args:
        answers: Of `predict_validation`.
        collectives: Of this worker.
        trending_weight: Of `fit_trending_weight`; what trends then adds to the videos' scores.
        prefix: Of the figures' names: the split that the answers are of.
    """
    predictions, num_videos = answers.predictions, len(answers.predictor.vectors_NY)
    sums, shown_R = _measured(answers, answers.ranker(trending_weight), num_videos)
    parts = collectives.gather((sums, shown_R, predictions.labels, predictions.logits))
    users, ndcg, hr = np.sum([part[0] for part in parts], axis=0)
    labels, logits = (np.concatenate([part[at] for part in parts]) for at in (2, 3))
    values = [ndcg / max(users, 1), hr / max(users, 1)]
    if answers.creators_N is not None:
        known = np.unique(answers.creators_N[answers.creators_N > 0])
        values.append(gini(np.sum([part[1] for part in parts], axis=0)[known]))
    gains = []
    for number in range(len(answers.config.data.columns.tasks)):
        value = auc(labels[:, number], logits[:, number])
        values.append(0.5 if value is None else value)
        gains.append(max(values[-1] - 0.5, gain_by_chance(labels[:, number])))
    values.append(score(values[0], gains))
    names = figure_names(answers.config, prefix)
    # Plain numbers: they go through JSON, and a resumed sweep reads what it wrote.
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def figure_names(config: RunConfig, prefix: str = "valid") -> list[str]:
    """Names of the figures of `validate`, in its order; they are known before any training.

    Args:
        config: The run: whether creators are known, and its ranking tasks.
        prefix: As of `validate`.
    """
    named = config.data.video_columns.creator is not None
    tasks = config.data.columns.tasks
    return [
        f"{prefix}_ndcg@{K}",
        f"{prefix}_hr@{K}",
        *([f"{prefix}_creator_gini@{K}"] if named else []),
        *(f"{prefix}_{task}_auc" for task in tasks),
        "score",
    ]


def score(ndcg: float, gains: Sequence[float]) -> float:
    """The number that epochs are chosen by: gains in NDCG and in AUC over chance count alike.

    log NDCG@10 + mean over tasks of log (AUC - 1/2), which counts as `gain_by_chance` where it is
    smaller: of a task that nothing tells, the smallest difference would outweigh the lists.
    """
    value = float(np.log(max(ndcg, 1e-9)))
    return value + float(np.mean(np.log(gains))) if gains else value


def gain_by_chance(labels_E: ArrayLike) -> float:
    """What the AUC of a random order is above 1/2 by chance: two of its standard errors.

    One is √((P + N + 1) / (12 P N)) for P positives and N others (Mann & Whitney 1947). Where one
    kind is missing it is 1/2, the most there is.

    >>> round(gain_by_chance([1, 0, 1, 0]), 3)
    0.645
    """
    labels = np.asarray(labels_E)
    positives = int(np.count_nonzero(labels > 0))
    pairs = positives * (len(labels) - positives)
    return 2 * float(np.sqrt((len(labels) + 1) / (12 * pairs))) if pairs else 0.5


def _measured(answers: ValidationAnswers, ranker: Ranker, num_videos: int) -> tuple[Floats, Floats]:
    """(users, summed NDCG, summed HR), and the places that each creator's videos have (R).

    What the users liked before is masked as in the evaluation.
    """
    predictions, creators_N = answers.predictions, answers.creators_N
    if creators_N is None:
        creators_N = np.zeros(num_videos, np.int64)
    if not predictions.user_ids:
        return np.zeros(3), np.zeros(int(creators_N.max()) + 1)
    zeros = np.zeros(num_videos, dtype=np.int64)
    data = RankingSet(
        user_ids=predictions.user_ids,
        relevant=predictions.relevant,
        known=predictions.known,
        videos=VideoTable(cold_N=zeros.astype(bool), popularity_N=zeros),
    )
    exposure = ExposureMeter(data, K)
    values = list_metrics(data, ranker, answers.config.evaluate, K, exposure).values
    sums = [len(predictions.user_ids), values[f"ndcg@{K}"].sum(), values[f"hr@{K}"].sum()]
    shown_R = np.bincount(creators_N, weights=exposure.result().shown_N)
    return np.array(sums), shown_R.astype(np.float64)
