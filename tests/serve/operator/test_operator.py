"""What whoever runs the server looks at."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.config.run import RerankConfig
from recsys.data.ragged import IntArray, Ragged
from recsys.errors import InputError
from recsys.inference.rerank import VideoTraits
from recsys.live.clock import now
from recsys.serve.api import make_api
from recsys.serve.http.tokens import Tokens
from recsys.serve.metrics import STEPS
from recsys.serve.operator.preview import (
    PageChange,
    PageFigures,
    PreviewRequest,
    SampledLists,
)
from recsys.serve.operator.preview import preview as weights_preview
from recsys.serve.service import Service
from tests.bundles import NUM_USERS, TinyRun


@pytest.fixture(autouse=True)
def at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour, and how long ago something was, are inputs of the model too."""
    at = now()
    monkeypatch.setattr("recsys.serve.recommender.now", lambda: at)


def lists(client: TestClient, k: int) -> dict[str, list[str]]:
    """The first k videos of every user, by recommending to each."""
    return {
        user: [
            item["video_id"]
            for item in client.post("/v1/recommend", json={"user_id": user, "k": k}).json()["items"]
        ]
        for user in (f"u{i}" for i in range(NUM_USERS))
    }


def audience(client: TestClient, **asked: object) -> dict:
    return client.get("/v1/operator/audience", params=asked).json()


def test_the_audience_are_those_whose_lists_hold_the_video(
    client: TestClient, service: Service
) -> None:
    shown, known = lists(client, 5), len(service.recommender.pasts)
    for video_id in ("v1", "v2", "v3"):
        answer = audience(client, video_id=video_id, k=5)
        assert (answer["num_sampled"], answer["num_users"], answer["k"]) == (known, known, 5)
        place_of = {one["user_id"]: one["place"] for one in answer["viewers"]}
        assert place_of == {u: ids.index(video_id) for u, ids in shown.items() if video_id in ids}
        places = [one["place"] for one in answer["viewers"]]
        assert places == sorted(places)
    assert any(audience(client, video_id=f"v{i}", k=5)["viewers"] for i in range(1, 31))


def test_who_was_forgotten_is_no_audience(client: TestClient) -> None:
    """The bundle's own list of users has them until the next one is made."""
    assert client.delete("/v1/users?user_id=u9").status_code == 200
    seen = {
        viewer["user_id"]
        for row in range(1, 31)
        for viewer in audience(client, video_id=f"v{row}", k=20)["viewers"]
    }
    assert seen == {f"u{number}" for number in range(9)}


def test_an_audience_is_looked_for_in_a_sample(client: TestClient) -> None:
    few = audience(client, video_id="v1", users=3, k=20)
    assert few["num_sampled"] == 3 and few == audience(client, video_id="v1", users=3, k=20)
    assert audience(client, video_id="v1", k=1000)["k"] == 20  # serve.max_k of the run


def test_a_video_that_is_unknown_has_no_audience(client: TestClient) -> None:
    answer = client.get("/v1/operator/audience", params={"video_id": "none"})
    assert answer.status_code == 404
    detail = "video_id='none': the catalogue of this model does not hold it"
    assert answer.json()["detail"] == detail


def test_what_was_shown_is_told_by_version(client: TestClient, tiny: TinyRun) -> None:
    nothing = client.get("/v1/operator/shown").json()
    assert (nothing["since_ms"], nothing["versions"], nothing["new_videos"]) == (None, [], [])
    added = client.post("/v1/videos", json={"video_id": "new", "creator_id": "c1"})
    assert added.status_code == 201
    before = now()
    shown = {
        "user_id": "u1",
        "type": "exposure",
        "video_id": "new",
        "impression_id": f"{tiny.version}.1",
    }
    client.post("/v1/events", json=shown)
    client.post("/v1/events", json={**shown, "type": "view"})
    answer = client.get("/v1/operator/shown").json()
    (version,), (video,) = answer["versions"], answer["new_videos"]
    assert version["version"] == tiny.version
    assert [(s["impressions"], s["clicks"]) for s in version["spans"]] == [(1, 1)]
    assert version["spans"][0]["begin_ms"] % answer["span_ms"] == 0
    assert (video["video_id"], video["state"]) == ("new", "indexed")
    assert video["received_ms"] <= video["indexed_ms"]
    assert before <= video["first_shown_ms"] <= now()


def test_a_replica_tells_how_it_does(client: TestClient, tiny: TinyRun) -> None:
    for user in ("u1", "nobody"):
        client.post("/v1/recommend", json={"user_id": user, "k": 3})
    client.post("/v1/events", json={"user_id": "u1", "video_id": "gone", "type": "exposure"})
    answer = client.get("/v1/operator/run").json()
    assert (answer["replica"], answer["version"]) == ("0", tiny.version)
    # The event's video is not in the catalogue, nor is one of the users known.
    assert (answer["unknown_users"], answer["unknown_videos"]) == (1, 1)
    assert (answer["errors"], answer["refused"], answer["degraded"]) == (0, 0, 0)
    assert answer["requests"] == 3
    steps = {one["step"]: one["times"] for one in answer["steps"]}
    assert steps["retrieve"] == 2 and list(steps) == list(STEPS)
    assert client.get("/v1/operator/run", params={"after_ms": -1}).status_code == 422


def test_all_of_it_needs_the_token_that_may_do_most(service: Service) -> None:
    api = make_api(service, tokens=Tokens({}, local=False))
    asked = {"creator_exposure": 0, "diversity": 0, "new_videos": 0}
    assert TestClient(api).post("/v1/operator/preview", json=asked).status_code == 403
    for path in ("run", "shown", "trace?user_id=u1", "audience?video_id=v1"):
        answer = TestClient(api).get(f"/v1/operator/{path}")
        assert answer.status_code == 403
        assert "switched off" in answer.json()["detail"]


def by(name: str) -> Callable[[dict], int]:
    return lambda video: int(video[name])


@pytest.fixture
def u9(client: TestClient) -> TestClient:
    """Of a server that knows what u9, who liked v6, wants no more, and that hides v7 from all."""
    for event in (
        {"video_id": "v4", "type": "not_interested"},
        {"creator_id": "c3", "type": "hide_creator"},
    ):
        assert client.post("/v1/events", json={"user_id": "u9", **event}).status_code == 200
    assert client.patch("/v1/videos/v7", json={"hidden": True}).status_code == 200
    return client


def traced(client: TestClient) -> dict:
    return client.get("/v1/operator/trace", params={"user_id": "u9", "k": 5}).json()


def listed(trace: dict) -> list[dict]:
    """What of a trace is in the list, in its order."""
    return sorted((one for one in trace["videos"] if one["shown"] is not None), key=by("shown"))


def test_a_trace_ends_with_the_list_that_is_shown(u9: TestClient) -> None:
    shown = u9.post("/v1/recommend", json={"user_id": "u9", "k": 5}).json()["items"]
    videos = listed(traced(u9))
    assert [(v["video_id"], v["reason"]) for v in videos] == [
        (item["video_id"], item["reason"]["kind"]) for item in shown
    ]
    assert [v["score"] for v in videos] == pytest.approx([item["score"] for item in shown])
    for video, item in zip(videos, shown, strict=True):
        assert video["probabilities"] == pytest.approx(item["probabilities"], rel=1e-5)


def test_a_trace_says_why_a_video_was_left_out(u9: TestClient) -> None:
    videos = {one["video_id"]: one for one in traced(u9)["videos"]}
    causes = {name: videos[name]["left_out"] for name in ("v4", "v6", "v7")}
    assert causes == {"v4": "not_interested", "v6": "liked", "v7": "unlisted"}
    # c3 has every third video, from v2 on; one that was liked says so.
    assert {videos[f"v{n}"]["left_out"] for n in (2, 5, 8, 11)} <= {"hidden_creator", "liked"}
    assert all(one["left_out"] is None or one["ranked"] is None for one in videos.values())


def test_a_trace_takes_a_score_apart(u9: TestClient) -> None:
    videos = sorted(traced(u9)["videos"], key=by("retrieved"))
    assert [one["retrieved"] for one in videos] == list(range(len(videos)))
    scores = [video["score"] for video in videos]
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    for one in videos:
        assert one["score"] == pytest.approx(one["match"] + one["trending"] + one["seen"], abs=1e-5)


def test_a_trace_follows_the_candidates_from_step_to_step(u9: TestClient) -> None:
    trace = traced(u9)
    # Without ranking and re-ranking the candidates are the list.
    assert [v["ranked"] for v in listed(trace)] == [0, 1, 2, 3, 4]
    assert [v["reranked"] for v in listed(trace)] == [0, 1, 2, 3, 4]
    assert sum(one["ranked"] is not None for one in trace["videos"]) == 5


def test_a_trace_tells_what_it_is_made_from(u9: TestClient) -> None:
    trace = traced(u9)
    assert (trace["num_history"], trace["known_user"], trace["rerank"]) == (27, True, {})
    asked = {"user_id": "u9", "limit": 50}
    assert trace["history"] == u9.get("/v1/history", params=asked).json()["events"]


def test_a_trace_of_somebody_unknown(client: TestClient) -> None:
    answer = client.get("/v1/operator/trace", params={"user_id": "nobody", "k": 3}).json()
    assert (answer["known_user"], answer["is_newcomer"], answer["history"]) == (False, True, [])
    assert sum(one["shown"] is not None for one in answer["videos"]) == 3


def preview(client: TestClient, **weights: float) -> dict:
    asked = {"creator_exposure": 0, "diversity": 0, "new_videos": 0, **weights}
    return client.post("/v1/operator/preview", json=asked).json()


def test_weights_are_looked_at_before_they_are_set(client: TestClient) -> None:
    shown = lists(client, 10)
    same = preview(client)
    assert same == client.post("/v1/operator/preview", json={}).json()
    assert (same["num_sampled"], same["page"], same["num_changed"]) == (10, 10, 0)
    assert same["plain"] == same["now"] == same["then"]
    assert same["changed_places"] == 0 and same["pages"] == []
    assert 0 < same["now"]["relevance"] <= 1 and same["now"]["creators_shown"] == 3
    diverse = preview(client, diversity=5)
    assert diverse["now"] == same["now"]
    assert diverse["then"]["categories"] >= same["now"]["categories"]
    even = preview(client, creator_exposure=5)
    # What is gained is paid for.
    assert even["then"]["relevance"] < even["now"]["relevance"]
    assert even["num_changed"] > 0 and 0 < even["changed_places"] < 1
    assert even["settings"] == "rerank.creator_exposure=5 rerank.diversity=0 rerank.new_videos=0"
    for change in even["pages"]:
        assert set(change["now"]) != set(change["then"])
    assert lists(client, 10) == shown  # looking changes nothing


def figures(page: PageFigures) -> list[float]:
    return [
        page.relevance,
        page.creators_shown,
        page.creator_gini,
        page.categories,
        page.new_videos,
    ]


def test_what_weights_would_do_by_hand() -> None:
    """Two users alike, four videos of two creators, pages of two; only the last video is new."""
    lists = SampledLists(
        ["a", "b"], np.array([[1, 2, 3, 4]] * 2), np.array([[1.0, 0.9, 0.8, 0.7]] * 2)
    )
    traits = VideoTraits(
        creator_row_N=np.array([0, 1, 1, 2, 2]),
        categories=Ragged.from_lists([[], [1], [1], [2], [1, 2]]),
        is_new_N=np.array([False, False, False, False, True]),
    )
    config = RerankConfig(page=2, candidates=4)

    def names(rows: IntArray) -> list[str]:
        return [f"v{row}" for row in rows]

    preview = weights_preview(lists, traits, config, PreviewRequest(new_videos=1), names)
    # All four places are of creator 1: amounts 4 and 0 have a Gini of 1/2.
    assert preview.plain == preview.now
    assert figures(preview.now) == pytest.approx([0.95, 1, 0.5, 1, 0])
    # Videos 1 and 4 have the values 1 and 1.7: a creator each, and both categories.
    assert figures(preview.then) == pytest.approx([0.85, 2, 0, 2, 0.5])
    assert (preview.changed_places, preview.num_changed, preview.num_sampled) == (0.5, 2, 2)
    assert preview.pages[0] == PageChange("a", ["v1", "v2"], ["v1", "v4"])
    without = replace(traits, creator_row_N=None)
    with pytest.raises(InputError, match=r"creator_exposure=0\.1: needs data\.video_columns"):
        weights_preview(lists, without, config, PreviewRequest(creator_exposure=0.1), names)


def test_weights_that_cannot_be_are_refused(client: TestClient) -> None:
    wrong = {"creator_exposure": -1, "diversity": 0, "new_videos": 0}
    answer = client.post("/v1/operator/preview", json=wrong)
    assert answer.status_code == 422 and "creator_exposure=-" in answer.json()["detail"]
