"""The page of the OpenAPI document."""

import base64
import hashlib
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from typing import Annotated, Literal

import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field

from recsys.serve.http.docs import add_docs
from recsys.serve.http.problems import add_problems

ADDRESS = "http://127.0.0.1:8000"


class Model(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Thing(Model):
    """A thing."""

    video_id: str = Field(min_length=1, max_length=256)
    """Of <the> `caller`."""
    kind: Literal["new", "<old>"] = "new"
    """One of two."""
    share: float | None = Field(None, gt=0, lt=1)
    """May be nothing."""
    tags: dict[str, int] = Field({}, max_length=3)
    """By name."""


class Ask(Model):
    user_id: str
    """Who asks."""
    things: list[Thing] = Field(min_length=1, max_length=5)
    """Several."""


class Tree(Model):
    name: str
    """Of the node."""
    children: list["Tree"] = []
    """Below it."""


@pytest.fixture(scope="module")
def client() -> TestClient:
    api = FastAPI(title="shop & co", version="v<1>", docs_url=None, redoc_url=None)
    add_problems(api)
    add_docs(api, ADDRESS)

    @api.post("/v1/ask")
    async def ask(body: Ask) -> Thing:
        """Asks for it.

        As often as `you` like.
        """
        return body.things[0]

    @api.get("/v1/of/{video_id}")
    async def of(
        video_id: str,
        user_id: str,
        limit: Annotated[int, Query(ge=1, le=9, description="Most.")] = 3,
    ) -> Tree:
        """What is of it."""
        return Tree(name="x")

    return TestClient(api)


class Tags(HTMLParser):
    """Which tags a page has, whether each is closed, and its tables' rows."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rows(page: str) -> list[list[str]]:
    """The cells of all tables as text."""
    return [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td>(.*?)</td>", row)]
        for row in re.findall("<tr>(.*?)</tr>", page)
    ]


def test_the_page_runs_nothing_and_loads_nothing(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    parser = Tags()
    parser.feed(answer.text)
    assert not parser.open
    tags = {tag for tag, _ in parser.seen}
    assert not tags & {"script", "link", "img", "iframe", "form", "object"}
    for _, attributes in parser.seen:
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
    targets = [a["href"] for tag, a in parser.seen if tag == "a"]
    ids = {f"#{a['id']}" for _, a in parser.seen if "id" in a}
    assert set(targets) == {"openapi.json", *ids} and len(ids) == 2


def test_its_policy_allows_its_own_style_alone(client: TestClient) -> None:
    answer = client.get("/docs")
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy and "url(" not in style and "@import" not in style
    assert "light dark" in style


def test_every_field_with_its_limits(client: TestClient) -> None:
    told = rows(client.get("/docs").text)
    for row in [
        ["user_id", "string", "required", "Who asks."],
        ["things", "list of object; at least 1 of them; at most 5 of them", "required", "Several."],
        [
            "things[].video_id",
            "string; length at least 1; length at most 256",
            "required",
            "Of <the> caller.",
        ],
        ["things[].kind", '"new" | "<old>"', 'default "new"', "One of two."],
        ["things[].share", "number; above 0; below 1", "may be left out", "May be nothing."],
        ["things[].tags", "object of integer; at most 3 of them", "default {}", "By name."],
        ["limit", "integer; at least 1; at most 9", "default 3", "Most."],
        ["video_id", "string", "required", ""],
        ["413", "The body is too large."],
        ["kind", '"new" | "<old>"', "One of two."],
    ]:
        assert row in told, row


def test_a_type_that_holds_itself_ends(client: TestClient) -> None:
    names = [row[0] for row in rows(client.get("/docs").text)]
    assert "children[].children[].name" in names
    assert not any(name.count("children") > 5 for name in names)


def test_calls_to_copy(client: TestClient) -> None:
    page = client.get("/docs").text
    calls = [unescape(text) for text in re.findall("<pre><code>(.*?)</code></pre>", page)]
    words = [shlex.split(call) for call in calls]
    assert words[0] == [
        "curl",
        "-X",
        "POST",
        f"{ADDRESS}/v1/ask",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"user_id": "u1", "things": [{"video_id": "v1"}]}',
    ]
    assert words[1] == ["curl", f"{ADDRESS}/v1/of/v1?user_id=u1"]
    body = client.post(
        "/v1/ask", content=words[0][-1], headers={"Content-Type": "application/json"}
    )
    assert body.status_code == 200


def test_what_the_document_says_is_text(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "<title>shop &amp; co v&lt;1&gt;</title>" in page
    assert "<p>As often as <code>you</code> like.</p>" in page
    assert "&lt;the&gt;" in page and "<the>" not in page
    assert "&lt;old&gt;" in page and "<old>" not in page
