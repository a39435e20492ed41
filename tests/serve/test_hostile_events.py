"""Events that mean harm: kept as they came or refused in one line; nobody else's are touched."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.serve.service import Service
from tests.bundles import TinyRun

HOSTILE = (
    "'; DROP TABLE recsys_events; --",
    '"; DELETE FROM recsys_log; --',
    "x' OR '1'='1",
    "u1') UNION SELECT value FROM recsys_log --",
    "%",
    "_",
    "*",
    "\\",
    "\\' OR 1=1 --",
    "NULL",
    "?",
    "$1",
    ":user_ids",
    "%(user_ids)s",
    "%s%s%n",
    "{user_id}",
    "[1,2]",
    '{"$ne": null}',
    "\u202eu1",
    "u1\u0300",
    "a\nb\tc",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "😀" * 256,
)
"""Ids that mean something to databases, formats, paths, terminals and pages."""


@pytest.fixture
def service(tiny: TinyRun, address: str) -> Iterator[Service]:
    service = Service(Bundle.load(str(tiny.run)), EventLog(address))
    yield service
    service.close()


def test_ids_mean_nothing_to_the_database(client: TestClient, service: Service) -> None:
    ids = ("event_id", "impression_id", "version", "creator_id")
    for text in HOSTILE:
        event = {"user_id": text, "video_id": "v1", "context": {"tab": text}}
        strange = {"user_id": text, "video_id": text, **dict.fromkeys(ids, text)}
        kept = client.post("/v1/events", json={"events": [event, strange]})
        assert kept.json()["statuses"] == ["accepted", "accepted"], text
    for text in HOSTILE:
        first, second = service.log.of_user(text)
        assert (first.event.user_id, dict(first.event.context)) == (text, {"tab": text})
        assert {second.event.video_id, *(getattr(second.event, name) for name in ids)} == {text}
        assert client.post("/v1/recommend", json={"user_id": text}).json()["num_history"] == 1
        past = client.get(f"/v1/history?user_id={quote(text, safe='')}").json()
        assert (past["user_id"], [one["video_id"] for one in past["events"]]) == (text, ["v1"])
    for place, text in enumerate(HOSTILE):
        gone = client.delete(f"/v1/users?user_id={quote(text, safe='')}").json()
        assert gone == {"user_id": text, "deleted": 2}, "its own and no other's"
        assert service.log.counts().events == 2 * (len(HOSTILE) - place - 1)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"labels": {"x" * 100_000: True}}, "has 100000 characters; allowed are 1 to 256"),
        ({"labels": {"'; DROP TABLE recsys_events; --": True}}, "unknown; this model's tasks"),
        ({"labels": {f"task{i}": True for i in range(65)}}, "at most 64 items"),
        ({"labels": {"like": "x" * 100_000}}, "xxx...': input should be a valid boolean"),
        ({"context": {"tab": "x" * 257}}, "has 257 characters; allowed are 1 to 256"),
        ({"context": {"x" * 100_000: "home"}}, "has 100000 characters; allowed are 1 to 256"),
        ({"type": "x" * 100_000}, "allowed are exposure, view, task"),
        ({"event_id": "x" * 257}, "xxx...': has 257 characters; allowed are 1 to 256"),
        ({"event_id": ""}, "event_id='': has 0 characters; allowed are 1 to 256"),
        ({"event_id": "a\0b"}, "a NUL character at place 2"),
        ({"impression_id": f".{'x' * 300}"}, "xxx...': has 301 characters"),
        ({"place": 10**30}, "place=1000000000000000000000000000000: "),
        ({"time_ms": 10**30}, "time_ms="),
        ({"seq": 1}, "seq: extra inputs are not permitted"),
        ({"received_ms": 1}, "received_ms: extra inputs are not permitted"),
    ],
)
def test_what_is_too_long_or_unknown_is_refused_in_a_short_line(
    client: TestClient, service: Service, fields: dict[str, object], detail: str
) -> None:
    good = {"user_id": "u1", "video_id": "v1"}
    answer = client.post("/v1/events", json={"events": [good, {**good, **fields}]})
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]
    assert len(answer.content) < 4000, "what was sent does not come back whole"
    assert service.log.latest_seq() == 0, "nothing of the call is kept"


@pytest.mark.parametrize(("number", "status"), [(0, 422), (1, 200), (1000, 200), (1001, 422)])
def test_a_call_has_1_to_1000_events(
    client: TestClient, service: Service, number: int, status: int
) -> None:
    events = [{"user_id": f"u{i}", "video_id": "v1", "event_id": str(i)} for i in range(number)]
    answer = client.post("/v1/events", json={"events": events})
    assert answer.status_code == status
    assert service.log.counts().events == (number if status == 200 else 0)
    if status == 422:
        assert "1" in answer.json()["detail"] and answer.json()["detail"].startswith("events: ")
