"""Places that are drawn by lot obey what a request and its user say, as all others do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.config.run import RerankConfig
from recsys.inference.rerank import VideoTraits
from recsys.live.clock import now
from recsys.live.log.events import EventLog
from recsys.serve.service import Service
from tests.bundles import NUM_VIDEOS, TinyRun

ROWS = range(1, NUM_VIDEOS + 1)
USERS = [f"u{number}" for number in range(10)] + [f"stranger{number}" for number in range(10)]
FILTERS: dict[str, tuple[dict, Callable[[int], bool]]] = {
    "creators": ({"creators": ["c1"]}, lambda row: row % 3 == 0),
    "categories": ({"categories": ["wild"]}, lambda row: row % 2 == 1),
    "video_ids": ({"video_ids": ["v3", "v4", "v5", "v6", "v7"]}, lambda row: 3 <= row <= 7),
    "least length": ({"min_duration": 30}, lambda row: row % 4 > 0 and row >= 20),
    "most length": ({"max_duration": 20}, lambda row: row % 4 > 0 and row <= 10),
    "age": ({"max_age_days": 2}, lambda row: row > 20),
    "two": ({"creators": ["c1", "c2"], "max_age_days": 2}, lambda row: row % 3 < 2 and row > 20),
}
"""What a request asks for, and which rows of the tiny catalogue that lets through."""


@pytest.fixture
def service(tiny: TinyRun, tmp_path: Path) -> Service:
    """Two of five places of a page are drawn."""
    bundle = Bundle.load(str(tiny.run))
    rerank = RerankConfig(drawn_places=2, page=5, candidates=20)
    config = bundle.config.model_copy(update={"rerank": rerank})
    traits = VideoTraits(creator_row_N=bundle.catalog.creator_rows)
    bundle = replace(bundle, config=config, traits=traits)
    service = Service(bundle, EventLog(str(tmp_path / "live.sqlite")), seed=0)
    service.recommender.ages.first_ms_N[21:] = now() - 1000
    return service


def rows_for(client: TestClient, user_id: str, **asked: object) -> list[int]:
    answer = client.post("/v1/recommend", json={"user_id": user_id, "k": 5, **asked})
    assert answer.status_code == 200
    return [int(item["video_id"][1:]) for item in answer.json()["items"]]


@pytest.mark.parametrize("name", FILTERS)
def test_drawn_places_obey_filters(client: TestClient, name: str) -> None:
    filters, lets_through = FILTERS[name]
    shown = [rows_for(client, user, filters=filters, exclude_seen=False) for user in USERS]
    right = {row for row in ROWS if lets_through(row)}
    assert right and set().union(*shown) <= right
    assert all(len(set(rows)) == len(rows) == min(5, len(right)) for rows in shown)


def test_places_are_still_drawn_under_a_filter(service: Service, client: TestClient) -> None:
    """Of two creators, so that a lot that names one of them has something to show."""
    asked = {"filters": {"creators": ["c1", "c2"]}, "exclude_seen": False}
    drawn = [rows_for(client, user, **asked) for user in USERS]
    reranker = service.recommender.lists._reranker
    assert reranker is not None
    reranker._lot = None
    assert drawn != [rows_for(client, user, **asked) for user in USERS]


def test_drawn_places_obey_what_is_out_of_all_lists_and_what_a_user_refused(
    service: Service, client: TestClient
) -> None:
    """All that is left out would be drawn or found for somebody."""
    assert set().union(*(rows_for(client, user, k=20) for user in USERS)) == set(ROWS)
    past = service.recommender.history("u9")
    liked = set(past.video_rows[past.positive > 0].tolist())
    assert client.patch("/v1/videos/v1", json={"hidden": True}).status_code == 200
    assert client.patch("/v1/videos/v2", json={"expires_ms": 1_764_143_103_000}).status_code == 200
    assert client.delete("/v1/videos/v3").status_code == 200
    for event in (
        {"video_id": "v4", "type": "not_interested"},
        {"creator_id": "c3", "type": "hide_creator"},
    ):
        assert client.post("/v1/events", json={"user_id": "u9", **event}).status_code == 200
    assert not {1, 2, 3} & set().union(*(rows_for(client, user, k=20) for user in USERS))
    of_c3 = {row for row in ROWS if row % 3 == 2}
    assert liked and not (liked | of_c3 | {4}) & set(rows_for(client, "u9", k=20))
