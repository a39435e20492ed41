import pytest
from fastapi.testclient import TestClient

from recsys.serve.api import make_api
from recsys.serve.recommender import ServingRecommender
from tests.bundles import START_MS, TinyRun, make_run


@pytest.fixture
def client(served: ServingRecommender) -> TestClient:
    return TestClient(make_api(served))


def test_recommend(client: TestClient, tiny: TinyRun) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "u9", "k": 3}).json()
    assert answer["version"] == tiny.version
    assert (answer["user_id"], answer["known_user"], answer["num_history"]) == ("u9", True, 27)
    assert len(answer["items"]) == 3
    assert set(answer["items"][0]) == {"video_id", "score", "probabilities"}
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
    event = {"user_id": "new", "video_id": "v3", "time_ms": START_MS, "actions": {"like": True}}
    event["watched"] = 2.5
    assert client.post("/v1/events", json=event).json() == {"user_id": "new", "num_history": 1}
    history = client.get("/v1/history", params={"user_id": "new"}).json()
    assert history["events"] == [
        {
            "video_id": "v3",
            "time_ms": START_MS,
            "positive": True,
            "actions": {"click": False, "like": True},
            "watched": 2.5,
        }
    ]
    answer = client.post("/v1/recommend", json={"user_id": "new"}).json()
    assert (answer["known_user"], answer["num_history"]) == (True, 1)


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
    assert model["watched"] == "seconds"
    assert model["metrics"] == {"hr@10": 0.25, "cold": {"hr@10": None}}
    users = client.get("/v1/users?limit=2").json()
    assert users == {"num_users": 10, "user_ids": ["u0", "u1"]}


def test_openapi_names_every_route(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/healthz",
        "/v1/events",
        "/v1/history",
        "/v1/model",
        "/v1/recommend",
        "/v1/score",
        "/v1/users",
        "/v1/videos/{video_id}/file",
    }


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("recommend", {}, "user_id: field required"),
        ("recommend", {"user_id": None}, "user_id: must be text or an integer"),
        ("recommend", {"user_id": True}, "user_id: must be text or an integer"),
        ("recommend", {"user_id": ""}, "user_id: must have 1 to 256 characters"),
        ("recommend", {"user_id": "u" * 257}, "user_id: must have 1 to 256 characters"),
        ("recommend", {"user_id": "u", "k": 0}, "k: input should be greater than or equal to 1"),
        ("recommend", {"user_id": "u", "k": 21}, "k=21: must be from 1 to 20 (serve.max_k)"),
        ("recommend", {"user_id": "u", "k": "3"}, "k: input should be a valid integer"),
        ("recommend", {"user_id": "u", "n": 3}, "n: extra inputs are not permitted"),
        (
            "recommend",
            {"user_id": "u", "now_ms": 10**15},
            "now_ms: input should be less than or equal to 253402300799999",
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
        ("score", {"user_id": "u", "video_ids": [[]]}, "video_ids.0: must be text or an integer"),
        (
            "events",
            {"user_id": "u", "video_id": "v1", "watched": -1},
            "watched: input should be greater than or equal to 0",
        ),
        ("events", {"user_id": "u", "video_id": "zz"}, "not in the catalogue of this model"),
    ],
)
def test_wrong_requests_get_422_and_one_line(
    client: TestClient, path: str, body: dict[str, object], error: str
) -> None:
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 422
    assert set(response.json()) == {"error"}
    assert error in response.json()["error"]


def test_a_body_that_is_no_json_gets_422(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/recommend", content=b"{", headers=headers)
    assert response.status_code == 422
    assert response.json()["error"].startswith("the body is not valid JSON")


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.get("/v1/recommend").status_code == 405
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
    assert client.get(url, headers={"Range": "bytes=900-"}).status_code == 416


@pytest.mark.parametrize(
    "video_id",
    ["v2", "v3", "v4", "zz", "..%2F..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "v1%00", "..%2Fv1"],
)
def test_no_other_file_is_served(client: TestClient, video_id: str) -> None:
    """v2's file is no video, v3's lies elsewhere, v4 has none; the others are not ids."""
    response = client.get(f"/v1/videos/{video_id}/file")
    assert response.status_code == 404
    assert "no file of it is served here" in response.json()["error"]


def test_files_can_be_switched_off(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from recsys.bundle.contents import Bundle

    clip = tmp_path / "one.mp4"
    clip.write_bytes(b"x")
    make_run(tmp_path / "run", uris=[str(clip)], serve={"files": False})
    served = ServingRecommender(Bundle.load(str(tmp_path / "run")))
    assert TestClient(make_api(served)).get("/v1/videos/v1/file").status_code == 404
