"""How likely it was that videos were tried out: worked out by hand, and as often as it happens."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.clock import now
from recsys.live.export.training import default_columns, export_training
from recsys.live.log.event import DAY_MS
from recsys.live.log.events import EventLog
from recsys.live.log.explored import ExploredVideos
from recsys.live.store.database import LogError
from recsys.serve.api import make_api
from recsys.serve.asks import Answer, Ask
from recsys.serve.lists import explored_record
from recsys.serve.lists.explored_record import ExploredRecord
from recsys.serve.lists.propensities import Tried, propensities
from recsys.serve.metrics import Metrics
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from tests.bundles import TinyRun, make_run

LATER = 1_760_000_000_000
NEW = [3, 5, 9, 12]


def tried(good: list[float], bad: list[float], expected: float, *drawn: int) -> Tried:
    """Some of a pool of videos, drawn for so many places."""
    pool = np.array(drawn)
    return Tried(pool + 1, pool, np.array(good, float), np.array(bad, float), expected)


@pytest.mark.parametrize(
    ("good", "bad", "expected", "likely"),
    [
        ([3, 3], [7, 7], 1.0, [1 / 2, 1 / 2]),
        ([3, 3], [7, 7], 0.5, [1 / 4, 1 / 4]),  # half of the lists have a place
        ([3, 3], [7, 7], 1.5, [3 / 4, 3 / 4]),  # half of them have one, half have room for both
        ([3, 3], [7, 7], 2.0, [1.0, 1.0]),
        ([4, 4, 4], [4, 4, 4], 2.0, [2 / 3, 2 / 3, 2 / 3]),
        # P(X > Y) for X of Beta(2, 1), density 2x, and Y uniform: the mean of X, 2/3.
        ([2, 1], [1, 1], 1.0, [2 / 3, 1 / 3]),
        ([3], [7], 0.3, [0.3]),
        ([3], [7], 4.0, [1.0]),
    ],
)
def test_as_worked_out_by_hand(
    good: list[float], bad: list[float], expected: float, likely: list[float]
) -> None:
    """Means of 40 estimates, each with a standard error of 0.022 at most."""
    given = tried(good, bad, expected, *range(len(good)))
    estimates = np.mean([propensities(given, seed) for seed in range(40)], axis=0)
    np.testing.assert_allclose(estimates, likely, atol=0.012)


@pytest.mark.parametrize(("size", "error"), [(2, 0.025), (100, 0.0012), (10_000, 0.00012)])
def test_the_error_of_one_estimate(size: int, error: float) -> None:
    """Of one of so many equal videos with one place; right on average, within three errors."""
    given = tried([3] * size, [7] * size, 1.0, 0)
    estimates = [propensities(given, seed)[0] for seed in range(60)]
    assert np.std(estimates) < error
    assert abs(np.mean(estimates) - 1 / size) < 3 * error / np.sqrt(60)


def test_the_same_seed_gives_the_same_and_nothing_drawn_was_impossible() -> None:
    given = tried([3, 3, 3], [7, 7, 7], 1.0, 2)
    assert propensities(given, 5) == propensities(given, 5) != propensities(given, 6)
    (hopeless,) = propensities(tried([1, 500], [500, 1], 1.0, 0), 0)
    assert 0 < hopeless < 1e-4


@pytest.fixture
def recommender(tmp_path: Path) -> ServingRecommender:
    """Four videos are new; one of them turned out well."""
    make_run(tmp_path / "run", serve={"explore": 0.1, "max_k": 20})
    recommender = ServingRecommender(Bundle.load(str(tmp_path / "run")), seed=1)
    recommender.ages.first_ms_N[NEW] = -1
    counts, nobody = recommender.bundle.counts, np.zeros((20, 1), np.int64)
    liked = np.tile([1, 1, 0, 0], (20, 1))
    counts.count_many(np.full(20, 5), nobody, np.full(20, LATER), liked)
    return recommender


def test_they_are_as_often_drawn_as_it_is_said(recommender: ServingRecommender) -> None:
    """Of 2,000 draws for 1.4 places; shares are within four standard errors of what is said."""
    explorer, times, drawn = recommender._lists._explorer, 2000, Counter[int]()
    pool = None
    for _ in range(times):
        one = explorer.draw(14, np.zeros(0, np.int64), None, LATER)
        assert one is not None  # there is one place at least
        drawn.update(one.rows.tolist())
        pool = Tried(np.array(NEW), np.arange(4), one.good_P, one.bad_P, one.expected)
    assert pool is not None
    said = np.mean([propensities(pool, seed) for seed in range(40)], axis=0)
    assert said.sum() == pytest.approx(1.4, abs=0.01)
    for row, likely in zip(NEW, said.tolist(), strict=True):
        error = np.sqrt(likely * (1 - likely) / times)
        assert abs(drawn[row] / times - likely) < 4 * error, row
    assert max(drawn, key=lambda row: drawn[row]) == 5


@pytest.fixture
def served_run(tmp_path: Path) -> TinyRun:
    return make_run(tmp_path / "run", serve={"explore": 0.5, "max_k": 20})


def test_the_showing_is_exported_with_its_propensity(service: Service, tmp_path: Path) -> None:
    """Over HTTP: half of two places, so one, for the only video that is new."""
    service.recommender.ages.first_ms_N[:] = 1
    service.recommender.ages.first_ms_N[9] = -1
    client = TestClient(make_api(service))
    exclude = ["v9"]
    first = {"user_id": "new", "k": 4, "exclude_seen": False}
    others = client.post("/v1/recommend", json={**first, "exclude": exclude}).json()["items"]
    names = [item["video_id"] for item in others]
    asked = {**first, "k": 2, "filters": {"video_ids": [*names, "v9"]}}
    for _ in range(20):
        shown = client.post("/v1/recommend", json=asked).json()
        if "explore" in [item["reason"]["kind"] for item in shown["items"]]:
            break
    events = [
        {
            **{"user_id": "new", "type": "exposure", "video_id": item["video_id"]},
            **{"impression_id": shown["impression_id"], "place": place},
        }
        for place, item in enumerate(shown["items"])
    ]
    assert client.post("/v1/events", json={"events": events}).status_code == 200
    service._explored.close()  # once all is recorded
    export_training(service.log, str(tmp_path / "out.parquet"), default_columns())
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    propensity_of = {row["video_id"]: row["propensity"] for row in rows}
    assert len(propensity_of) == 2 and propensity_of.pop("v9") == 1.0
    assert list(propensity_of.values()) == [None]


class Away(ExploredVideos):
    """A record that fails some times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.kept = failures, 0

    def add(self, explored: object) -> int:
        if self.failures:
            self.failures -= 1
            raise LogError("away")
        self.kept += len(explored)  # type: ignore[arg-type]
        return self.kept


@pytest.mark.parametrize(
    ("failures", "room", "kept", "left_out"), [(2, 9, 1, 0), (3, 9, 0, 1), (0, 0, 0, 1)]
)
def test_what_could_not_be_recorded_is_counted(
    recommender: ServingRecommender,
    failures: int,
    room: int,
    kept: int,
    left_out: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is away for two tries, for three, or too many lists wait."""
    monkeypatch.setattr(explored_record, "WAIT_S", 0.0)
    monkeypatch.setattr(explored_record, "WAITING", room)
    metrics, away = Metrics("0"), Away(failures)
    record = ExploredRecord(away, metrics)
    record.shown("i", answer_that_explores(recommender))
    record.close()
    assert away.kept == kept
    told = f'recsys_propensities_left_out_total{{replica="0"}} {float(left_out)}'
    assert told.encode() in metrics.text()


def test_a_list_of_a_time_ahead_is_recorded_as_of_when_it_was_made(
    recommender: ServingRecommender, tmp_path: Path
) -> None:
    """A deletion takes what happened until then; it must take this too."""
    answer = replace(answer_that_explores(recommender), now_ms=now() + DAY_MS)
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        record = ExploredRecord(ExploredVideos(log.database), Metrics("0"))
        record.shown("i", answer)
        record.close()
        assert ExploredVideos(log.database).propensities(["i"])
        log.forget("u9")
        assert ExploredVideos(log.database).propensities(["i"]) == {}
        assert max(log.forgotten_marks().values()) <= now()


def answer_that_explores(recommender: ServingRecommender) -> Answer:
    """With one video that is tried out."""
    for _ in range(100):
        (answer,) = recommender.answer([Ask("u9", 10, now_ms=LATER, exclude_seen=False)])
        if isinstance(answer, Answer) and answer.tried is not None:
            return answer
    raise AssertionError("no list tried anything out")
