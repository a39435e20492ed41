"""The pass that opens pictures and clips: for whom, for what, and for how long."""

import time
from hashlib import sha256

import pytest
from fastapi.testclient import TestClient

from recsys.serve.api import make_api
from recsys.serve.http.media_pass import COOKIE, LASTS_S, make_pass, opens, pass_in
from recsys.serve.http.tokens import Tokens
from recsys.serve.service import Service

TOKEN, OTHER = "0123456789abcdef", "f" * 16
DIGEST, OTHER_DIGEST = (sha256(token.encode()).digest() for token in (TOKEN, OTHER))


def client_of(service: Service, digest: bytes = DIGEST) -> TestClient:
    return TestClient(make_api(service, tokens=Tokens({"read": (digest,)})))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_is_exchanged_for_a_cookie_that_opens_files_alone(service: Service) -> None:
    client = client_of(service)
    assert client.get("/v1/videos/v1/file").status_code == 401
    answer = client.post("/v1/media_pass", headers=bearer(TOKEN))
    left_ms = answer.json()["expires_ms"] - 1000 * time.time()
    assert 0 < left_ms <= 1000 * LASTS_S
    head = answer.headers["set-cookie"]
    assert all(part in head for part in ("HttpOnly", "SameSite=strict", "Path=/v1/videos"))
    assert TOKEN not in head and DIGEST.hex() not in head
    assert client.cookies[COOKIE]
    first = client.get("/v1/videos/v1/file", headers={"Range": "bytes=0-9"})
    assert (first.status_code, first.content) == (206, bytes(range(10)))
    # What else a token opens, the cookie does not, wherever it is sent.
    sent = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    for path in ("/v1/videos/v1", "/v1/videos", "/v1/history?user_id=u1", "/v1/videos/v1/file/x"):
        assert client.get(path, headers=sent).status_code == 401
    assert client.post("/v1/recommend", json={"user_id": "u1"}, headers=sent).status_code == 401
    assert client.delete("/v1/videos/v1/file", headers=sent).status_code in (401, 403, 405)


def test_without_a_good_token_there_is_no_pass(service: Service) -> None:
    client = client_of(service)
    for headers in ({}, bearer(OTHER)):
        answer = client.post("/v1/media_pass", headers=headers)
        assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_where_everybody_may_read_no_pass_is_needed(service: Service) -> None:
    answer = TestClient(make_api(service, tokens=Tokens())).post("/v1/media_pass")
    assert answer.json() == {"expires_ms": None} and "set-cookie" not in answer.headers


def test_a_pass_ends_with_its_token_and_its_time() -> None:
    now = 1_800_000_000
    value = make_pass(DIGEST, now + 10)
    assert opens(value, [OTHER_DIGEST, DIGEST], now)
    assert not opens(value, [OTHER_DIGEST], now)
    assert not opens(value, [], now)
    assert not opens(value, [DIGEST], now + 10)
    later = f"{now + 20}.{value.partition('.')[2]}"  # another time under the old signature
    assert not opens(later, [DIGEST], now)
    # A time further off than any that is given out, though well signed.
    assert not opens(make_pass(DIGEST, now + LASTS_S + 1), [DIGEST], now)


@pytest.mark.parametrize(
    "value", ["", ".", "1", "x.y", "1." + "0" * 63, "-1." + "0" * 64, "²." * 9]
)
def test_what_is_no_pass_opens_nothing(value: str) -> None:
    assert not opens(value, [DIGEST], 0)


def test_the_pass_is_found_among_other_cookies() -> None:
    assert pass_in(b"a=1; recsys_media=2.ab; b=3") == "2.ab"
    assert pass_in(b"not_recsys_media=2; x") == ""
    assert pass_in(b"") == ""
