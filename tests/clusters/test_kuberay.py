"""The Kubernetes files: fields that exist, pods that are locked down, commands that run."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.cli import make_parser
from recsys.config.run import load_config
from tests.clusters.kuberay_fields import KINDS, check
from tests.clusters.test_clusters import CLUSTERS, PROJECT, RAY_VERSION, ROOT, read

FILES = sorted((CLUSTERS / "kuberay").glob("*.yaml"))
RAYS = [path for path in FILES if read(path)["kind"] in KINDS]
PLAIN = [path for path in FILES if path not in RAYS]
KUBERNETES = "1.34"


def name_of(path: Path) -> str:
    return path.stem


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    return spec.get("jobTemplate", spec)


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = job_of(manifest)
    cluster: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return cluster


def groups(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["headGroupSpec"]
    yield from spec["workerGroupSpecs"]


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of all nodes, and of whoever hands a job in."""
    for group in groups(cluster_of(manifest)):
        yield group["template"]["spec"]
    if "entrypoint" in job_of(manifest):
        yield job_of(manifest)["submitterPodTemplate"]["spec"]


def valid(manifest: dict[str, Any]) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    validator.validate(manifest, KUBERNETES, strict=True)


def test_every_kind_is_there() -> None:
    assert [path.stem for path in FILES] == [
        "networkpolicy",
        "poddisruptionbudget",
        "raycluster",
        "raycronjob",
        "rayjob-run",
        "rayjob-sweep",
        "rayservice",
    ]
    for path in FILES:
        assert read(path)["kind"].lower() == path.stem.partition("-")[0]


@pytest.mark.parametrize("path", PLAIN, ids=name_of)
def test_kubernetes_takes_its_own_kinds(path: Path) -> None:
    valid(read(path))


@pytest.mark.parametrize("path", RAYS, ids=name_of)
def test_kuberay_knows_every_field(path: Path) -> None:
    manifest = read(path)
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "ray.io/v1"
    faults = check(manifest)
    assert faults.problems == ()
    for template in faults.pods:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **template}
        valid({**pod, "metadata": {"name": "a", **template.get("metadata", {})}})


def test_a_field_that_is_not_there_would_be_noticed() -> None:
    manifest = read(CLUSTERS / "kuberay" / "rayservice.yaml")
    spec = manifest["spec"]["rayClusterConfig"]
    spec["enableInTreeAutoscaler"] = True
    spec["workerGroupSpecs"][0]["minReplicas"] = "two"
    assert check(manifest).problems == (
        "spec.rayClusterConfig.workerGroupSpecs.0.minReplicas: 'two' is of a wrong type",
        "spec.rayClusterConfig.enableInTreeAutoscaler: no such field",
    )


@pytest.mark.parametrize("path", RAYS, ids=name_of)
def test_nodes_are_of_the_project_and_of_one_size(path: Path) -> None:
    spec = cluster_of(read(path))
    assert spec["rayVersion"] == RAY_VERSION
    assert spec["authOptions"] == {"mode": "token"}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups(spec):
        (container,) = group["template"]["spec"]["containers"]
        resources = container["resources"]
        # KubeRay tells Ray of the limits; requests that differ would promise more than there is.
        assert resources["requests"] == resources["limits"]
        kind = "gpu" if "nvidia.com/gpu" in resources["limits"] else "cpu"
        assert container["image"] == f"YOUR-REGISTRY/recsys:{PROJECT['version']}-{kind}"
        # Shared memory counts as the pod's own: the store leaves the work two thirds of it.
        memory = int(resources["limits"]["memory"].removesuffix("Gi")) * 2**30
        assert 3 * int(group["rayStartParams"]["object-store-memory"]) <= memory
        idle = group is spec["headGroupSpec"] or kind == "gpu"
        assert (group["rayStartParams"].get("num-cpus") == "0") is idle


LOCKED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize("path", RAYS, ids=name_of)
def test_pods_are_locked_down(path: Path) -> None:
    for pod in pods(read(path)):
        (container,) = pod["containers"]
        assert container["securityContext"] == LOCKED
        resources = container["resources"]
        assert resources["requests"] == resources["limits"] and {"cpu", "memory"} <= set(
            resources["limits"]
        )
        # What is written lies in volumes that go with the pod.
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])
        assert {volume["name"] for volume in pod["volumes"]} == mounted
        assert "env" not in container


@pytest.mark.parametrize("path", RAYS, ids=name_of)
def test_nodes_have_what_ray_and_the_libraries_write_to_and_the_secrets(path: Path) -> None:
    for group in groups(cluster_of(read(path))):
        (container,) = group["template"]["spec"]["containers"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"tmp": "/tmp", "shm": "/dev/shm", "home": "/home/ray/.cache"}
        secrets = [source["secretRef"]["name"] for source in container["envFrom"]]
        assert secrets == ["recsys-secrets"]


@pytest.mark.parametrize("path", [path for path in RAYS if "job" in path.stem], ids=name_of)
def test_who_hands_a_job_in_has_a_pod_of_ours(path: Path) -> None:
    """KubeRay's own for it has no read-only root; the command in ours is KubeRay's."""
    job = job_of(read(path))
    pod = job["submitterPodTemplate"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never", "a Kubernetes Job takes no pod that starts for ever"
    assert pod["automountServiceAccountToken"] is False
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert container["image"] == head["image"], "one Ray on both sides"
    assert "command" not in container and "envFrom" not in container
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("path", RAYS, ids=name_of)
def test_entrypoints_are_commands_of_ours(path: Path) -> None:
    """The parser takes them, the files that they name exist, and their settings are settings."""
    entrypoint = job_of(read(path)).get("entrypoint")
    if entrypoint is None:
        return
    program, module, *arguments = shlex.split(entrypoint)[0:1] + shlex.split(entrypoint)[2:]
    assert (program, module) == ("python", "recsys")
    parsed = make_parser().parse_args(arguments)
    for name in ("config", "space"):
        if hasattr(parsed, name):
            assert (ROOT / getattr(parsed, name)).is_file(), name
    config = load_config(str(ROOT / parsed.config), parsed.settings)
    for place in (config.run, config.data.events, config.data.videos, config.data.users):
        assert place is not None and place.startswith("s3://YOUR-BUCKET/"), "storage by URI alone"


def test_the_service_on_kubernetes_is_that_of_the_serve_config() -> None:
    manifest = read(CLUSTERS / "kuberay" / "rayservice.yaml")
    assert yaml.safe_load(manifest["spec"]["serveConfigV2"]) == read(CLUSTERS / "serve.yaml")


def test_the_endpoints_pods_are_those_that_are_protected() -> None:
    spec = cluster_of(read(CLUSTERS / "kuberay" / "rayservice.yaml"))
    (workers,) = spec["workerGroupSpecs"]
    labels = workers["template"]["metadata"]["labels"]
    for name, field in (("poddisruptionbudget", "selector"), ("networkpolicy", "podSelector")):
        manifest = read(CLUSTERS / "kuberay" / f"{name}.yaml")
        assert manifest["spec"][field]["matchLabels"] == labels, name
    assert (
        workers["minReplicas"]
        > read(CLUSTERS / "kuberay" / "poddisruptionbudget.yaml")["spec"]["minAvailable"]
    ), "or no machine could ever be drained"


def test_the_page_names_every_key_of_the_secret() -> None:
    text = (CLUSTERS / "README.md").read_text()
    keys = {"REDIS_PASSWORD", "PGPASSWORD"}
    args = read(CLUSTERS / "serve.yaml")["applications"][0]["args"]
    keys |= {value.removeprefix("env:") for value in args.values() if str(value).startswith("env:")}
    assert len(keys) == 5
    for key in keys:
        assert f"--from-literal={key}=" in text
