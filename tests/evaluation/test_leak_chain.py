"""Nothing of the test days gets into what is served at the cut: prepare → train → publish → lists.

The workers' own function trains, here without Ray Train around it, which only starts it.

Every event after the cut is scrambled, then deleted, and the lists of all users at the cut, their
scores and the tasks' probabilities, the counts and what trends must be the same to the last bit.
The refit is on, so that the validation events are learnt from; the test events never are.

What is fixed here is what may be recommended: the table of videos, with all that it says of videos
that nobody has seen before the test. Without such a table the catalogue is the videos of all
events. Scrambling leaves it as it is; deleting makes it smaller, and with it the tables of
embeddings, whose random initial weights are then others: no event is told by that.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray.train

from recsys.bundle.contents import Bundle
from recsys.bundle.stage import publish
from recsys.config.run import RunConfig, load_config
from recsys.evaluation.stage import load_trained
from recsys.pipeline import run_stages
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, VALID
from recsys.serve.recommender import ServingRecommender
from recsys.train.checkpoint import read_trending
from recsys.train.loop import Job, train_worker
from tests.inputs import DAY_MS, START_MS, write_config, write_rows

pytestmark = pytest.mark.ray

NUM_USERS, NUM_VIDEOS, FIRST_NEW = 16, 24, 20
HOUR_MS = 3600 * 1000
CUT_MS, END_MS = START_MS + 7 * DAY_MS + HOUR_MS // 3, START_MS + 9 * DAY_MS
SPLIT = {"kind": "time", "valid_from": "2024-05-07 00:40", "test_from": "2024-05-08 00:20"}
Rows = dict[str, np.ndarray[Any, Any]]


def events(seed: int = 0) -> Rows:
    """Days 0 to 5 are learnt from, 6 is validation, 7 and 8 the test.

    Some users and the videos from `FIRST_NEW` on come in the test alone; the cut lies within an
    hour, as that of validation does, and events right before and after it.
    """
    rng = np.random.default_rng(seed)
    count = 800
    time_ms = START_MS + rng.integers(0, 9 * DAY_MS, count)
    time_ms[:4] = [CUT_MS - 1, CUT_MS - 1, CUT_MS, CUT_MS + 1]
    is_test = time_ms >= CUT_MS
    users = rng.integers(0, np.where(is_test, NUM_USERS, NUM_USERS - 3))
    videos = rng.integers(0, np.where(is_test, NUM_VIDEOS, FIRST_NEW))
    likes = (users + videos) % 3 == 0
    return {
        "user_id": np.array([f"u{user:02}" for user in users]),
        "video_id": np.array([f"v{video:02}" for video in videos]),
        "time": time_ms,
        "clicked": (likes | (rng.random(count) < 0.2)).astype(np.int64),
        "liked": (likes & (rng.random(count) < 0.7)).astype(np.int64),
        "seconds": rng.uniform(0, 30, count),
        "tab": np.array(["home", "search"])[rng.integers(0, 2, count)],
    }


def scrambled(rows: Rows) -> Rows:
    """Every column of the test events in an order of its own, with other labels and times."""
    rng = np.random.default_rng(9)
    test = np.flatnonzero(rows["time"] >= CUT_MS)
    columns = {name: column.copy() for name, column in rows.items()}
    for column in columns.values():
        column[test] = column[rng.permutation(test)]
    for name in ("clicked", "liked"):
        columns[name][test] = 1 - columns[name][test]
    columns["seconds"][test] = rng.uniform(0, 3000, len(test))
    columns["time"][test] = rng.integers(CUT_MS, END_MS, len(test))
    return columns


def deleted(rows: Rows) -> Rows:
    """One test event is left, without which there is no test; of a user who was there before."""
    test = rows["time"] >= CUT_MS
    known = np.isin(rows["user_id"], rows["user_id"][~test])
    last = np.flatnonzero(test & known & (rows["clicked"] == 1))[-1]
    kept = ~test
    kept[last] = True
    return {name: column[kept] for name, column in rows.items()}


def write(folder: Path, rows: Rows) -> Path:
    write_rows(rows, folder / "events.parquet")
    users = [f"u{user:02}" for user in range(NUM_USERS)]
    write_rows(
        {"user_id": users, "region": ["north", "south"] * (NUM_USERS // 2)},
        folder / "users.parquet",
    )
    columns = {"positive": "clicked", "tasks": ["clicked", "liked"], "watched": "seconds"}
    data: dict[str, Any] = {
        "events": str(folder / "events.parquet"),
        "columns": {**columns, "context": ["tab"]},
        "users": str(folder / "users.parquet"),
        "user_columns": {"features": ["region"]},
    }
    numbers = range(NUM_VIDEOS)
    videos = {
        "video_id": [f"v{i:02}" for i in numbers],
        "creator": [f"c{i % 5}" for i in numbers],
        "tag": [f"t{i % 3}" for i in numbers],
        "seconds": [5.0 + i for i in numbers],
    }
    write_rows(videos, folder / "videos.parquet")
    data["videos"] = str(folder / "videos.parquet")
    data["video_columns"] = {"creator": "creator", "categories": ["tag"], "duration": "seconds"}
    # An ID of its own for a video with three events: test events must not count for it.
    train = {"epochs": 2, "batch_timelines": 4, "tables": "plain"}
    prepare = {"partitions": 2, "min_video_events": 3}
    return write_config(folder, data=data, train=train, prepare=prepare, split=SPLIT)


class Kept:
    """What Ray Train is to a worker: it says that there is one, and keeps the best checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.best, self.epochs = folder, -np.inf, 0

    def report(self, metrics: dict[str, Any], checkpoint: ray.train.Checkpoint) -> None:
        """Keeps it where it is the best so far, or where nothing tells (in a refit)."""
        if metrics["score"] >= self.best:
            self.best, self.epochs = metrics["score"], metrics["best_epoch"]
            with checkpoint.as_directory() as folder:
                shutil.copytree(folder, self.folder, dirs_exist_ok=True)


def train(config: RunConfig, patch: pytest.MonkeyPatch) -> None:
    """Fits, and refits with the validation events known, as the train stage does."""
    patch.setattr(
        ray.train,
        "get_context",
        lambda: SimpleNamespace(
            get_world_rank=lambda: 0, get_world_size=lambda: 1, get_local_world_size=lambda: 1
        ),
    )
    patch.setattr(ray.train, "get_checkpoint", lambda: None)
    patch.setattr(ray.train, "get_preemption_info", lambda: None)
    fit, refit = (Kept(Path(config.run, "train", name)) for name in ("fit", "model"))
    patch.setattr(ray.train, "report", fit.report)
    train_worker(Job(config, VALID, config.train.epochs).to_dict())
    patch.setattr(ray.train, "report", refit.report)
    trending = read_trending(str(fit.folder))
    train_worker(Job(config, TEST, fit.epochs, trending=trending).to_dict())


def served(folder: Path, rows: Rows) -> dict[str, Any]:
    """What the published bundle says at the cut, and what was known of every video then."""
    folder.mkdir()
    config = load_config(str(write(folder, rows)))
    run_stages(config, ["prepare"])
    with pytest.MonkeyPatch.context() as patch:
        train(config, patch)
    trained = load_trained(config)
    prepared = trained.prepared
    publish(trained, f"{config.run}/bundles")
    return at_the_cut(prepared, Bundle.load(config.run))


def at_the_cut(prepared: Prepared, bundle: Bundle) -> dict[str, Any]:
    """Lists, what they are made of, and what was known."""
    videos = np.arange(len(prepared.catalog))
    contexts = np.ones((len(videos), 1), np.int64)
    recommender, answers = ServingRecommender(bundle), {}
    for user in range(NUM_USERS):
        answer = recommender.recommend(f"u{user:02}", 12, now_ms=CUT_MS, context={"tab": "home"})
        answers[user] = [(v.video_id, v.score, dict(v.probabilities)) for v in answer.videos]
    trending = prepared.trending(TEST)
    assert trending is not None
    return {
        "lists": answers,
        "vectors": bundle.vectors.tolist(),
        "weight of what trends": float(bundle.recommender.trending),
        "trending": trending.tolist(),
        "counts": prepared.counts.features(videos, contexts, CUT_MS).tolist(),
        "known events": prepared.catalog.known_events(with_valid=True).tolist(),
    }


@pytest.fixture(scope="module")
def as_it_is(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    answers = served(tmp_path_factory.mktemp("leak") / "run", events())
    assert len({tuple(video for video, _, _ in rows) for rows in answers["lists"].values()}) > 3
    assert all(len(rows) for rows in answers["lists"].values())
    return answers


@pytest.mark.parametrize("change", [scrambled, deleted])
def test_events_after_the_cut_change_nothing_that_is_served_at_the_cut(
    as_it_is: dict[str, Any], tmp_path: Path, change: Any
) -> None:
    other = served(tmp_path / "run", change(events()))
    for name, expected in as_it_is.items():
        assert other[name] == expected, name


def test_events_before_the_cut_do(as_it_is: dict[str, Any], tmp_path: Path) -> None:
    """One like less on the last day before the test: the comparison is able to tell."""
    rows = events()
    last_day = (rows["time"] < CUT_MS - HOUR_MS) & (rows["time"] >= CUT_MS - DAY_MS)
    before = last_day & (rows["clicked"] == 1)
    rows["clicked"][np.flatnonzero(before)[0]] = 0
    other = served(tmp_path / "run", rows)
    for name in ("lists", "vectors", "counts"):
        assert other[name] != as_it_is[name], name
