"""The server does what its OpenAPI document says, whatever is asked: schemathesis over all of it.

RECSYS_CONTRACT_EXAMPLES sets how many requests of each operation are made up: 10 in the suite.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.live.versions.watch import Watch
from recsys.serve.api import make_api
from recsys.serve.service import Service
from tests.bundles import NEW, OLD, TASKS, TinyRun

pytest.importorskip("schemathesis", reason="schemathesis, which asks, is not installed")
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

EXAMPLES = int(os.environ.get("RECSYS_CONTRACT_EXAMPLES", "10"))


def config(mode: str, *, walks: int = 4, **more_checks: Any) -> SchemathesisConfig:
    """What is asked for: `all`, what fits the document and what does not, or `positive`.

    Walks along links are so many times EXAMPLES.
    """
    generation = {"deterministic": True, "database": "none", "no-shrink": True, "mode": mode}
    # What a field means (an unknown context, a task of another model) no schema tells, so not all
    # that fits is accepted; `require_answers` sees that enough is.
    checks = {
        "positive_data_acceptance": {"enabled": False},
        "negative_data_rejection": {"enabled": mode == "all"},
        **more_checks,
    }
    phases = {
        "fuzzing": {"generation": {"max-examples": EXAMPLES}},
        "stateful": {"max-steps": 8, "generation": {"max-examples": walks * EXAMPLES}},
    }
    asked = {"seed": 0, "generation": generation, "checks": checks, "phases": phases}
    return SchemathesisConfig.from_dict(asked)


@pytest.fixture
def api(two_versions: Path, tmp_path: Path) -> Iterator[FastAPI]:
    log = EventLog(str(tmp_path / "live.sqlite"))
    watch = Watch(log.database, str(two_versions))
    watch.choose(NEW)  # so that there is one to go back to
    service = Service(watch, log, seed=0)
    yield make_api(service)
    service.close()


def with_known_ids(document: dict[str, Any]) -> None:
    """Writes into the document what this model knows, so that most requests mean something."""
    users, videos = (
        {"type": "string", "enum": [f"{kind}{n}" for n in range(1, 10)]} for kind in "uv"
    )
    names = {
        "user_id": users,
        "video_id": videos,
        "creator_id": {"type": "string", "enum": ["c1", "c2", "c3"]},
        "context": {"type": "object", "properties": {"tab": {"enum": ["home", "search"]}}},
        "user": {"type": "object", "properties": {"region": {"enum": ["north", "south"]}}},
        "labels": {"type": "object", "properties": dict.fromkeys(TASKS, {"type": "boolean"})},
        "categories": {"type": "array", "items": {"enum": ["calm", "wild"]}},
        "creators": {"type": "array", "items": {"enum": ["c1", "c2"]}},
        "cursor": {"type": "null"},
        "version": {"type": "string", "enum": [OLD, NEW]},
    }
    for name in ("RecommendRequest", "ScoreRequest", "EventMessage", "FiltersMessage"):
        fields = document["components"]["schemas"][name]["properties"]
        for one in fields.keys() & names.keys():
            closed = {"additionalProperties": False} if "properties" in names[one] else {}
            fields[one] = {**names[one], **closed}
        if "video_ids" in fields:
            fields["video_ids"]["items"] = videos
    event = document["components"]["schemas"]["EventMessage"]
    event["required"] = ["user_id", "video_id"]
    event["properties"]["type"]["enum"] = ["exposure", "not_interested", "view"]
    # A new video without a file: made-up bytes are none, and made-up addresses lie below no root.
    added = document["paths"]["/v1/videos"]["post"]
    fields = {"video_id": {"enum": ["new 1", "new 2"]}, "hidden": {"type": "boolean"}}
    video = {"type": "object", "properties": fields, "required": ["video_id"]}
    schema = {"schema": {**video, "additionalProperties": False}}
    added["parameters"], added["requestBody"]["content"] = [], {"application/json": schema}
    for operation in (o for item in document["paths"].values() for o in item.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = names.get(parameter["name"], parameter["schema"])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ids", ["any", "known"])
def test_the_server_does_what_its_document_says(
    api: FastAPI, ids: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No failure of the server, no answer that is not documented, nothing wrong is taken."""
    caplog.set_level(logging.CRITICAL, "httpx")
    if ids == "known":
        with_known_ids(api.openapi())
    # Another id is not wrong; most walks end at one that is of nothing any more.
    asked = config("all") if ids == "any" else config("positive", walks=12)
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=asked)
    seen = Seen()
    for event in engine.from_schema(schema).execute():
        assert not isinstance(event, NonFatalError | FatalError), event
        if isinstance(event, ScenarioFinished):
            seen.add(event)
    assert not seen.wrong, "\n\n".join(seen.wrong)
    assert seen.phases >= {"coverage", "fuzzing", "stateful"}
    paths = api.openapi()["paths"].values()
    assert len(seen.statuses) == sum(len(item) for item in paths)
    if ids == "known":
        require_answers(seen)


DEGRADED = ("recommend", "recommend/batch", "score", "similar", "popular", "latest")


@pytest.mark.parametrize("cause", ["failed", "late"])
def test_degraded_answers_are_as_documented(
    tiny: TinyRun, tmp_path: Path, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model fails at every request, or no time is left for it."""
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")))

    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    if cause == "failed":
        for name in ("answer", "similar", "popular", "latest"):
            monkeypatch.setattr(service.recommender, name, fault)
    else:
        service._budget_s = 0.0
    api = make_api(service)
    with_known_ids(api.openapi())
    # Scores and what is similar have nothing to stand in for them: 503 is their documented answer.
    asked = config("positive", not_a_server_error={"enabled": False})
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=asked)
    seen = Seen()
    for event in engine.from_schema(
        schema.include(path=[f"/v1/{name}" for name in DEGRADED])
    ).execute():
        assert not isinstance(event, NonFatalError | FatalError), event
        if isinstance(event, ScenarioFinished):
            seen.add(event)
    figures = service.metrics.text().decode()
    service.close()
    assert not seen.wrong, "\n\n".join(seen.wrong)
    assert seen.statuses["POST /v1/recommend"][200] >= EXAMPLES
    for refused in ("POST /v1/score", "GET /v1/similar"):
        assert seen.statuses[refused][503] >= EXAMPLES
        assert not seen.statuses.pop(refused).keys() & {200, 500}
    assert {status for counted in seen.statuses.values() for status in counted} <= {200, 405, 422}
    assert f'recsys_degraded_total{{cause="{cause}",kind=' in figures


@dataclass
class Seen:
    """What came of the requests."""

    wrong: list[str] = field(default_factory=list)
    phases: set[str] = field(default_factory=set)
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """By operation."""
    followed: set[tuple[str, str]] = field(default_factory=set)
    """Links that led from an answer of one operation to an answer 200 of another."""

    def add(self, event: ScenarioFinished) -> None:
        self.wrong += failures(event)
        self.phases.add(event.phase.value)
        cases = event.recorder.cases
        for case_id, interaction in event.recorder.interactions.items():
            node, response = cases[case_id], interaction.response
            operation = node.value.operation
            if response is None or node.value.method != operation.method.upper():
                continue
            self.statuses[operation.label][response.status_code] += 1
            if node.is_transition_applied and node.parent_id and response.status_code == 200:
                self.followed.add((cases[node.parent_id].value.operation.label, operation.label))


def failures(event: ScenarioFinished) -> list[str]:
    """What was wrong in a scenario: the check, the request and the answer."""
    failed = []
    for case_id, nodes in event.recorder.checks.items():
        case = event.recorder.cases[case_id].value
        for node in nodes:
            if node.failure_info is not None:
                failure = node.failure_info.failure
                asked = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.500}"
                failed.append(f"{failure.title} ({event.phase.value})\n{asked}\n{failure.message}")
    return failed


def require_answers(seen: Seen) -> None:
    """Every operation was answered, the main ones often, and links were followed."""
    for operation, counted in seen.statuses.items():
        # There is a challenger only between two other calls.
        others = counted[404] if operation == "GET /v1/challenger" else counted[202]
        assert counted[200] or counted[201] or others, (operation, counted)
    for operation in ("POST /v1/recommend", "POST /v1/score", "POST /v1/events"):
        assert seen.statuses[operation][200] >= EXAMPLES, (operation, seen.statuses[operation])
    assert seen.followed  # which ones is by chance: `test_every_link_leads_on` follows all


def calls(api: FastAPI) -> Callable[..., Any]:
    """Asks an operation, and sees that its answer is as the document says."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=config("positive"))

    def go(method: str, path: str, **asked: Any) -> Any:
        answer = schema[path][method].Case(**asked).call_and_validate()
        assert answer.status_code == 200
        return answer.json()

    return go


def filled(answer: Any, texts: dict[str, Any], asked: Any = None) -> dict[str, Any]:
    """What a link says to send: `$response.body#/items/0/video_id` looked up in the answer."""
    bodies = {"$response.body": answer, "$request.body": asked}
    values = {}
    for name, text in texts.items():
        values[name] = text
        body, _, place = str(text).partition("#/")
        if body in bodies:
            values[name] = bodies[body]
            for part in place.split("/"):
                values[name] = values[name][int(part) if part.isdigit() else part]
    return values


WATCHED = {"user_id": "u3", "video_id": "v1", "type": "view", "positive": True}
LINKED: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/recommend"): {"body": {"user_id": "u3", "k": 3}},
    ("POST", "/v1/events"): {"body": WATCHED},
    ("GET", "/v1/history"): {"query": {"user_id": "u3"}},
    ("GET", "/v1/users"): {},
    ("DELETE", "/v1/users"): {"query": {"user_id": "u3"}},
    ("GET", "/v1/popular"): {"query": {"k": 3}},
    ("GET", "/v1/latest"): {"query": {"k": 3}},
    ("GET", "/v1/similar"): {"query": {"video_id": "v1", "k": 3}},
}
"""The operations whose answers have links, and what each is asked."""


@pytest.mark.parametrize("operation", LINKED, ids=" ".join)
def test_every_link_leads_on(api: FastAPI, operation: tuple[str, str]) -> None:
    """From an answer to answers of all operations that its links name."""
    paths, go, asked = api.openapi()["paths"], calls(api), LINKED[operation]
    operations = {o["operationId"]: (m, p) for p in paths for m, o in paths[p].items()}
    method, path = operation
    links = paths[path][method.lower()]["responses"]["200"]["links"].values()
    assert links
    go("POST", "/v1/events", body=WATCHED)  # before it nothing is popular
    answer = go(method, path, **asked)
    for link in links:
        to_method, to_path = operations[link["operationId"]]
        parts = {"query": "parameters", "body": "requestBody"}
        sent = {
            part: filled(answer, link[name], asked.get("body"))
            for part, name in parts.items()
            if name in link
        }
        go(to_method.upper(), to_path, **sent)


def test_no_link_is_forgotten(api: FastAPI) -> None:
    paths = api.openapi()["paths"]
    operations = ((m.upper(), p, operation) for p in paths for m, operation in paths[p].items())
    linked = {(m, p) for m, p, o in operations if "links" in o["responses"].get("200", {})}
    assert linked == LINKED.keys()


def test_the_way_of_one_user_by_links(api: FastAPI) -> None:
    """Asked for, shown, looked up, deleted, asked for again; each answer as it is documented."""
    go = calls(api)
    links = api.openapi()["paths"]["/v1/recommend"]["post"]["responses"]["200"]["links"]
    first = go("POST", "/v1/recommend", body={"user_id": "new", "k": 3})
    shown = filled(first, links["shown"]["requestBody"])
    assert shown["impression_id"] == first["impression_id"]
    assert go("POST", "/v1/events", body=shown)["statuses"] == ["accepted"]
    user = filled(first, links["history"]["parameters"])
    past = go("GET", "/v1/history", query=user)
    assert [event["video_id"] for event in past["events"]] == [shown["video_id"]]
    page = filled(first, links["next_page"]["requestBody"])
    second = go("POST", "/v1/recommend", body=page)
    both = [item["video_id"] for item in (*first["items"], *second["items"])]
    assert len(both) == len(set(both)) == 13
    assert go("DELETE", "/v1/users", query=user) == {"user_id": "new", "deleted": 1}
    again = go("POST", "/v1/recommend", body=filled(first, links["recommend"]["requestBody"]))
    assert (again["known_user"], again["num_history"]) == (False, 0)


def test_links_lead_somewhere(api: FastAPI) -> None:
    document = TestClient(api).get("/openapi.json").json()
    operations = {o["operationId"]: o for item in document["paths"].values() for o in item.values()}
    links = [
        link
        for operation in operations.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert {link["operationId"] for link in links} == {
        *("events", "forget", "history", "recommend", "similar")
    }
    for link in links:
        parameters = operations[link["operationId"]].get("parameters", [])
        assert link.get("parameters", {}).keys() <= {p["name"] for p in parameters}


def test_the_document_has_the_limits_of_this_server(api: FastAPI) -> None:
    """The tiny bundle's config says max_k=20 and max_videos=40."""
    schemas = api.openapi()["components"]["schemas"]
    assert schemas["RecommendRequest"]["properties"]["k"]["maximum"] == 20
    assert schemas["ScoreRequest"]["properties"]["video_ids"]["maxItems"] == 40


def test_a_server_that_starts_answers_as_documented(tiny: TinyRun, tmp_path: Path) -> None:
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")))
    client = TestClient(make_api(service))
    service._batches.close()  # nothing reads the log from now on
    service._caught_up = False
    answer = client.get("/readyz")
    documented = client.get("/openapi.json").json()["paths"]["/readyz"]["get"]["responses"]["503"]
    assert answer.status_code == 503
    assert documented["content"].keys() == {"application/json", "application/problem+json"}
    assert answer.headers["content-type"] == "application/json"
    service.log.close()
