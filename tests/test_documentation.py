"""What there is, is documented; what the documentation names, is there."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from recsys.bundle.contents import Bundle
from recsys.cli import make_parser
from recsys.config.settings import all_settings
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.app import BuildArgs
from recsys.serve.service import Service
from tests.bundles import make_run
from tests.conftest import TrainedRun
from tests.readmes import ROOT, Page, page, pages
from tests.test_architecture import FLOW

NAMED_BUT_ABSENT = {"utils.py"}
"""Files that a page names to say that there is none."""
FASTAPIS_OWN = {"/docs/oauth2-redirect"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    folder = tmp_path_factory.mktemp("documented")
    run = make_run(folder / "run")
    service = Service(Bundle.load(str(run.run)), EventLog(str(folder / "live.sqlite")))
    yield make_api(service)
    service.close()


def routes(api: FastAPI) -> set[str]:
    """Such as `GET /v1/model`; HEAD comes along with GET."""
    return {
        f"{method} {re.sub(':[a-z]+', '', route.path)}"
        for route in api.routes
        if isinstance(route, APIRoute | Route) and route.path not in FASTAPIS_OWN
        for method in (route.methods or set()) - {"HEAD"}
    }


def commands() -> list[str]:
    (choices,) = (action.choices for action in make_parser()._actions if action.choices)
    return list(choices)


def test_every_command_is_documented() -> None:
    texts = [
        *(line for p in pages() for line in p.commands),
        *(s for p in pages() for s in p.spans),
    ]
    for command in commands():
        told = re.compile(rf"(^| )recsys {command}( |$)")
        assert any(told.search(text) for text in texts), f"no page shows `recsys {command}`"


def test_every_route_is_documented_and_no_other(api: FastAPI) -> None:
    told = {
        span.split("?")[0]
        for span in page("README.md").spans
        if re.match(r"(GET|POST|PUT|DELETE|PATCH) /", span)
    }
    assert told == routes(api)


def test_arguments_of_serve_run_are_documented() -> None:
    for name, field in BuildArgs.model_fields.items():
        assert field.description, name
        assert name in page("clusters/README.md").spans, name


def test_settings_that_pages_name_exist() -> None:
    """Such as `train.epochs` and `train.epochs=3`; `rerank.*` stands for a section."""
    names = {setting.name for setting in all_settings()}
    known = names | {name.rpartition(".")[0] for name in names}
    sections = {name.split(".")[0] for name in names if "." in name}
    for p in pages():
        for span in p.spans:
            if match := re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?:=\S*)?|([a-z_]+)\.\*", span):
                name = match.group(1) or match.group(2)
                if name.split(".")[0] in sections and not name.endswith(FILES):
                    assert name in known, f"{p.name}: {name}"


FILES = (".py", ".ipynb", ".md", ".toml", ".yaml", ".json", ".html", ".lance", ".parquet")


@pytest.mark.parametrize("p", pages(), ids=lambda p: p.name)
def test_files_that_a_page_names_exist(p: Page) -> None:
    """Sources of ours, from its folder, the top level, or the package on."""
    for span in p.spans:
        if re.fullmatch(r"[\w./-]+\.(py|md|toml|ipynb)", span) and span not in NAMED_BUT_ABSENT:
            places = (p.path.parent, ROOT, ROOT / "recsys")
            assert any((place / span).exists() for place in places), span


@pytest.mark.parametrize("p", pages(), ids=lambda p: p.name)
def test_links_lead_somewhere(p: Page) -> None:
    for link in p.links:
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = (p.path.parent / target).resolve() if target else p.path
        assert path.exists(), link
        if anchor:
            (there,) = (other for other in pages() if other.path == path)
            assert anchor in there.anchors, link


def test_every_page_is_reached_from_the_main_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in reached and path.suffix == ".md":
            reached.add(path)
            links = (link.split("#")[0] for link in page(str(path.relative_to(ROOT))).links)
            waiting += [(path.parent / link).resolve() for link in links if "://" not in link]
    assert {p.path for p in pages()} == reached
    for folder in ("recsys", "tests", "tests/benchmarks", "examples", "tuning", "clusters"):
        assert (ROOT / folder / "README.md") in reached, folder


def test_every_benchmark_has_its_section() -> None:
    text = page("tests/benchmarks/README.md").prose
    for path in (ROOT / "tests/benchmarks").glob("[a-z]*.py"):
        assert f"\n## {path.stem}: " in text, path.name


def test_the_ten_figures_are_among_the_measured_ones() -> None:
    rows = re.findall(r"^\| .+ \| (.+) \|$", section("README.md", "Ten figures"), re.MULTILINE)[2:]
    assert len(rows) == 10
    measured = page("tests/benchmarks/README.md").prose
    for row in rows:
        for number in re.findall(r"\d[\d.,]*", row):
            assert number.rstrip(".,") in measured, f"{number} of: {row}"


def test_the_layers_are_told_in_their_order() -> None:
    text = (ROOT / "recsys/README.md").read_text().partition("\n## Layers\n")[2]
    (block,) = re.findall(r"```text\n(.+?)\n```", text.partition("\n## ")[0], re.DOTALL)
    assert tuple(block.split()) == FLOW


def told_of_the_run_folder() -> re.Pattern[str]:
    """What the table names: `*` and `<version>` stand for a name, `/` at the end for a folder."""
    rows = section("recsys/README.md", "The run folder").splitlines()
    first = [row.split("|")[1] for row in rows if row.startswith("|")]
    names = re.findall(r"`([^`]+)`", " ".join(first))
    kinds = [re.sub(r"\\\*|<version>", "[^/]+", re.escape(name)) for name in names]
    return re.compile("|".join(f"{kind}.+" if kind.endswith("/") else kind for kind in kinds))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.yaml", True),
        ("prepare/timelines/part-00001.parquet", True),
        ("bundles/20260101T000000Z-1/vocab/video.arrow", True),
        ("decode/clips.lance/data/1.lance", True),
        ("live.sqlite-shm", True),
        ("prepare/trends/video.parquet", False),
        ("secret.txt", False),
    ],
)
def test_what_the_run_folders_table_tells(name: str, told: bool) -> None:
    assert bool(told_of_the_run_folder().fullmatch(name)) is told


@pytest.mark.ray
def test_the_run_folder_is_told_file_by_file(trained_run: TrainedRun) -> None:
    told = told_of_the_run_folder()
    for path in sorted(trained_run.run.rglob("*")):
        name = path.relative_to(trained_run.run).as_posix()
        assert path.is_dir() or told.fullmatch(name), f"{name}: in no row of the run folder's table"


def section(name: str, title: str) -> str:
    text: str = page(name).prose.partition(f"\n## {title}\n")[2]
    return text.partition("\n## ")[0]


def test_types_go_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = project["tool"]["setuptools"]["package-data"]["recsys"]
    assert "py.typed" in names
    for name in names:
        assert list(Path(ROOT / "recsys").glob(name)), name
