"""A model that peeks at the future looks good where the split leaks, not under a cut in time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig, RunConfig, load_config
from recsys.evaluation.baselines.likes import DAY_MS
from recsys.evaluation.baselines.simple import Neighbours, item_knn
from recsys.evaluation.from_prepared import known_likes, ranking_set
from recsys.evaluation.ranking import evaluate_ranker
from recsys.inference.encode import all_vectors
from recsys.inference.predict import concat, predict
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.prepare.prepared import Prepared
from recsys.prepare.stage import prepare
from recsys.schema import TEST
from tests.inputs import START_MS, write_input

pytestmark = pytest.mark.ray

NUM_PAIRS = 30
TIME = {"kind": "time", "valid_from": "2024-05-07", "test_from": "2024-05-08"}
LEAKING = {"kind": "leave_one_out"}


def events() -> dict[str, Any]:
    """Pairs of users who like one video of their own; in the test the first likes an answer.

    What tells the answer comes later: the second of the pair likes it too, and then two more.
    """
    rows = []
    for pair in range(NUM_PAIRS):
        first, second, noise = f"u{pair}", f"p{pair}", [f"x{(pair + i) % 9}" for i in range(3)]
        rows += [(first, f"key{pair}", 1.0), (first, noise[0], 6.3), (first, f"a{pair}", 7.2)]
        rows += [(second, f"key{pair}", 1.1), (second, f"a{pair}", 7.5)]
        rows += [(second, noise[1], 7.6), (second, noise[2], 7.7)]
    return {
        "user_id": [user for user, _, _ in rows],
        "video_id": [video for _, video, _ in rows],
        "time": [START_MS + int(day * DAY_MS) for _, _, day in rows],
        "clicked": [1] * len(rows),
        "liked": [0] * len(rows),
        "seconds": [0.0] * len(rows),
        "tab": ["home"] * len(rows),
    }


def prepared(folder: Path, split: dict[str, Any]) -> Prepared:
    config: RunConfig = load_config(str(write_input(folder, events(), split=split)))
    prepare(config, str(folder / "run" / "prepare"))
    return Prepared(config)


def answered(run: Prepared) -> float:
    """How often the answer is in the first place for the first user of a pair.

    The ranker learns from whatever the split calls known, of all users.
    """
    config = run.config.model
    tables = PlainTables(table_specs(config, run.sizes))
    model = Recommender(config, run.sizes, tables=tables).eval()
    vectors = all_vectors(model, run.video_inputs(with_valid=True), torch.device("cpu"))
    parts = [
        predict(model, vectors, run.timelines(number), split=TEST, max_history=20)
        for number in range(len(run.partitions))
    ]
    predictions = concat(parts, model.dim, run.sizes.num_tasks)
    data = ranking_set(run, predictions, run.catalog.known_events(with_valid=True) == 0)
    lists = known_likes(run).lists
    ranker = item_knn(Neighbours.of(lists, data.num_videos, data.known, most=500), data)
    hits = evaluate_ranker(data, ranker, EvaluateConfig(k=(1,))).slices["all"].values["hr@1"]
    firsts = [user.startswith("u") for user in predictions.user_ids]
    assert sum(firsts) == NUM_PAIRS
    return float(hits[np.array(firsts)].mean())


def test_peeking_pays_only_where_the_split_leaks(ray_local: None, tmp_path: Path) -> None:
    (tmp_path / "leaking").mkdir()
    (tmp_path / "ours").mkdir()
    assert answered(prepared(tmp_path / "leaking", LEAKING)) > 0.9
    assert answered(prepared(tmp_path / "ours", TIME)) < 0.1


def test_nothing_later_is_known(ray_local: None, tmp_path: Path) -> None:
    run = prepared(tmp_path, TIME)
    cut = START_MS + 7 * DAY_MS
    for number in range(len(run.partitions)):
        timelines = run.timelines(number)
        assert ((timelines.split == TEST) == (timelines.time_ms >= cut)).all()
    ids = np.array(run.catalog.video_ids().to_pylist(), object)
    answers = [str(video).startswith("a") for video in ids]
    assert sum(answers) == NUM_PAIRS
    assert not run.catalog.known_positives(with_valid=True)[answers].any()
