"""The lines that the terminal of a server has about versions."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from recsys.serve.terminal import VersionNews, follow_versions

ANSWERS: list[tuple[int, bytes]] = []


def answer(serving: str, **refused: str) -> dict[str, object]:
    there = [{"version": serving, "state": "serving", "reason": None}]
    more = [{"version": v, "state": "refused", "reason": why} for v, why in refused.items()]
    return {"serving": serving, "versions": there + more}


def test_a_version_is_told_of_once_all_replicas_serve_it() -> None:
    """Two replicas take turns; the second one changes later."""
    news, told = VersionNews(), []
    for serving in ("old", "old", "new", "old", "new", "old", "new", "new", "new", "new"):
        told += news.lines(answer(serving))
    assert told == ["version new serves now, in place of old"]
    for _ in range(3):
        told += news.lines(answer("old"))  # the way back
    assert told[1:] == ["version old serves now, in place of new"]


def test_a_refusal_is_told_of_once_and_again_for_another_reason() -> None:
    news, told = VersionNews(), []
    for reason in ("no", "no", "still no"):
        told += news.lines(answer("old", new=reason))
    assert told == [
        "version new is refused, old goes on: no",
        "version new is refused, old goes on: still no",
    ]


@pytest.fixture
def address() -> Iterator[str]:
    """A server with an answer for each request in turn, to who has the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            knows = self.headers["Authorization"] == "Bearer secret"
            known = knows and self.path == "/v1/versions"
            status, body = ANSWERS.pop(0) if known else (401, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_cannot_answer_now_is_asked_again(address: str) -> None:
    stop, told = threading.Event(), []
    good = json.dumps(answer("old", new="no")).encode()
    ANSWERS[:] = [(503, b""), (200, b"<html>"), (200, good)]

    def tell(line: str) -> None:
        told.append(line)
        stop.set()

    follow_versions(address, "secret", tell, every_s=0.001, stop=stop)
    assert told == ["version new is refused, old goes on: no"]
    assert ANSWERS == []
