"""Evaluation and serving put a list in order by one and the same step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.bundle.stage import publish
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.evaluation.from_prepared import ranking_set
from recsys.evaluation.metrics.toplists import ALL
from recsys.evaluation.report.tradeoff import reranked_lists
from recsys.evaluation.stage import predict_all, rerank_traits
from recsys.inference.rerank import is_active
from recsys.live.log.events import EventLog
from recsys.schema import TEST
from recsys.serve.api import make_api
from recsys.serve.service import Service
from recsys.train.trained import Trained, load_trained
from tests.conftest import TrainedRun

pytestmark = pytest.mark.ray


def config_of(trained: TrainedRun, weights: dict[str, float]) -> RunConfig:
    settings = [f"rerank.{name}={value}" for name, value in weights.items()]
    return load_config(trained.config_path, [*trained.settings, *settings])


def published(config: RunConfig, trained: Trained, folder: Path, **changed: Any) -> Bundle:
    assert trained.prepared.config == config
    publish(
        trained,
        str(folder),
        **{"traits": rerank_traits(config, trained), **changed},
    )
    return Bundle.load(str(folder))


@pytest.mark.parametrize(
    "weights",
    [
        {"creator_exposure": 0.3, "page": 4},
        {"diversity": 0.5, "new_videos": 0.4, "page": 4, "candidates": 12},
        {"drawn_places": 2, "page": 5, "candidates": 8},
        {"creator_exposure": 0.0},
    ],
)
def test_evaluation_and_server_give_the_same_lists(
    trained_run: TrainedRun, tmp_path: Path, weights: dict[str, float]
) -> None:
    config = config_of(trained_run, weights)
    trained = load_trained(config)
    bundle = published(config, trained, tmp_path)
    assert (bundle.traits is not None) == is_active(config.rerank)
    predictions = predict_all(trained.prepared, trained.predictor)
    data = ranking_set(trained.prepared, predictions, trained.cold_N)
    ranker = trained.predictor.ranker(predictions)
    service = Service(bundle, EventLog(str(tmp_path / "live.sqlite")))
    client, cut_ms = TestClient(make_api(service)), trained.prepared.cut_ms(TEST)
    ids, differs = trained.prepared.catalog.video_ids().to_pylist(), False
    # Beside the lists of all videos come those of warm and of cold ones alone, which nobody serves.
    everything = [
        lists
        for lists in reranked_lists(data, ranker, config.evaluate, config.rerank)
        if lists.among == ALL
    ]
    assert sum(len(lists.user_B) for lists in everything) == data.num_users
    for lists in everything:
        for user, rows in zip(lists.user_B.tolist(), lists.video_BK[:, :10], strict=True):
            body = {"user_id": data.user_ids[user], "k": 10, "now_ms": cut_ms}
            answer = client.post("/v1/recommend", json=body).json()
            assert [item["video_id"] for item in answer["items"]] == [ids[row] for row in rows]
            scores = ranker(user, user + 1)[0].clone()
            scores[data.known.pairs(user, user + 1)[1].tolist()] = -torch.inf
            best = np.argsort(-scores[1:].numpy())[:10] + 1
            differs |= best.tolist() != rows.tolist()
    assert differs == is_active(config.rerank)


def test_a_bundle_without_what_its_weights_need_is_refused(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    config = config_of(trained_run, {"diversity": 0.5})
    with pytest.raises(InputError, match=r"rerank.parquet: missing, .* publish again"):
        published(config, load_trained(config), tmp_path, traits=None)
