"""The rules of the layout: who may import whom, and how large things may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOW = (
    "errors",
    "stopping",
    "schema",
    "config",
    "progress",
    "ray_address",
    "cluster",
    "data",
    "run_lock",
    "features",
    "prepare",
    "decode",
    "model",
    "inference",
    "evaluation.metrics",
    "evaluation",
    "train",
    "bundle",
    "evaluation.report",
    "evaluation.previous",
    "evaluation.stage",
    "bundle.stage",
    "tune",
    "live.clock",
    "live.text",
    "live.store",
    "live.log",
    "live.videos",
    "live.attribution",
    "live.versions",
    "live.export",
    "live",
    "serve.lists.propensities",
    "serve.asks",
    "serve.retrieve",
    "serve.metrics",
    "serve.http",
    "serve.users",
    "serve.lists",
    "serve.waiting",
    "serve.counting",
    "serve.follower",
    "serve.log_lag",
    "serve.log_writes",
    "serve.recommender",
    "serve.operator",
    "serve.memory",
    "serve.priority",
    "serve.versions",
    "serve.videos",
    "serve.batches",
    "serve.service",
    "serve.routes",
    "serve",
    "demo",
    "pipeline",
    "refresh",
    "cli",
    "__main__",
)
"""The rooms in the order that data flow: a module imports only what stands before its room, or lies
in it. A room inside another, as `evaluation.stage` in `evaluation`, has a place of its own."""

BACKWARDS = {
    # `decode.features`: the frozen frame encoder runs where the frames are decoded, so that they
    # never cross the object store. Imported by the actor that needs it.
    ("recsys.decode.actor.encoder", "recsys.model.frames"),
}

WITHOUT_RAY = (
    "recsys.model",
    "recsys.inference",
    "recsys.evaluation",
    "recsys.live",
    "recsys.serve.recommender",
)
WITH_RAY = ("recsys.evaluation.stage",)

TOP_LEVEL = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "clusters",
    "examples",
    "pyproject.toml",
    "recsys",
    "tests",
    "tuning",
}
MADE_HERE = {"__pycache__", "build", "recsys.egg-info", "runs"}
"""What installing and running leave behind; git ignores it."""


@dataclass
class Imports:
    """Names that a module imports: when it is loaded, and inside functions."""

    at_once: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)


@cache
def modules() -> dict[str, Imports]:
    by_name = {}
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        by_name[name] = imports_of(ast.parse(path.read_text()))
    return by_name


def imports_of(tree: ast.Module) -> Imports:
    imports = Imports()

    def walk(node: ast.AST, in_function: bool) -> None:
        for child in ast.iter_child_nodes(node):
            names = imports.later if in_function else imports.at_once
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute here"
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if not _only_for_types(child):
                walk(child, in_function or inside)

    walk(tree, False)
    return imports


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def ours(names: set[str]) -> set[str]:
    """The modules among imported names: `recsys.data.vocab.Vocab` is of `recsys.data.vocab`."""
    names_of_modules = set()
    for name in names:
        if name.split(".")[0] == "recsys":
            names_of_modules.add(name if name in modules() else name.rpartition(".")[0])
    return names_of_modules


def others(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names} - {"recsys"}


def reach(start: str, *, later: bool) -> dict[str, str]:
    """Everything that a module brings in, with how: third-party packages and our modules."""
    ways, waiting = {start: start}, [start]
    while waiting:
        module = waiting.pop()
        imports = modules()[module]
        names = imports.at_once | (imports.later if later else set())
        for name in others(names):
            ways.setdefault(name, f"{ways[module]} → {name}")
        for name in ours(names):
            if name not in ways:
                ways[name] = f"{ways[module]} → {name}"
                waiting.append(name)
    return ways


def room(module: str) -> str:
    """The innermost room that a module lies in."""
    name = module.removeprefix("recsys.")
    return max((r for r in FLOW if f"{name}.".startswith(f"{r}.")), key=len)


def place(module: str) -> int:
    return FLOW.index(room(module))


def members(*names: str) -> Iterator[str]:
    """Our modules of these names and in folders of these names."""
    for module in modules():
        if any(module == name or module.startswith(f"{name}.") for name in names):
            yield module


def test_every_module_has_its_place_in_the_flow() -> None:
    known = {name.split(".")[1] for name in modules() if "." in name}
    assert known == {name.split(".")[0] for name in FLOW}, "a new room takes its place in FLOW"
    rooms = {room(name) for name in modules() if "." in name}
    assert rooms == set(FLOW), "a room that nothing lies in has no place"


def test_a_module_imports_only_what_stands_before_it() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, imports in modules().items()
        for name in ours(imports.at_once | imports.later)
        if "." in name
        and room(name) != room(module)
        and place(name) > place(module)
        and (module, name) not in BACKWARDS
    ]
    assert not wrong


def test_what_may_look_back_still_does_and_only_when_it_is_needed() -> None:
    for module, name in BACKWARDS:
        assert name in ours(modules()[module].later), f"{module} need not be excused any more"
        assert name not in ours(modules()[module].at_once)


def test_no_module_leads_back_to_itself() -> None:
    """Inside a folder too; an import inside a function counts as well."""
    for module, imports in modules().items():
        for name in ours(imports.at_once | imports.later):
            if (module, name) not in BACKWARDS:
                assert module not in reach(name, later=False), f"{module} → {name} → … → {module}"


@pytest.mark.parametrize("module", ["recsys.config.run", "recsys.schema"])
def test_config_and_schema_import_neither_torch_nor_ray(module: str) -> None:
    reached = reach(module, later=True)
    assert not {"torch", "ray"} & reached.keys()


def test_features_know_no_ray_and_only_what_makes_tensors_knows_torch() -> None:
    for module in members("recsys.features"):
        reached = reach(module, later=True)
        assert "ray" not in reached, reached["ray"]
        if module not in ("recsys.features.batches", "recsys.features.inputs"):
            assert "torch" not in reached, reached["torch"]


def test_models_metrics_and_the_served_recommender_know_no_ray() -> None:
    for module in members(*WITHOUT_RAY):
        reached = reach(module, later=True)
        assert "ray" not in reached or module in WITH_RAY, reached["ray"]


def test_serving_knows_nothing_of_training() -> None:
    for module in members("recsys.serve", "recsys.live"):
        reached = reach(module, later=True)
        for name in reached:
            of_training = name == "recsys.train" or name.startswith("recsys.train.")
            assert not of_training and name not in ("torchrec", "fbgemm_gpu"), reached[name]


def test_only_the_sharded_model_knows_torchrec() -> None:
    for module, imports in modules().items():
        assert not {"torchrec", "fbgemm_gpu"} & others(imports.at_once), (
            "it takes seconds to import"
        )
        if module != "recsys.train.sharding":
            assert not {"torchrec", "fbgemm_gpu"} & others(imports.later), module


def test_what_is_loaded_in_fact() -> None:
    """One process; the names above say what a module asks for, this what comes with it."""
    code = """
import sys
def loaded(): return {name.split(".")[0] for name in sys.modules}
import recsys.config.run, recsys.schema, recsys.cli
assert not loaded() & {"torch", "ray", "sqlalchemy"}, "config, schema, cli"
import recsys.live.log.events, recsys.live.export.parquet, recsys.live.export.training
assert not loaded() & {"torch", "ray"}, "live"
import recsys.model.recommender, recsys.inference.predict, recsys.evaluation.ranking
import recsys.serve.recommender
assert "ray" not in loaded(), "model, evaluation, serve.recommender"
import recsys.serve.app
assert not loaded() & {"torchrec", "fbgemm_gpu"}, "serve"
assert not any(name.startswith("recsys.train") for name in sys.modules), "serve"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_top_level_stays_as_it_is() -> None:
    there = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert there - MADE_HERE == TOP_LEVEL


def test_init_files_are_empty_and_nothing_is_called_utils() -> None:
    for path in sources():
        assert path.name != "__init__.py" or not path.read_text(), path
        assert "util" not in path.stem and "registry" not in path.stem, path


def sources() -> list[Path]:
    folders = (ROOT / name for name in ("recsys", "tests", "examples", "tuning", "clusters"))
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def test_no_file_is_over_500_lines_and_no_function_over_50() -> None:
    for path in sources():
        lines = path.read_text().splitlines()
        assert len(lines) <= 500, f"{path.relative_to(ROOT)}: {len(lines)} lines"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 50, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


OF_AXES = re.compile(r"_?[a-z][a-z0-9_]*_([A-Z]{1,5})")
"""A name that ends with the letters of its axes, as `vectors_BLD`."""


def made_names(tree: ast.Module) -> Iterator[str]:
    """What a module gives a name: arguments, variables, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_a_file_says_at_its_head_what_its_letters_of_axes_count() -> None:
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        tree = ast.parse(path.read_text())
        legend = (ast.get_docstring(tree) or "").partition("Shapes:")[2]
        for name in made_names(tree):
            match = OF_AXES.fullmatch(name)
            for letter in match[1] if match else "":
                assert re.search(rf"\b{letter}\b", legend), f"{path.relative_to(ROOT)}: {name}"


def test_constructors_take_at_most_five_arguments() -> None:
    """A configuration object takes the place of more; dataclasses' fields are no arguments here."""
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                count = len(node.args.args) - 1 + len(node.args.kwonlyargs)
                assert count <= 5, f"{path.relative_to(ROOT)}: __init__ takes {count}"
