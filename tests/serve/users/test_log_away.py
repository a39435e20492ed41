"""A log that goes away while the server runs: answers that say so, refusals, and nothing lost."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.log.events import Appended, EventLog
from recsys.live.store import database
from recsys.live.store.database import READ_LIMIT_S, LogError
from recsys.live.store.tables import METADATA
from recsys.live.versions.watch import Watch
from recsys.serve import log_writes
from recsys.serve.api import make_api
from recsys.serve.endpoint import EventsHere
from recsys.serve.follower import Follower
from recsys.serve.service import Service
from recsys.serve.users import log_gate
from tests.benchmarks._postgres import make_database, postgres_server
from tests.bundles import TinyRun


@dataclass
class Outage:
    """A log's address, and what takes it away and brings it back."""

    address: str
    begin: Callable[[], None]
    end: Callable[[], None]


def of_sqlite(path: Path) -> Outage:
    def rename(name: str, other: str) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"ALTER TABLE {name} RENAME TO {other}")

    return Outage(
        str(path), lambda: rename("recsys_events", "away"), lambda: rename("away", "recsys_events")
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    if request.param == "sqlite":
        yield of_sqlite(tmp_path / "live.sqlite")
        return
    with postgres_server(request.getfixturevalue("postgres_binaries"), fsync=False) as server:
        yield Outage(make_database(server.address, "live"), server.stop, server.start)


@pytest.fixture
def service(tiny: TinyRun, outage: Outage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    # A read that fails slowly would have the log left alone for a while, also when it is back.
    monkeypatch.setattr(log_gate, "SLOW_S", 60.0)
    service = Service(Bundle.load(str(tiny.run)), EventLog(outage.address))
    yield service
    service.close()


def liked(row: int) -> dict[str, str]:
    return {"user_id": "someone", "video_id": f"v{row}", "event_id": f"e{row}"}


def test_nothing_acknowledged_is_lost_and_the_server_comes_back_by_itself(
    service: Service, outage: Outage
) -> None:
    client = TestClient(make_api(service))
    assert client.post("/v1/events", json=liked(1)).json()["statuses"] == ["accepted"]
    assert client.post("/v1/recommend", json={"user_id": "someone"}).json()["num_history"] == 1
    whole = client.post("/v1/recommend", json={"user_id": "u9"}).json()
    service.recommender.pasts.clear()
    client.post("/v1/recommend", json={"user_id": "someone"})
    outage.begin()
    check_stale(client, whole)
    refused = [
        client.post("/v1/events", json=liked(2)),
        client.get("/v1/history?user_id=someone"),
        client.delete("/v1/users?user_id=someone"),
    ]
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        said = "the event log cannot be reached now; send the same request again"
        assert answer.json()["detail"] == said  # and nothing of where it is
    for path in ("/healthz", "/metrics", "/v1/model", "/v1/similar?video_id=v1"):
        assert client.get(path).status_code == 200, path
    outage.end()
    assert client.post("/v1/events", json=liked(2)).json()["statuses"] == ["accepted"]
    assert client.post("/v1/events", json=liked(1)).json()["statuses"] == ["duplicate"]
    answer = client.post("/v1/recommend", json={"user_id": "someone", "k": 20}).json()
    assert (answer["num_history"], answer["degraded"]) == (2, None)
    assert not {"v1", "v2"} & {item["video_id"] for item in answer["items"]}
    logged = service.log.of_user("someone")
    assert [one.event.event_id for one in logged] == ["e1", "e2"]


def check_stale(client: TestClient, whole: dict[str, Any]) -> None:
    """Answers are made of the bundle and of what this replica has counted, and say so."""
    stale = {
        "kind": "stale",
        "cause": "log",
        "detail": "the event log cannot be read: what happened lately may be missing",
    }
    # Of u9 the log says nothing, so nothing is missing; of someone the state is still there.
    known = client.post("/v1/recommend", json={"user_id": "u9"}).json()
    assert [item["video_id"] for item in known["items"]] == [
        item["video_id"] for item in whole["items"]
    ]
    kept = client.post("/v1/recommend", json={"user_id": "someone", "k": 20}).json()
    assert kept["num_history"] == 1
    assert "v1" not in {item["video_id"] for item in kept["items"]}
    scored = client.post("/v1/score", json={"user_id": "u9", "video_ids": ["v1"]}).json()
    batch = client.post("/v1/recommend/batch", json={"requests": [{"user_id": "u9"}]}).json()
    popular = client.get("/v1/popular").json()
    assert [item["video_id"] for item in popular["items"]] == ["v1"]
    lists = [client.get(f"/v1/{name}").json() for name in ("latest", "similar?video_id=v1")]
    answers = [known, kept, scored, *batch["answers"], popular, *lists]
    assert [answer["degraded"] for answer in answers] == [stale] * 7
    figures = client.get("/metrics").text
    assert 'recsys_degraded_total{cause="log",kind="stale",replica="0"} 7.0' in figures


def test_what_is_answered_without_the_log_is_not_kept(service: Service, outage: Outage) -> None:
    """A user of whom this replica knows nothing is known again as soon as the log is back."""
    client = TestClient(make_api(service))
    client.post("/v1/events", json=liked(1))
    # It is followed now; from here on nothing would make this replica look at the user again.
    assert client.post("/v1/recommend", json={"user_id": "u9"}).json()["degraded"] is None
    outage.begin()
    away = client.post("/v1/recommend", json={"user_id": "someone"}).json()
    assert (away["num_history"], away["degraded"]["kind"]) == (0, "stale")
    outage.end()
    back = client.post("/v1/recommend", json={"user_id": "someone"}).json()
    assert (back["num_history"], back["degraded"]) == (1, None)


def test_a_server_that_has_never_read_the_log_is_not_ready(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise LogError("gone")

    monkeypatch.setattr(Follower, "catch_up", lambda _: gone())
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")))
    client = TestClient(make_api(service))
    assert client.post("/v1/recommend", json={"user_id": "u1"}).json()["degraded"] is not None
    assert client.get("/readyz").status_code == 503
    service.close()


def test_a_log_that_hangs_holds_up_nobody(
    tiny: TinyRun, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the table: who waits is given a list for everybody, others a stale one."""
    import psycopg

    address = make_database(postgres, "hanging")
    log = EventLog(address)
    service = Service(Bundle.load(str(tiny.run)), log)
    client = TestClient(make_api(service))
    client.post("/v1/events", json={**liked(30), "event_id": "e1"})
    monkeypatch.setattr(service, "_budget_s", 20)
    assert client.post("/v1/recommend", json={"user_id": "someone"}).json()["degraded"] is None
    log.database.read_limit_s = 0.5
    with psycopg.connect(address) as other:
        other.execute("LOCK TABLE recsys_events IN ACCESS EXCLUSIVE MODE")
        monkeypatch.setattr(service, "_budget_s", 0.05)
        late = client.post("/v1/recommend", json={"user_id": "someone", "k": 20}).json()
        assert (late["degraded"]["kind"], late["degraded"]["cause"]) == ("latest", "late")
        assert late["items"][0]["video_id"] == "v29"  # the user's state is kept: they liked v30
        monkeypatch.setattr(service, "_budget_s", 20)
        stale = client.post("/v1/recommend", json={"user_id": "someone"}).json()
        assert (stale["degraded"]["kind"], stale["num_history"]) == ("stale", 1)
    log.database.read_limit_s = 20
    service.recommender._gate._rest_until = 0.0
    assert client.post("/v1/recommend", json={"user_id": "someone"}).json()["degraded"] is None
    service.close()


def test_a_database_that_hangs_is_said_to_and_does_not_keep_the_server_open(
    tiny: TinyRun, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a server asks of it ends, so that neither callers nor threads stand still."""
    import psycopg

    address = make_database(postgres, "hung")
    log = EventsHere.make(address).open()
    assert log.database.read_limit_s == READ_LIMIT_S
    service = Service(Watch(log.database, str(tiny.run / "bundles")), log)
    assert service.versions is not None
    service.versions.start(0.01)
    service.desk._begin()  # its encoder looks for videos
    client = TestClient(make_api(service))
    calls = [
        ("GET", "/v1/versions"),
        ("GET", "/v1/versions?compare=true"),
        ("GET", "/v1/challenger"),
        ("GET", "/v1/videos"),
        ("GET", "/v1/videos/new"),
        ("GET", "/v1/operator/shown"),
        ("DELETE", "/v1/users?user_id=someone"),
    ]
    with ThreadPoolExecutor(len(calls) + 1) as threads, psycopg.connect(address) as other:
        log.database.read_limit_s = 0.2  # what a test has time for
        monkeypatch.setattr(database, "WRITE_LIMIT_S", 0.2)
        other.execute(f"LOCK TABLE {', '.join(METADATA.tables)} IN ACCESS EXCLUSIVE MODE")
        asked = [(call, threads.submit(client.request, *call)) for call in calls]
        for call, one in asked:
            answer = one.result(timeout=30)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), call
        threads.submit(service.close).result(timeout=30)


def test_calls_that_write_wait_for_a_log_for_a_while_and_leave_room_for_others(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")))
    client = TestClient(make_api(service))
    monkeypatch.setattr(service._writes, "_most", 0)
    for refused in (client.post("/v1/events", json=liked(1)), forget(client)):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert 'recsys_refused_total{reason="events",replica="0"} 2.0' in client.get("/metrics").text
    monkeypatch.undo()
    waiting: Future[Appended] = Future()
    with monkeypatch.context() as patched:
        patched.setattr(log_writes, "WAIT_S", 0.01)
        patched.setattr(service.log, "hand_in", lambda _: waiting)
        assert client.post("/v1/events", json=liked(1)).status_code == 503
    assert waiting.cancelled(), "it is not written after its caller was told to send it again"
    assert client.post("/v1/events", json=liked(1)).json()["statuses"] == ["accepted"]
    service.close()


def test_who_waits_for_a_user_to_be_forgotten_waits_for_a_while(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(Bundle.load(str(tiny.run)), log)
    client, forgets, forgotten = TestClient(make_api(service)), log.forget, []

    def noted(user_id: str) -> int:
        forgotten.append(user_id)
        return forgets(user_id)

    monkeypatch.setattr(log, "forget", noted)
    client.post("/v1/events", json=liked(1))
    hangs = threading.Event()
    service._writes._forgetting.submit(hangs.wait, 60)  # another one, in a log that hangs
    with monkeypatch.context() as patched:
        patched.setattr(log_writes, "WAIT_S", 0.01)
        late = forget(client)
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    hangs.set()
    assert forget(client).json() == {"user_id": "someone", "deleted": 1}
    assert forgotten == ["someone"], "not after its caller was told to send it again"
    service.close()


def forget(client: TestClient) -> Any:
    return client.delete("/v1/users?user_id=someone")


def test_a_log_that_goes_away_while_the_server_is_idle_does_not_end_its_thread(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)

    def gone() -> None:
        looks.release()
        raise LogError("gone")

    with EventLog(str(tmp_path / "live.sqlite")) as log:
        service = Service(Bundle.load(str(tiny.run)), log)
        monkeypatch.setattr(service.recommender, "catch_up", gone)
        assert looks.acquire(timeout=20) and looks.acquire(timeout=20), "it looked once and no more"
        service.close()
