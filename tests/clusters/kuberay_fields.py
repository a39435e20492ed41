"""The fields of KubeRay's kinds, of the reference of KubeRay 1.7: name → what it holds.

A field that KubeRay does not know is refused by a strict API server and dropped by another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]
POD = "a pod template"
"""Checked as Kubernetes checks one."""

AUTOSCALER: Fields = {
    "resources": dict,
    "image": str,
    "imagePullPolicy": str,
    "env": list,
    "envFrom": list,
    "volumeMounts": list,
    "securityContext": dict,
    "idleTimeoutSeconds": int,
    "upscalingMode": str,
    "version": str,
}
FAULT_TOLERANCE: Fields = {
    "redisAddress": str,
    "redisUsername": dict,
    "redisPassword": dict,
    "externalStorageNamespace": str,
}
HEAD: Fields = {
    "template": POD,
    "headService": dict,
    "enableIngress": bool,
    "resources": dict,
    "labels": dict,
    "rayStartParams": dict,
    "serviceType": str,
}
WORKERS: Fields = {
    "suspend": bool,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    "resources": dict,
    "labels": dict,
    "rayStartParams": dict,
    "template": POD,
    "scaleStrategy": dict,
    "numOfHosts": int,
}
CLUSTER: Fields = {
    "authOptions": {"mode": str},
    "suspend": bool,
    "managedBy": str,
    "autoscalerOptions": AUTOSCALER,
    "headServiceAnnotations": dict,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": FAULT_TOLERANCE,
    "headGroupSpec": HEAD,
    "rayVersion": str,
    "workerGroupSpecs": [WORKERS],
    "upgradeStrategy": dict,
}
JOB: Fields = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "preRunningDeadlineSeconds": int,
    "rayClusterSpec": CLUSTER,
    "submitterPodTemplate": POD,
    "metadata": dict,
    "clusterSelector": dict,
    "submitterConfig": {"backoffLimit": int},
    "managedBy": str,
    "deletionStrategy": dict,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "submissionMode": str,
    "entrypointResources": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool,
    "suspend": bool,
}
SERVICE: Fields = {
    "rayServiceDeletionDelaySeconds": int,
    "serveService": dict,
    "upgradeStrategy": dict,
    "managedBy": str,
    "serveConfigV2": str,
    "rayClusterConfig": CLUSTER,
    "excludeHeadPodFromServeSvc": bool,
}
CRON_JOB: Fields = {"schedule": str, "jobTemplate": JOB, "suspend": bool}
KINDS: dict[str, Fields] = {
    "RayCluster": CLUSTER,
    "RayJob": JOB,
    "RayService": SERVICE,
    "RayCronJob": CRON_JOB,
}


@dataclass(frozen=True)
class Found:
    """What is in a manifest beside what its tables allow."""

    problems: tuple[str, ...]
    pods: tuple[dict[str, Any], ...]
    """Its pod templates."""


def check(manifest: dict[str, Any]) -> Found:
    """Compares a manifest with the table of its kind."""
    faults = list(_walk(manifest["spec"], KINDS[manifest["kind"]], "spec"))
    pods = tuple(each for each in faults if isinstance(each, dict))
    return Found(tuple(each for each in faults if isinstance(each, str)), pods)


def _walk(value: Any, kind: Any, path: str) -> Iterator[str | dict[str, Any]]:
    if kind == POD:
        yield value
    elif isinstance(kind, dict) and isinstance(value, dict):
        for name, child in value.items():
            if name not in kind:
                yield f"{path}.{name}: no such field"
            else:
                yield from _walk(child, kind[name], f"{path}.{name}")
    elif isinstance(kind, list) and isinstance(value, list):
        for number, child in enumerate(value):
            yield from _walk(child, kind[0], f"{path}.{number}")
    elif not isinstance(kind, type) or not isinstance(value, kind):
        yield f"{path}: {value!r} is of a wrong type"
