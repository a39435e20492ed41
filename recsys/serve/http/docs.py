"""`/docs`: the OpenAPI document as one page that needs no network and no script.

FastAPI's own page loads its viewer from elsewhere, which the policy of our pages forbids. This one
is made here: every route with its fields, limits, answers and a call to copy.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

Schema = Mapping[str, Any]

STYLE = (Path(__file__).parents[1] / "web" / "docs.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page runs nothing and loads nothing; its one style sheet is known by its hash."""
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "length at least {}",
    "maxLength": "length at most {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "maxProperties": "at most {} of them",
}
EXAMPLES = {"user_id": "u1", "video_id": "v1", "creator_id": "c1", "k": 10, "limit": 10}
"""What stands in a call to copy for fields of these names."""
JSON_TYPE = "application/json"
MOST_NESTED = 4
"""Levels of an answer that are told before the page refers to the document itself."""


def add_docs(api: FastAPI, address: str) -> None:
    """Adds `GET /docs` to an application that was made with `docs_url=None`.

    Args:
        api: The application; its routes are read when the page is first asked for.
        address: Where a reader finds the server, for the calls to copy.
    """

    @cache
    def page() -> str:
        return docs_page(api.openapi(), address)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(), headers={"Content-Security-Policy": POLICY})


def docs_page(document: Schema, address: str) -> str:
    """The page of an OpenAPI document, as HTML."""
    info = document["info"]
    routes = [
        _Route(document, address, method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    title = escape(f"{info['title']} {info['version']}")
    links = "".join(f"<li>{route.link()}</li>" for route in routes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>{title}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a>'
        f"</p></header><nav><ul>{links}</ul></nav>"
        f"<main>{''.join(route.section() for route in routes)}</main></body></html>"
    )


class _Route:
    """One method of one path."""

    def __init__(
        self, document: Schema, address: str, method: str, path: str, operation: Schema
    ) -> None:
        self._document = document
        self._address = address
        self._method, self._path = method.upper(), path
        self._operation = operation

    def link(self) -> str:
        return f'<a href="#{self._anchor()}">{self._name()}</a>'

    def section(self) -> str:
        meaning = self._operation.get("description") or self._operation.get("summary", "")
        parts = [
            f'<section id="{self._anchor()}"><h2>{self._name()}</h2>',
            *(f"<p>{_code(text)}</p>" for text in meaning.split("\n\n")),
            _table("Parameters", list(self._parameters())),
            _table("Body", list(self._fields(self._body(), ""))),
            f"<h3>Call</h3><pre><code>{escape(self._call())}</code></pre>",
            *self._answers(),
        ]
        return "".join([*parts, "</section>"])

    def _anchor(self) -> str:
        return escape(f"{self._method}{self._path}".replace("/", "-"))

    def _name(self) -> str:
        return f"<b>{self._method}</b> <code>{escape(self._path)}</code>"

    def _parameters(self) -> Iterator[list[str]]:
        for parameter in self._operation.get("parameters", ()):
            schema = {**parameter["schema"], "description": parameter.get("description", "")}
            needed = "required" if parameter.get("required") else _default(schema)
            yield self._row(parameter["name"], schema, needed)

    def _body(self) -> Schema:
        content = self._operation.get("requestBody", {}).get("content", {})
        schema: Schema = content.get(JSON_TYPE, {}).get("schema", {})
        return schema

    def _answers(self) -> Iterator[str]:
        refusals = []
        for status, answer in self._operation["responses"].items():
            if status.startswith("2"):
                schema = answer.get("content", {}).get(JSON_TYPE, {}).get("schema", {})
                rows = [
                    [name, kind, meaning] for name, kind, _, meaning in self._fields(schema, "")
                ]
                yield _table(f"Answer {status}", rows)
            else:
                meaning = self._resolved(answer).get("description", "")
                refusals.append([f"<code>{escape(status)}</code>", _code(meaning)])
        yield _table("Refusals", refusals)

    def _fields(self, schema: Schema, prefix: str, level: int = 0) -> Iterator[list[str]]:
        """The rows of an object's fields, and of those of the objects in them."""
        for kind in self._kinds(schema):
            if kind.get("type") == "array":
                yield from self._fields(kind["items"], f"{prefix}[]", level)
                continue
            required = kind.get("required", ())
            for name, field in kind.get("properties", {}).items():
                full = f"{prefix}.{name}" if prefix else name
                needed = "required" if name in required else _default(field)
                yield self._row(full, field, needed)
                if level < MOST_NESTED:
                    yield from self._fields(field, full, level + 1)

    def _row(self, name: str, schema: Schema, needed: str) -> list[str]:
        """Name, type and limits, default, meaning."""
        facts = [self._type(schema)]
        facts += [
            text.format(_plain(part[limit]))
            for part in self._kinds(schema)
            for limit, text in LIMITS.items()
            if limit in part
        ]
        meaning = schema.get("description", "")
        cells = [f"<code>{escape(name)}</code>", escape("; ".join(dict.fromkeys(facts)))]
        return [*cells, escape(needed), _code(meaning)]

    def _type(self, schema: Schema) -> str:
        kinds = [self._one_type(kind) for kind in self._kinds(schema)]
        return " or ".join(dict.fromkeys(kinds)) or "anything"

    def _one_type(self, kind: Schema) -> str:
        if "enum" in kind or "const" in kind:
            return " | ".join(json.dumps(v) for v in kind.get("enum", [kind.get("const")]))
        if kind.get("type") == "array":
            return f"list of {self._type(kind.get('items', {}))}"
        extra = kind.get("additionalProperties")
        if kind.get("type") == "object" and isinstance(extra, Mapping):
            return f"object of {self._type(extra)}"
        return str(kind.get("type", "anything"))

    def _kinds(self, schema: Schema) -> list[Schema]:
        """The schemas that one may be, with references followed; null is told by the default."""
        schema = self._resolved(schema)
        inner = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if inner:
            return [kind for part in inner for kind in self._kinds(part)]
        return [] if schema.get("type") == "null" or not schema else [schema]

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            place: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                place = place[part]
            schema = place
        return schema

    def _call(self) -> str:
        """A call to copy, with what must be given."""
        path, query = self._path, []
        for parameter in self._operation.get("parameters", ()):
            value = str(self._example(parameter["name"], parameter["schema"]))
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", value)
            elif parameter.get("required"):
                query.append(f"{parameter['name']}={value}")
        url = f"{self._address}{path}" + (f"?{'&'.join(query)}" if query else "")
        words = ["curl", *([] if self._method == "GET" else ["-X", self._method]), url]
        if body := self._body():
            words += ["-H", f"Content-Type: {JSON_TYPE}"]
            words += ["-d", json.dumps(self._example("", body))]
        return shlex.join(words)

    def _example(self, name: str, schema: Schema) -> object:
        """A value that the schema takes, with the fields that must be given and no others."""
        kinds = self._kinds(schema)
        if not kinds or name in EXAMPLES:
            return EXAMPLES.get(name, "text")
        kind = kinds[0]
        if kind.get("examples"):
            return kind["examples"][0]
        if kind.get("type") == "array":
            return [self._example(name.removesuffix("s"), kind.get("items", {}))]
        if kind.get("type") == "object":
            fields = kind.get("properties", {})
            return {
                field: self._example(field, fields[field]) for field in kind.get("required", ())
            }
        simple = {"integer": 1, "number": 1.0, "boolean": True}
        return kind.get("enum", [simple.get(kind.get("type", ""), "text")])[0]


def _default(schema: Schema) -> str:
    if schema.get("default") is None:
        return "may be left out"
    return f"default {json.dumps(schema['default'])}"


def _plain(value: object) -> object:
    """A whole number without the `.0` that its field's type gives it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _table(title: str, rows: list[list[str]]) -> str:
    """A titled table; nothing where there are no rows. Cells are HTML already."""
    if not rows:
        return ""
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<h3>{escape(title)}</h3><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _code(text: str) -> str:
    """A meaning as HTML: what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
