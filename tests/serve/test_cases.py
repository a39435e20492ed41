"""Cases that once went wrong, over HTTP: what callers send, and what must come of it."""

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response

from recsys.bundle.contents import Bundle
from recsys.errors import InputError
from recsys.features.liked import liked_in_spans
from recsys.features.timelines import Timelines
from recsys.live.clock import now
from recsys.live.log.event import DAY_MS
from recsys.live.log.events import EventLog
from recsys.live.text import check_id
from recsys.serve.api import make_api
from recsys.serve.app import read_args
from recsys.serve.service import Service
from tests.bundles import COLUMNS, DATA_WITH_VIDEOS, NUM_VIDEOS, START_MS, TinyRun, make_run
from tests.serve.http.test_guard import listening

EVERY = {f"v{row}" for row in range(1, NUM_VIDEOS + 1)}
JSON = {"Content-Type": "application/json"}
MIB = 2**20


@contextlib.contextmanager
def serving(bundle: Bundle, log: Path) -> Iterator[TestClient]:
    """A replica of its own, with a connection of its own to the log."""
    service = Service(bundle, EventLog(str(log)), seed=0)
    try:
        yield TestClient(make_api(service))
    finally:
        service.close()


@pytest.fixture
def client(tiny: TinyRun, tmp_path: Path) -> Iterator[TestClient]:
    with serving(Bundle.load(str(tiny.run)), tmp_path / "live.sqlite") as client:
        yield client


def tell(client: TestClient, user_id: str, video_id: str, **fields: object) -> Response:
    event = {"user_id": user_id, "video_id": video_id, **fields}
    return client.post("/v1/events", json=event)


def watched(client: TestClient, user_id: str) -> list[str]:
    events = client.get("/v1/history", params={"user_id": user_id, "limit": 1000}).json()["events"]
    return [event["video_id"] for event in events]


def recommended(client: TestClient, user_id: str, **asked: object) -> list[str]:
    answer = client.post("/v1/recommend", json={"user_id": user_id, "k": 20, **asked}).json()
    return [item["video_id"] for item in answer["items"]]


@pytest.mark.parametrize(
    ("said", "liked"),
    [
        ({}, True),
        ({"positive": True}, True),
        ({"positive": False}, False),
        ({"labels": {"click": False}}, False),
        ({"type": "exposure"}, False),
    ],
    ids=["view", "told", "told not", "label", "exposure"],
)
def test_a_view_counts_where_what_is_positive_is_also_a_task(
    tmp_path: Path, said: dict[str, object], liked: bool
) -> None:
    """As the document says of `positive`: in the history, and in what does not come again."""
    columns = COLUMNS.model_copy(update={"positive": "click"})
    data = {**DATA_WITH_VIDEOS, "columns": columns.model_dump()}
    run = make_run(tmp_path / "run", data=data)
    with serving(Bundle.load(str(run.run)), tmp_path / "live.sqlite") as client:
        assert tell(client, "new", "v3", **said).json()["statuses"] == ["accepted"]
        (event,) = client.get("/v1/history?user_id=new").json()["events"]
        assert (event["positive"], event["labels"]["click"]) == (liked, liked)
        only = {"filters": {"video_ids": ["v3"]}}
        assert recommended(client, "new", **only) == ([] if liked else ["v3"])


@pytest.mark.parametrize("fields", [{"event_id": "e1"}, {"time_ms": START_MS}, {}])
def test_a_retry_counts_once(client: TestClient, fields: dict[str, object]) -> None:
    """Known by its id, by its content, or by its content within a minute."""
    asked = {"user_id": "u8", "video_ids": ["v1", "v3", "v6"], "now_ms": now() + DAY_MS - 60_000}
    statuses, scores = [], []
    for _ in range(3):
        statuses += tell(client, "u8", "v3", **fields).json()["statuses"]
        scores.append(client.post("/v1/score", json=asked).json())
    assert statuses == ["accepted", "duplicate", "duplicate"]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0]["num_history"] == 25


def test_a_clock_three_seconds_ahead_is_heard_at_once(client: TestClient) -> None:
    assert tell(client, "new", "v3", time_ms=now() + 3000).status_code == 200
    assert watched(client, "new") == ["v3"]
    assert "v3" not in recommended(client, "new")


@pytest.mark.parametrize(
    ("time_ms", "reason"),
    [
        (now() // 1000, "these are seconds; send milliseconds"),
        (now() + 365 * DAY_MS, "more than a day ahead; check the sender's clock"),
        (0, "before 2000; check the sender's clock"),
    ],
)
def test_a_time_that_cannot_be_is_refused(client: TestClient, time_ms: int, reason: str) -> None:
    refused = tell(client, "new", "v3", time_ms=time_ms)
    assert refused.status_code == 422
    assert f"time_ms={time_ms}: {reason}; the server's time is " in refused.json()["detail"]
    assert watched(client, "new") == []


def test_a_late_event_counts_in_a_full_history(client: TestClient) -> None:
    """The model reads 27 events, and this is the oldest of 28."""
    for row in range(1, 28):
        tell(client, "new", f"v{row}", time_ms=now() - row * 1000)
    assert tell(client, "new", "v29", time_ms=now() - 10 * DAY_MS).json()["statuses"] == [
        "accepted"
    ]
    assert watched(client, "new")[-1] == "v29"
    assert set(recommended(client, "new")) == {"v28", "v30"}


def test_what_was_liked_never_comes_again_as_in_evaluation(tmp_path: Path) -> None:
    """The model reads 2 events; what was liked in the 24 before is left out too."""
    model = {"content": {"encoder": "none"}, "dim": 8, "id_dim": 8, "feature_dim": 4}
    run = make_run(
        tmp_path / "run",
        model={**model, "state_dim": 16, "max_history": 2},
        serve={"max_k": NUM_VIDEOS},
    )
    bundle = Bundle.load(str(run.run))
    timeline = Timelines.from_table(
        run.timelines.slice(9, 1), COLUMNS, lambda rows, *_: np.zeros((len(rows), 0))
    )
    # What evaluation takes out of the ranking: the last of the 27 events is the test's.
    masked = liked_in_spans(timeline, np.array([0]), np.array([26]))[0]
    known = {f"v{row}" for row in masked}
    with serving(bundle, tmp_path / "live.sqlite") as client:
        asked = {"k": NUM_VIDEOS, "now_ms": START_MS + 13 * DAY_MS}
        assert EVERY - set(recommended(client, "u9", **asked)) == known and len(known) > 2
        for row in range(1, 29):
            tell(client, "new", f"v{row}", time_ms=now() - (100 - row) * 1000)
        assert set(recommended(client, "new", k=NUM_VIDEOS)) == {"v29", "v30"}


def test_what_one_replica_is_told_all_know(tiny: TinyRun, tmp_path: Path) -> None:
    """Also one that starts later, after the others have gone."""
    log, bundle = tmp_path / "live.sqlite", str(tiny.run)
    with serving(Bundle.load(bundle), log) as one, serving(Bundle.load(bundle), log) as two:
        for row in range(1, 6):
            teller, asked = (one, two) if row % 2 else (two, one)
            tell(teller, "new", f"v{row}", time_ms=now() - 1000 + row)
            assert watched(asked, "new") == [f"v{n}" for n in range(row, 0, -1)]
            assert f"v{row}" not in recommended(asked, "new")
        at = now()  # once: what trends goes by the hour
        assert recommended(one, "new", now_ms=at) == recommended(two, "new", now_ms=at)
    with serving(Bundle.load(bundle), log) as three:
        assert watched(three, "new") == ["v5", "v4", "v3", "v2", "v1"]


def test_settings_of_the_command_line_are_obeyed(tiny: TinyRun, tmp_path: Path) -> None:
    """The bundle was published with max_k=20."""
    source, serve = read_args({"bundle": str(tiny.run), "replicas": "2", "max_k": "25"})
    assert serve.replicas == 2
    bundle = Bundle.load(source.folder).with_settings(serve)
    with serving(bundle, tmp_path / "live.sqlite") as client:
        assert len(recommended(client, "u0", k=25, exclude_seen=False)) == 25
        refused = client.post("/v1/recommend", json={"user_id": "u0", "k": 26})
        assert refused.json()["detail"] == "k=26: must be from 1 to 25 (serve.max_k)"
        assert client.get("/v1/model").json()["max_k"] == 25


@pytest.mark.parametrize("announced", [True, False])
def test_200_mib_are_not_read(tiny: TinyRun, tmp_path: Path, announced: bool) -> None:
    """Refused by what it announces, or where it has said nothing, once it is too long."""
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")))
    length = b"Content-Length: %d" % (200 * MIB) if announced else b"Transfer-Encoding: chunked"
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sent = 0
    with listening(make_api(service), "httptools") as connection:
        tracemalloc.start()
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
        if announced:  # the answer is there before any of the body
            assert connection.recv(12) == b"HTTP/1.1 413"
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                connection.sendall(chunk)
                sent += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    service.close()
    assert sent < 20 * MIB and peak < 8 * MIB, (sent, peak)


TEXTS = {
    "right to left": "\u202eabc\u2066",
    "no width": "a\u200bb\ufeff",
    "combining": "e\u0301\u0302",
    "composed": "\u00e9",
    "four bytes": "\U0001f600" * 256,
    "spaces": " a\tb ",
    "signs of an address": "a/b?c=d&e#f%41+g;h",
    "one more": "\U0001f600" * 257,
    "nothing": "",
    "NUL": "a\0b",
    "half a character": "a\ud83d",
}


def address(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")


def post(path: str, body: dict[str, object]) -> Callable[[TestClient], Response]:
    return lambda client: client.post(path, content=json.dumps(body), headers=JSON)


def routes(text: str) -> dict[str, Callable[[TestClient], Response]]:
    """Every place where a caller's text goes in."""
    ask, event = {"user_id": text}, {"user_id": "u", "video_id": "v1"}
    return {
        "recommend": post("/v1/recommend", ask),
        "batch": post("/v1/recommend/batch", {"requests": [ask]}),
        "score": post("/v1/score", {**ask, "video_ids": ["v1"]}),
        "videos to score": post("/v1/score", {"user_id": "u", "video_ids": [text]}),
        "exclude": post("/v1/recommend", {"user_id": "u", "exclude": [text]}),
        "filter": post("/v1/recommend", {"user_id": "u", "filters": {"video_ids": [text]}}),
        "context": post("/v1/recommend", {"user_id": "u", "context": {"tab": text}}),
        "user feature": post("/v1/recommend", {"user_id": "u", "user": {"region": text}}),
        "event": post("/v1/events", {**event, "user_id": text}),
        "event's video": post("/v1/events", {**event, "video_id": text}),
        "event's id": post("/v1/events", {**event, "event_id": text}),
        "several events": post("/v1/events", {"events": [event, {**event, "version": text}]}),
        "history": lambda client: client.get(f"/v1/history?user_id={address(text)}"),
        "forget": lambda client: client.delete(f"/v1/users?user_id={address(text)}"),
        "similar": lambda client: client.get(f"/v1/similar?video_id={address(text)}"),
        "file": lambda client: client.get(f"/v1/videos/{address(text)}/file"),
    }


@pytest.mark.parametrize("name", TEXTS)
def test_one_rule_of_texts_on_every_route(client: TestClient, name: str) -> None:
    """Taken or refused as `check_id` says, and never changed."""
    text = TEXTS[name]
    reason = ""
    try:
        check_id(text, "id")
    except InputError as error:
        reason = str(error).partition(": ")[2].partition(" at place")[0].split(";")[0]
    known_refusals = {"similar": "not in the catalogue", "file": "no file of this video"}
    for route, call in routes(text).items():
        answer = call(client)
        detail = answer.json().get("detail", "")
        if reason:
            assert answer.status_code == 422, (route, answer.text)
            # What is no UTF-8 in an address is half a character in JSON.
            assert reason in detail or "NUL" in detail or "not UTF-8" in detail, (route, detail)
        elif route in known_refusals:
            assert known_refusals[route] in detail, (route, detail)
        else:
            assert answer.status_code == 200, (route, answer.text)
            assert answer.json().get("user_id", text) in (text, "u"), route
    assert client.get("/v1/users").status_code == 200


def test_ids_are_told_apart_by_their_characters(client: TestClient) -> None:
    """No normal form is made, and nothing is cut off."""
    tell(client, "\u00e9", "v1")
    tell(client, " a", "v2")
    assert [watched(client, user) for user in ("\u00e9", "e\u0301", " a", "a", " a ")] == [
        ["v1"],
        [],
        ["v2"],
        [],
        [],
    ]
    unknown = client.post("/v1/score", json={"user_id": "u", "video_ids": ["v1 ", "\u202ev1"]})
    assert unknown.json()["unknown_video_ids"] == ["v1 ", "\u202ev1"]
