"""The routes, over HTTP."""

import json

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.clock import now
from recsys.live.log.event import DAY_MS
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.serve.api import make_api
from recsys.serve.service import Service
from tests.bundles import START_MS, TinyRun, make_run


def test_recommend(client: TestClient, tiny: TinyRun) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "u9", "k": 3}).json()
    assert answer["version"] == tiny.version
    assert (answer["user_id"], answer["known_user"], answer["num_history"]) == ("u9", True, 27)
    assert len(answer["items"]) == 3
    assert set(answer["items"][0]) == {"video_id", "score", "probabilities", "reason"}
    assert answer["items"][0]["reason"].keys() == {"kind", "video_ids", "creator_id"}
    assert answer["impression_id"].startswith(f"{tiny.version}.")
    assert set(answer["items"][0]["probabilities"]) == {"click", "like"}


def test_score_lists_unknown_videos(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"user_id": "u9", "video_ids": ["v2", "zz", 7]}).json()
    assert [v["video_id"] for v in answer["items"]] == ["v2"]
    assert answer["unknown_video_ids"] == ["zz", "7"]


def test_a_user_may_be_a_number_and_unknown(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user_id": 12}).json()
    assert (answer["user_id"], answer["known_user"]) == ("12", False)
    assert len(answer["items"]) == 10


def test_events_change_what_follows(client: TestClient) -> None:
    event = {"user_id": "new", "video_id": "v3", "time_ms": START_MS, "labels": {"like": True}}
    event["watched"] = 2.5
    kept = client.post("/v1/events", json={**event, "event_id": "e1"}).json()
    assert kept == {"event_ids": ["e1"], "statuses": ["accepted"]}
    again = client.post("/v1/events", json={**event, "event_id": "e1"}).json()
    assert again == {"event_ids": ["e1"], "statuses": ["duplicate"]}
    history = client.get("/v1/history", params={"user_id": "new"}).json()
    assert history["events"] == [
        {
            "video_id": "v3",
            "time_ms": START_MS,
            "positive": True,
            "labels": {"click": False, "like": True},
            "watched": 2.5,
        }
    ]
    answer = client.post("/v1/recommend", json={"user_id": "new"}).json()
    assert (answer["known_user"], answer["num_history"]) == (True, 1)


def test_several_events_are_kept_or_none(client: TestClient) -> None:
    events = [{"user_id": "new", "video_id": f"v{row}", "event_id": f"e{row}"} for row in (1, 2)]
    wrong = [*events, {"user_id": "new", "video_id": "v3", "labels": {"clap": True}}]
    refused = client.post("/v1/events", json={"events": wrong})
    assert refused.status_code == 422
    detail = "event 3 of 3: labels.clap: unknown; this model's tasks: click, like"
    assert refused.json()["detail"] == detail
    assert client.get("/v1/history?user_id=new").json()["events"] == []
    kept = client.post("/v1/events", json={"events": events}).json()
    assert kept["statuses"] == ["accepted", "accepted"]
    assert len(client.get("/v1/history?user_id=new").json()["events"]) == 2


def test_an_event_carries_the_version_of_its_impression(
    client: TestClient, service: Service
) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "new", "k": 1}).json()
    event = {"user_id": "new", "video_id": answer["items"][0]["video_id"], "place": 0}
    event |= {"type": "exposure", "impression_id": answer["impression_id"]}
    client.post("/v1/events", json=event)
    logged = service.log.of_user("new")[0].event
    assert (logged.version, logged.impression_id) == (answer["version"], answer["impression_id"])


def test_an_impression_id_need_not_be_one_of_ours(client: TestClient, service: Service) -> None:
    event = {"user_id": "new", "video_id": "v1", "impression_id": ".5"}
    assert client.post("/v1/events", json=event).json()["statuses"] == ["accepted"]
    assert service.log.of_user("new")[0].event.version is None


def test_many_users_in_one_call(client: TestClient) -> None:
    asked = [{"user_id": "u9", "k": 3}, {"user_id": "u5", "k": 2, "now_ms": now()}]
    answers = client.post("/v1/recommend/batch", json={"requests": asked}).json()["answers"]
    assert [(one["user_id"], len(one["items"])) for one in answers] == [("u9", 3), ("u5", 2)]
    assert len({one["impression_id"] for one in answers}) == 2
    refused = client.post(
        "/v1/recommend/batch", json={"requests": [asked[0], {**asked[1], "k": 99}]}
    )
    assert refused.json()["detail"] == "requests.1: k=99: must be from 1 to 20 (serve.max_k)"


def test_pages_and_filters(client: TestClient) -> None:
    asked = {"user_id": "u9", "k": 4, "filters": {"creators": ["c1"]}, "exclude_seen": False}
    first = client.post("/v1/recommend", json=asked).json()
    second = client.post("/v1/recommend", json={**asked, "cursor": first["cursor"]}).json()
    third = client.post("/v1/recommend", json={**asked, "cursor": second["cursor"]}).json()
    shown = [item["video_id"] for page in (first, second, third) for item in page["items"]]
    assert sorted(int(video[1:]) for video in shown) == [r for r in range(1, 31) if r % 3 == 0]
    assert third["cursor"] is None


@pytest.mark.parametrize("name", ["video_ids", "creators", "categories"])
def test_a_filter_that_names_nothing_lets_nothing_through(client: TestClient, name: str) -> None:
    """As one that names only what is not there: whoever may see nothing must not see all."""
    for user_id in ("u9", "nobody"):
        asked = {"user_id": user_id, "filters": {name: []}}
        assert client.post("/v1/recommend", json=asked).json()["items"] == []
        unfiltered = {"user_id": user_id, "filters": {name: None}}
        assert len(client.post("/v1/recommend", json=unfiltered).json()["items"]) == 10


def test_lists_for_everybody(client: TestClient) -> None:
    similar = client.get("/v1/similar?video_id=v5&k=3").json()["items"]
    assert len(similar) == 3 and "v5" not in [item["video_id"] for item in similar]
    latest = client.get("/v1/latest?k=2").json()["items"]
    assert [item["video_id"] for item in latest] == ["v30", "v29"]
    client.post("/v1/events", json={"user_id": "someone", "video_id": "v6"})
    popular = client.get("/v1/popular?k=5").json()["items"]
    assert [item["video_id"] for item in popular] == ["v6"]
    missing = client.get("/v1/similar?video_id=zz")
    assert missing.status_code == 422 and "not in the catalogue" in missing.json()["detail"]


def test_a_user_has_their_data_deleted(client: TestClient) -> None:
    for row in (1, 2):
        client.post("/v1/events", json={"user_id": "u9", "video_id": f"v{row}"})
    assert client.delete("/v1/users?user_id=u9").json() == {"user_id": "u9", "deleted": 2}
    assert client.get("/v1/history?user_id=u9").json()["events"] == []
    answer = client.post("/v1/recommend", json={"user_id": "u9"}).json()
    assert (answer["num_history"], answer["known_user"]) == (0, False)
    assert "u9" not in client.get("/v1/users?limit=50").json()["user_ids"]
    client.post("/v1/events", json={"user_id": "u9", "video_id": "v1"})
    assert client.get("/v1/history?user_id=u9").json()["known_user"]


def test_ready_when_the_log_is_read(client: TestClient, service: Service) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    client.post("/v1/recommend", json={"user_id": "u9"})
    assert client.get("/readyz").json()["status"] == "ok"
    service._caught_up = False
    waiting = client.get("/readyz")
    assert (waiting.status_code, waiting.json()["status"]) == (503, "starting")


def test_live_videos_that_cannot_be_looked_at_are_counted(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = service.desk
    desk._end.set()
    desk._teller.join()
    for error in (LogError("away"), ZeroDivisionError("ours")):
        desk._end.clear()

        def tell(error: Exception = error) -> None:
            desk._end.set()
            raise error

        monkeypatch.setattr(desk, "tell", tell)
        desk._tell_on()
    failed = 'recsys_failures_total{replica="0",work="videos"} 2.0'
    assert failed in client.get("/metrics").text


def test_a_fault_while_following_is_told_and_ends_nothing(
    client: TestClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fault() -> None:
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as patched:
        patched.setattr(service.recommender, "catch_up", fault)
        service._follow()
    assert "the event log could not be followed" in caplog.text and "ours" in caplog.text
    assert 'recsys_log_failures_total{replica="0"} 0.0' not in client.get("/metrics").text
    assert client.post("/v1/recommend", json={"user_id": "u9"}).status_code == 200


def test_figures_for_prometheus(client: TestClient, tiny: TinyRun) -> None:
    client.post("/v1/recommend", json={"user_id": "nobody"})
    client.post("/v1/score", json={"user_id": "u9", "video_ids": ["zz", "yy", "v1"]})
    client.post("/v1/events", json={"user_id": "u9", "video_id": "v3"})
    text = client.get("/metrics").text
    for line in (
        'recsys_unknown_ids_total{kind="user",replica="0"} 1.0',
        'recsys_unknown_ids_total{kind="video",replica="0"} 2.0',
        'recsys_events_total{replica="0",status="accepted"} 1.0',
        'recsys_request_seconds_count{replica="0",route="/v1/recommend",status="200"} 1.0',
    ):
        assert line in text, text
    assert tiny.version in text and 'step="retrieve"' in text


def test_history_is_newest_first(client: TestClient, tiny: TinyRun) -> None:
    answer = client.get("/v1/history", params={"user_id": "u9", "limit": 2}).json()
    rows = tiny.timelines.column("video_row")[9].as_py()
    assert [e["video_id"] for e in answer["events"]] == [f"v{rows[-1]}", f"v{rows[-2]}"]
    assert client.get("/v1/history?user_id=nobody").json() == {
        "user_id": "nobody",
        "known_user": False,
        "events": [],
    }


def test_facts(client: TestClient, tiny: TinyRun) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": tiny.version}
    model = client.get("/v1/model").json()
    assert (model["num_videos"], model["num_users"], model["index"]) == (30, 10, "flat")
    assert (model["tasks"], model["context"]) == (["click", "like"], ["tab"])
    assert (model["watched"], model["watched_per_s"]) == ("seconds", 1.0), "it has no durations"
    assert model["metrics"] == {"hr@10": 0.25, "cold": {"hr@10": None}}
    users = client.get("/v1/users?limit=2").json()
    assert users == {"num_users": 10, "user_ids": ["u0", "u1"]}


def test_openapi_names_every_route(client: TestClient, tiny: TinyRun) -> None:
    for path in ("/docs", "/openapi.json"):
        assert tiny.version not in client.get(path).text, "another one may serve by now"
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/events",
        "/v1/history",
        "/v1/latest",
        "/v1/model",
        "/v1/popular",
        "/v1/recommend",
        "/v1/recommend/batch",
        "/v1/score",
        "/v1/similar",
        "/v1/users",
        "/v1/versions",
        "/v1/versions/{version}/activate",
        "/v1/versions/{version}/challenge",
        "/v1/versions/rollback",
        "/v1/challenger",
        "/v1/videos",
        "/v1/videos/{video_id}",
        "/v1/courses",
        "/v1/videos/{video_id}/captions",
        "/v1/videos/{video_id}/file",
        "/v1/videos/{video_id}/poster",
        "/v1/details",
        "/v1/media_pass",
        "/v1/operator/audience",
        "/v1/operator/preview",
        "/v1/operator/run",
        "/v1/operator/shown",
        "/v1/operator/trace",
    }


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("recommend", {}, "user_id: field required"),
        ("recommend", {"user_id": None}, "user_id=null: must be text or an integer"),
        ("recommend", {"user_id": True}, "user_id=true: must be text or an integer"),
        ("recommend", {"user_id": ""}, "user_id='': has 0 characters; allowed are 1 to 256"),
        (
            "recommend",
            {"user_id": "u" * 257},
            "uuu...': has 257 characters; allowed are 1 to 256",
        ),
        ("recommend", {"user_id": "u", "k": 0}, "k=0: input should be greater than or equal to 1"),
        ("recommend", {"user_id": "u", "k": 21}, "k=21: must be from 1 to 20 (serve.max_k)"),
        ("recommend", {"user_id": "u", "k": "3"}, "k='3': input should be a valid integer"),
        ("recommend", {"user_id": "u", "n": 3}, "n: extra inputs are not permitted"),
        (
            "recommend",
            {"user_id": "u", "now_ms": 10**15},
            "now_ms=1000000000000000: these are microseconds; send milliseconds; the server's",
        ),
        (
            "recommend",
            {"user_id": "u", "now_ms": 1_700_000_000},
            "now_ms=1700000000: these are seconds; send milliseconds; the server's time is",
        ),
        (
            "score",
            {"user_id": "u", "video_ids": ["v1"], "now_ms": now() + 2 * DAY_MS},
            "more than a day ahead; check the sender's clock; the server's time is",
        ),
        (
            "recommend/batch",
            {"requests": [{"user_id": "u"}, {"user_id": "u", "now_ms": 0}]},
            "requests.1.now_ms=0: before 2000; check the sender's clock; the server's time is",
        ),
        (
            "videos",
            {"video_id": "x", "expires_ms": 1_900_000_000},
            "expires_ms=1900000000: these are seconds; send milliseconds; the server's time is",
        ),
        (
            "videos",
            {"video_id": "x", "expires_ms": 9 * 10**14},
            "expires_ms=900000000000000: after 9999-12-31T23:59:59Z; check",
        ),
        (
            "recommend",
            {"user_id": "u", "context": {"age": 3}},
            "context.age: unknown; this model's context columns: tab",
        ),
        (
            "score",
            {"user_id": "u", "video_ids": ["v1"] * 41},
            "41 video_ids: must be from 1 to 40 (serve.max_videos)",
        ),
        (
            "score",
            {"user_id": "u", "video_ids": [[]]},
            "video_ids.0=[]: must be text or an integer",
        ),
        (
            "score",
            {"user_id": "u", "video_ids": ["v1"], "user": {"": 1}},
            "user.: has 0 characters",
        ),
        (
            "events",
            {"user_id": "u", "video_id": "v1", "watched": -1},
            "watched=-1: input should be greater than or equal to 0",
        ),
        ("events", {"user_id": "u"}, "video_id: an event of type view needs it; add it"),
        (
            "events",
            {"user_id": "u", "video_id": "v1", "type": "stare"},
            "type='stare': allowed are",
        ),
        (
            "events",
            {"user_id": "u", "video_id": "v1", "time_ms": 1_700_000_000},
            "time_ms=1700000000: these are seconds; send milliseconds; the server's time is",
        ),
    ],
)
def test_wrong_requests_get_422_and_one_line(
    client: TestClient, path: str, body: dict[str, object], error: str
) -> None:
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert error in response.json()["detail"]
    assert "\n" not in response.json()["detail"]


def test_a_body_that_is_no_json_gets_422(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/recommend", content=b"{", headers=headers)
    assert response.status_code == 422
    assert "not valid JSON" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("recommend", {"user_id": "\ud83d"}),
        ("recommend", {"user_id": "u", "context": {"\ud83d": "x"}}),
        ("recommend", {"user_id": "u", "user": {"region": "\ud83d"}}),
        ("recommend", {"user_id": "u", "exclude": ["\ud83d"]}),
        ("score", {"user_id": "u", "video_ids": ["\ud83d"]}),
        ("events", {"user_id": "\ud83d", "video_id": "v1"}),
        ("events", {"user_id": "u", "video_id": "v1", "labels": {"\ud83d": True}}),
        ("events", {"user_id": "u", "video_id": "v1", "event_id": "\ud83d"}),
    ],
)
def test_half_a_character_is_refused_and_nothing_is_kept(
    client: TestClient, path: str, body: dict[str, object]
) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post(f"/v1/{path}", content=json.dumps(body), headers=headers)
    assert response.status_code == 422
    assert client.get("/v1/users").status_code == 200
    assert client.get("/v1/history?user_id=u").json()["events"] == []


def test_a_body_without_its_type_is_told_of_the_header(client: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = client.post("/v1/recommend", content=b'{"user_id": "u1"}', headers=headers)
    assert response.status_code == 415
    assert "Content-Type" in response.json()["detail"]


def test_not_a_number_is_said_to_be_none(client: TestClient) -> None:
    body = b'{"user_id": "u1", "video_id": "v1", "watched": NaN}'
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/events", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("watched: not a number")


def test_a_large_body_is_refused(client: TestClient) -> None:
    large = {"user_id": "u", "context": {"tab": "x" * 2_000_000}}
    assert client.post("/v1/recommend", json=large).status_code == 413


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nothing").json()["detail"] == "GET /nothing: not found"
    assert client.get("/v1/recommend").status_code == 405
    neither = client.put("/v1/users?user_id=u1")
    assert (neither.status_code, neither.headers["allow"]) == (405, "DELETE, GET")
    assert neither.json()["detail"].endswith("this method is not allowed; use DELETE, GET")
    assert client.get("/v1/users?limit=0").status_code == 422


def test_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert 'src="web/app.js"' in page.text and 'href="web/style.css"' in page.text
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css")):
        part = client.get(f"/web/{name}")
        assert part.headers["content-type"].startswith(kind)
        assert "http://" not in part.text and "https://" not in part.text
    assert client.get("/web/..%2fapi.py").status_code == 404


def test_a_video_file_whole_and_in_part(client: TestClient) -> None:
    url = "/v1/videos/v1/file"
    whole = client.get(url)
    assert whole.status_code == 200 and whole.content == bytes(range(200))
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))
    assert part.headers["content-range"] == "bytes 10-19/200"
    parts = client.get(url, headers={"Range": "bytes=0-1,10-19"})
    assert parts.headers["content-type"].startswith("multipart/byteranges")


@pytest.mark.parametrize(
    ("asked", "status", "size"), [("bytes=900-", 416, "bytes */200"), ("bytes=x", 400, None)]
)
def test_a_range_that_is_none_is_a_problem(
    client: TestClient, asked: str, status: int, size: str | None
) -> None:
    refused = client.get("/v1/videos/v1/file", headers={"Range": asked})
    assert (refused.status_code, refused.headers.get("content-range")) == (status, size)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].startswith("Range: no part of this file")


@pytest.mark.parametrize(
    "video_id",
    ["v2", "v3", "v4", "zz", "..%2F..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "v1%00", "..%2Fv1"],
)
def test_no_other_file_is_served(client: TestClient, video_id: str) -> None:
    """v2's file is no video, v3's lies elsewhere, v4 has none; the others are not ids."""
    response = client.get(f"/v1/videos/{video_id}/file")
    assert response.status_code == (422 if "%00" in video_id else 404)
    assert response.headers["content-type"] == "application/problem+json"


def test_files_can_be_switched_off(tmp_path) -> None:  # type: ignore[no-untyped-def]
    clip = tmp_path / "one.mp4"
    clip.write_bytes(b"x")
    make_run(tmp_path / "run", uris=[str(clip)], serve={"files": False})
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(Bundle.load(str(tmp_path / "run")), log)
    assert TestClient(make_api(service)).get("/v1/videos/v1/file").status_code == 404
    service.close()
