"""What the query of an address may say: what its route asks for, and nothing else."""

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v1/popular?categories=calm", "categories: unknown parameter; allowed are k"),
        (
            "GET",
            "/v1/history?user_id=u9&limt=1",
            "limt: unknown parameter; allowed are user_id, limit",
        ),
        ("GET", "/v1/latest?k=3&n=3&m", "n: unknown parameter; allowed are k (and 1 more)"),
        ("GET", "/v1/model?x=1", "x: unknown parameter; there are none here"),
        ("POST", "/v1/recommend?k=3", "k: unknown parameter; there are none here"),
        ("POST", "/v1/score?k=3", "k: unknown parameter; there are none here"),
        ("DELETE", "/v1/users?user_id=u9&since=3", "since: unknown parameter; allowed are user_id"),
        ("POST", "/v1/videos?titel=x", "titel: unknown parameter; allowed are video_id, title, "),
        ("GET", "/v1/videos/v1/file?t=3", "t: unknown parameter; there are none here"),
        ("POST", "/v1/versions/rollback?to=1", "to: unknown parameter; allowed are from"),
    ],
)
def test_a_parameter_that_is_not_asked_for_is_refused(
    client: TestClient, method: str, path: str, error: str
) -> None:
    refused = client.request(method, path, json={"user_id": "u9"} if method == "POST" else None)
    assert refused.status_code == 422
    assert error in refused.json()["detail"]
    assert refused.json()["errors"][0]["parameter"] == error.partition(":")[0]
    assert client.get("/v1/history?user_id=u9").json()["events"], "nothing was deleted"


def test_the_page_may_be_opened_with_whatever_a_link_adds(client: TestClient) -> None:
    for path in ("/?user=u9&utm_source=mail", "/web/app.js?v=2", "/docs?x", "/openapi.json?x"):
        assert client.get(path).status_code == 200
