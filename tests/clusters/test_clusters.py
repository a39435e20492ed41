"""The cluster files are what Ray takes, and of the versions that the project pins."""

import copy
import inspect
import re
import shlex
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from recsys.serve import app
from recsys.serve.ingress import SETTINGS

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY_VERSION = next(
    need.split("==")[1] for need in PROJECT["dependencies"] if need.startswith("ray[")
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


LAUNCHERS = ["aws", "gcp", "on-premises"]


def as_ray_sees(name: str) -> Any:
    """`ray up` fills in its defaults first and then checks the whole."""
    filled = prepare_config(copy.deepcopy(read(CLUSTERS / f"{name}.yaml")))
    filled.setdefault("cluster_synced_files", [])
    return filled


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_up_takes_the_file(name: str) -> None:
    validate_config(as_ray_sees(name))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_mistake_would_be_noticed(name: str) -> None:
    filled = as_ray_sees(name)
    filled["head_node_type"] = "nobody"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(filled)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_only_gpu_nodes_come_and_go_for_training(name: str) -> None:
    types = as_ray_sees(name)["available_node_types"]
    assert types["cpu_worker"]["max_workers"] + types["gpu_worker"]["max_workers"] <= 12
    assert types["gpu_worker"]["resources"] == {"CPU": 0, "GPU": 1}
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["head"]["resources"]["CPU"] == 0


def test_machines_with_a_gpu_boot_an_image_with_its_driver() -> None:
    """Ray's own on AWS is of 2022, and Google's cos has none."""
    aws, gcp = (as_ray_sees(name)["available_node_types"] for name in ("aws", "gcp"))
    assert {kind["node_config"]["ImageId"] for kind in aws.values()} == {"ami-YOUR-IMAGE"}
    (disk,) = gcp["gpu_worker"]["node_config"]["disks"]
    assert "nvidia" in disk["initializeParams"]["sourceImage"]
    assert disk["initializeParams"]["diskType"].endswith("pd-balanced")


def test_serve_takes_the_config_file() -> None:
    schema = ServeDeploySchema.model_validate(read(CLUSTERS / "serve.yaml"))
    (application,) = schema.applications
    module, name = application.import_path.split(":")
    assert (module, getattr(app, name)) == (app.__name__, app.build)
    assert set(application.args) <= set(app.BuildArgs.model_fields)
    assert len(inspect.signature(app.build).parameters) == 1


def test_every_node_has_what_serve_reads_as_it_starts() -> None:
    """The variables that `recsys serve` sets where it starts Ray itself."""
    told = {f"{name}={value}" for name, value in SETTINGS.items()}
    image = (CLUSTERS / "Dockerfile").read_text()
    set_there = re.findall(r'\bRAY_SERVE_\w+=(?:"[^"]*"|\S+)', image)
    assert {one.replace('"', "") for one in set_there} == told
    for name in LAUNCHERS:
        options = read(CLUSTERS / f"{name}.yaml")["docker"]["run_options"]
        given = {shlex.split(o)[1] for o in options if o.startswith("--env ")}
        assert given == told, name
    page = (CLUSTERS / "README.md").read_text()
    assert dict(re.findall(r"^\| `(RAY_SERVE_\w+)` \| `?([^|`]+?)`? \|", page, re.M)) == SETTINGS


@pytest.mark.parametrize("name", ["Dockerfile", "aws.yaml", "gcp.yaml", "on-premises.yaml"])
def test_images_have_the_pinned_ray_and_a_supported_python(name: str) -> None:
    images = re.findall(r"rayproject/ray:(\S+?)-py(\d)(\d+)-", (CLUSTERS / name).read_text())
    assert images
    for version, major, minor in images:
        assert version == RAY_VERSION
        assert PROJECT["requires-python"] == ">=3.11,<3.13"
        assert (int(major), int(minor)) in [(3, 11), (3, 12)]


def test_dockerfile_copies_what_exists() -> None:
    """What is copied into the image is part of the project."""
    text = (CLUSTERS / "Dockerfile").read_text()
    for line in re.findall(r"^COPY --chown=\S+ (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_readme_names_every_file() -> None:
    text = (CLUSTERS / "README.md").read_text()
    for path in CLUSTERS.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.relative_to(CLUSTERS)}`" in text, path


@pytest.mark.parametrize("name", ["Dockerfile", *(f"{name}.yaml" for name in LAUNCHERS)])
def test_what_is_installed_are_extras_of_the_project(name: str) -> None:
    text = (CLUSTERS / name).read_text()
    named = re.findall(r'"\.\[([^]]+)\]"', text)
    assert named
    for extras in named:
        for extra in extras.replace("$EXTRAS", re.findall(r"EXTRAS=(\S+)|$", text)[0]).split(","):
            assert extra in PROJECT["optional-dependencies"], extra


def test_a_jobs_working_folder_is_code_alone(tmp_path: Path) -> None:
    """By Ray's own packing, of a checkout that has run folders, videos and events in it."""
    here, package = tmp_path / "here", tmp_path / "package.zip"
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "recsys").rglob("*.py")}
    code |= {".rayignore", ".gitignore", "examples/kuairand/run.yaml"}
    assert "recsys/data/ragged.py" in code
    for name in code:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes((ROOT / name).read_bytes())
    for name in (
        "runs/mine/decode/clips.lance/data/1.lance",
        "data/events.csv",
        "events/day=1/part-0.parquet",
        "videos/a.mp4",
        "live.sqlite-wal",
        "tests/test_cli.py",
        ".venv/bin/python",
        ".git/objects/pack",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("large")
    create_package(str(here), package, include_gitignore=True)
    with zipfile.ZipFile(package) as packed:
        files = {name for name in packed.namelist() if not name.endswith("/")}
    assert files == code
