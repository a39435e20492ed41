"""Who may do what."""

import pytest

from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.serve.http.tokens import Tokens, needed_scope

READER, SENDER, CURATOR = "r" * 16, "e" * 16, "v" * 16


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Tokens:
    monkeypatch.setenv("R", READER)
    monkeypatch.setenv("E", f"{SENDER} {'E' * 16}")
    monkeypatch.setenv("V", CURATOR)
    config = ServeConfig(
        host="0.0.0.0", read_token="env:R", events_token="env:E", videos_token="env:V"
    )
    return Tokens.of(config)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/", None),
        ("GET", "/web/app.js", None),
        ("GET", "/docs", None),
        ("GET", "/openapi.json", None),
        ("GET", "/metrics", "read"),
        ("GET", "/v1/history", "read"),
        ("GET", "/v1/videos/v1/file", "read"),
        ("POST", "/v1/recommend", "read"),
        ("POST", "/v1/recommend/batch", "read"),
        ("POST", "/v1/score", "read"),
        ("POST", "/v1/events", "events"),
        ("DELETE", "/v1/users", "events"),
        ("PUT", "/v1/videos/v1", "videos"),
        ("POST", "/v1/versions", "videos"),
        ("POST", "/healthz", "videos"),
        ("POST", "/web/../v1/events", "videos"),
        ("PATCH", "/v1/recommend", "videos"),
        ("POST", "/v1/events/", "videos"),
    ],
)
def test_scope_of_each_request(method: str, path: str, scope: str | None) -> None:
    assert needed_scope(method, path) == scope


@pytest.mark.parametrize(
    ("scope", "sent", "status"),
    [
        (None, b"", None),
        ("read", b"", 401),
        ("read", bearer("x" * 16), 401),
        ("read", b"Basic " + READER.encode(), 401),
        ("read", b"Bearer", 401),
        ("read", bearer(READER), None),
        ("read", b"bearer  " + READER.encode(), None),
        ("read", bearer(SENDER), None),
        ("read", bearer(CURATOR), None),
        ("events", b"", 401),
        ("events", bearer(SENDER), None),
        ("events", bearer("E" * 16), None),
        ("events", bearer(READER), 403),
        ("events", bearer(CURATOR), 403),
        ("videos", bearer(CURATOR), None),
        ("videos", bearer(SENDER), 403),
        ("videos", bearer(SENDER + "\xff"), 401),
    ],
)
def test_each_token_opens_its_scope_and_reads(
    tokens: Tokens, scope: str | None, sent: bytes, status: int | None
) -> None:
    refusal = tokens.refusal(scope, sent)
    assert (refusal and refusal[0]) == status


def test_no_token_is_kept_or_shown(tokens: Tokens) -> None:
    assert SENDER not in repr(tokens)
    _, line = tokens.refusal("videos", bearer(SENDER)) or (0, "")
    assert line == "this token is for events; this takes one for videos"


def test_on_this_machine_all_is_open_that_has_no_token() -> None:
    tokens = Tokens.of(ServeConfig())
    assert [tokens.refusal(s, b"") for s in ("read", "events", "videos")] == [None] * 3


def test_a_server_for_others_needs_a_token_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="serve.host=0.0.0.0 .* set serve.events_token=env:NAME"):
        Tokens.of(ServeConfig(host="0.0.0.0"))
    monkeypatch.setenv("E", SENDER)
    tokens = Tokens.of(ServeConfig(host="0.0.0.0", events_token="env:E"))
    assert tokens.refusal("read", b"") is None
    assert tokens.refusal("videos", bearer(SENDER)) == (
        403,
        "changes of videos are switched off: serve.videos_token is not set",
    )


@pytest.mark.parametrize("text", ["", " \n", "short", "é" * 16, f"{SENDER} short"])
def test_tokens_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E", text)
    with pytest.raises(InputError, match="serve.events_token=env:E: a token has at least 16"):
        Tokens.of(ServeConfig(events_token="env:E"))
