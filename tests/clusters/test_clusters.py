"""The cluster files are what Ray takes, and of the versions that the project pins."""

import copy
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from recsys.serve import app
from recsys.serve.ingress import SETTINGS

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
KUBERAY = sorted((CLUSTERS / "kuberay").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY_VERSION = next(
    need.split("==")[1] for need in PROJECT["dependencies"] if need.startswith("ray[")
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def ray_cluster_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield from group["template"]["spec"]["containers"]


def test_ray_takes_the_aws_file() -> None:
    config = read(CLUSTERS / "aws.yaml")
    # `ray up` fills in its defaults first and then checks the whole.
    filled = prepare_config(copy.deepcopy(config))
    filled["cluster_synced_files"] = []
    validate_config(filled)
    types = filled["available_node_types"]
    assert types["cpu_worker"]["max_workers"] + types["gpu_worker"]["max_workers"] <= 12
    assert types["gpu_worker"]["resources"]["GPU"] == 1


def test_aws_validation_would_notice_a_mistake() -> None:
    config = prepare_config(read(CLUSTERS / "aws.yaml"))
    config["cluster_synced_files"] = []
    config["head_node_type"] = "nobody"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(config)


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
    assert set(re.findall(r"\bRAY_SERVE_\w+=\S+", image)) == told
    options = read(CLUSTERS / "aws.yaml")["docker"]["run_options"]
    assert {o.removeprefix("--env ") for o in options if o.startswith("--env ")} == told
    page = (CLUSTERS / "README.md").read_text()
    assert dict(re.findall(r"^\| `(RAY_SERVE_\w+)` \| (\d+) \|", page, re.M)) == SETTINGS


def test_the_service_on_kubernetes_is_the_same() -> None:
    manifest = read(CLUSTERS / "kuberay" / "rayservice.yaml")
    assert yaml.safe_load(manifest["spec"]["serveConfigV2"]) == read(CLUSTERS / "serve.yaml")


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_manifests_are_well_formed(path: Path) -> None:
    manifest = read(path)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"].lower() == path.stem
    spec = ray_cluster_spec(manifest)
    assert spec["rayVersion"] == RAY_VERSION
    assert spec["authOptions"] == {"mode": "token"}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for container in containers(spec):
        # KubeRay tells Ray of the limits; requests that differ would promise more than there is.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        kind = "gpu" if gpu else "cpu"
        assert container["image"] == f"YOUR-REGISTRY/recsys:{PROJECT['version']}-{kind}"


def test_every_kind_is_there() -> None:
    assert [path.stem for path in KUBERAY] == ["raycluster", "rayjob", "rayservice"]


@pytest.mark.parametrize("name", ["Dockerfile", "aws.yaml"])
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
