"""The same figures by independent code."""

import os

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker

# ranx compiles for a minute what plain Python works out in seconds.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
ranx = pytest.importorskip("ranx", reason="ranx is not installed; it comes with the dev extra")

NAMES = {
    "hr": "hit_rate",
    "recall": "recall",
    "precision": "precision",
    "ndcg": "ndcg",
    "mrr": "mrr",
    "map": "map",
}
NUM_USERS, NUM_VIDEOS, CUTOFFS = 100, 200, (1, 5, 10, 50)


def test_metrics_are_those_of_ranx() -> None:
    rng = np.random.default_rng(0)
    relevant = [
        rng.choice(np.arange(1, NUM_VIDEOS), rng.integers(1, 30), replace=False)
        for _ in range(NUM_USERS)
    ]
    scores = torch.from_numpy(rng.random((NUM_USERS, NUM_VIDEOS)))
    users = [f"u{number:03}" for number in range(NUM_USERS)]
    videos = VideoTable(np.zeros(NUM_VIDEOS, np.bool_), np.zeros(NUM_VIDEOS, np.int64))
    data = RankingSet(users, Ragged.from_lists(relevant), Ragged.empty(NUM_USERS), videos)
    config = EvaluateConfig(k=CUTOFFS)
    ours = evaluate_ranker(data, lambda a, b: scores[a:b], config).slices["all"].values

    qrels = ranx.Qrels(
        {user: {str(row): 1 for row in rows} for user, rows in zip(users, relevant, strict=True)}
    )
    run = ranx.Run(
        {
            user: {str(row): row_scores[row].item() for row in range(1, NUM_VIDEOS)}
            for user, row_scores in zip(users, scores, strict=True)
        }
    )
    wanted = [f"{name}@{k}" for name in NAMES.values() for k in CUTOFFS]
    theirs = ranx.evaluate(qrels, run, wanted, return_mean=False)
    for ours_name, their_name in NAMES.items():
        for k in CUTOFFS:
            difference = np.abs(ours[f"{ours_name}@{k}"] - theirs[f"{their_name}@{k}"])
            assert difference.max() < 1e-9, (ours_name, k)
