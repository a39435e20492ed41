"""The evaluate stage: predictions by Ray Data over partitions of users, metrics by the library."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys import cluster
from recsys.config import RunConfig
from recsys.data.prepared import Prepared
from recsys.data.storage import exists, filesystem, is_uri, join
from recsys.data.timelines import IntArray
from recsys.errors import InputError
from recsys.evaluation.baselines import popularity, random_order
from recsys.evaluation.classification import TaskMeter
from recsys.evaluation.interactions import Csr, RankingSet, Videos
from recsys.evaluation.predict import Predictions, all_vectors, concat, predict
from recsys.evaluation.ranking import dot_product, evaluate_ranker
from recsys.model.recommender import Recommender
from recsys.progress import progress
from recsys.schema import TEST
from recsys.train.checkpoint import load_plain


@dataclass(frozen=True)
class Trained:
    """A trained run, ready to predict."""

    prepared: Prepared
    model: Recommender
    vectors: Tensor
    """(N, D) of the whole catalogue."""
    cold_N: IntArray
    """True where a video has no event that the model learnt from."""


def load_trained(config: RunConfig) -> Trained:
    """Reads the model that `train` left, in plain torch, and encodes the catalogue.

    Raises:
        InputError: There is none.
    """
    path = join(config.run, "train", "model")
    if not exists(path):
        raise InputError(f"{path}: there is no trained model; run recsys train")
    prepared = Prepared(config)
    with _local(path) as folder:
        model = load_plain(folder, config.model, prepared.sizes)
    videos = prepared.video_inputs(with_valid=config.train.refit)
    vectors = all_vectors(model, videos, torch.device("cpu"))
    known = prepared.catalog.known_events(with_valid=config.train.refit)
    return Trained(prepared, model, vectors, known == 0)


@contextmanager
def _local(path: str) -> Iterator[str]:
    """A local folder with the same files."""
    fs, inner = filesystem(path)
    if not is_uri(path):
        yield inner
        return
    with tempfile.TemporaryDirectory() as folder:
        fs.get(f"{inner}/", f"{folder}/", recursive=True)
        yield folder


class PredictPartitions:
    """Predicts one partition of users a call; a Ray Data actor holds the model."""

    def __init__(self, trained: Any) -> None:
        import ray

        self.trained: Trained = ray.get(trained[0])
        torch.set_num_threads(1)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Takes partition numbers, gives one row of predictions."""
        (number,) = batch["id"].tolist()
        prepared = self.trained.prepared
        found = predict(
            self.trained.model,
            self.trained.vectors,
            prepared.timelines(number),
            split=TEST,
            max_history=prepared.config.model.max_history,
        )
        return {name: [value] for name, value in found.to_row().items()}


def predict_all(trained: Trained) -> Predictions:
    """The test predictions of all users."""
    import ray

    total = len(trained.prepared.partitions)
    workers = max(1, min(cluster.num_cpus() - 1, total))
    dataset = ray.data.range(total, override_num_blocks=total).map_batches(
        PredictPartitions,
        fn_constructor_args=([ray.put(trained)],),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    parts = []
    dim = trained.vectors.shape[1]
    num_tasks = len(trained.prepared.config.data.columns.tasks)
    with progress("evaluate: predicting", total=total) as advance:
        for row in dataset.iter_rows():
            parts.append(Predictions.from_row(row, dim=dim, num_tasks=num_tasks))
            advance(1)
    # Tasks end in any order; the report must not depend on it.
    parts.sort(key=lambda part: part.user_ids[:1])
    return concat(parts, dim, num_tasks)


def evaluate(config: RunConfig, out: str) -> dict[str, Any]:
    """Runs the stage and returns its report."""
    cluster.connect()
    trained = load_trained(config)
    found = predict_all(trained)
    data = ranking_set(trained, found)
    rankers = {
        "model": dot_product(torch.from_numpy(found.queries), trained.vectors),
        "popularity": popularity(data.videos.popularity_N),
        "random": random_order(data.num_videos),
    }
    report: dict[str, Any] = {}
    for name, ranker in rankers.items():
        result = evaluate_ranker(data, ranker, config.evaluate)
        report[name] = {
            part: {
                "users": len(metrics.users),
                **{metric: float(v.mean()) for metric, v in metrics.values.items() if len(v)},
            }
            for part, metrics in result.slices.items()
        }
    report["model"]["tasks"] = task_report(config, trained, found)
    return {"users": data.num_users, "evaluation": report}


def ranking_set(trained: Trained, found: Predictions) -> RankingSet:
    """What the rankers are measured against."""
    catalog = trained.prepared.catalog
    return RankingSet(
        user_ids=found.user_ids,
        relevant=found.relevant,
        known=found.known,
        videos=Videos(
            cold_N=np.asarray(trained.cold_N, dtype=bool),
            popularity_N=catalog.known_positives(with_valid=True),
            creator_row_N=catalog.creator_rows.astype(np.int32),
            categories=Csr(catalog.category_offsets, catalog.category_rows.astype(np.int32)),
        ),
    )


def task_report(config: RunConfig, trained: Trained, found: Predictions) -> dict[str, Any]:
    """The ranking head's figures by task."""
    report = {}
    cold = np.asarray(trained.cold_N, dtype=bool)[found.event_videos]
    for number, task in enumerate(config.data.columns.tasks):
        meter = TaskMeter()
        meter.add(found.labels[:, number], found.logits[:, number], cold)
        report[task] = meter.result()
    return report
