"""A KubeRay `RayJob` with the spec in a ConfigMap: `kubectl apply -f` starts the cluster and the training.

launch/manifests/rayjob.schema.json describes the fields that are used, and names its source.
"""

import re
from importlib.metadata import version
from typing import TypeAlias

import yaml

from launch.cluster.job import STOP_S
from launch.cluster.jobs import STOP_WAIT
from launch.manifests.request import Request

NAME_LENGTH = 47
"""Maximum length of a RayJob's name; KubeRay appends to it."""
SPEC = "/etc/agile-ray"
"""Where the ConfigMap is mounted."""
KEPT_S = 600
"""Time after which the pods of a job that has ended are deleted, seconds."""
GRACE_S = 60
"""Time between SIGTERM and SIGKILL of a pod, seconds."""

Value: TypeAlias = "str | int | bool | list[Value] | dict[str, Value]"
"""What a manifest consists of."""


def rayjob(asked: Request) -> str:
    """The manifest: a ConfigMap and a RayJob, as YAML."""
    name = kubernetes_name(asked.name)
    config_map: Value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"spec.yaml": asked.config.yaml()},
    }
    variables: dict[str, dict[str, str]] = {"env_vars": {STOP_WAIT: str(STOP_S)}}
    cluster: dict[str, Value] = {
        "rayVersion": version("ray"),
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": _pod(asked, name, "ray-head")},
    }
    if asked.nodes > 1:
        count = asked.nodes - 1
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": count,
                "minReplicas": count,
                "maxReplicas": count,
                "rayStartParams": {},
                "template": _pod(asked, name, "ray-worker"),
            }
        ]
    job: Value = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"{asked.train} {SPEC}/spec.yaml",
            "runtimeEnvYAML": yaml.safe_dump(variables),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "rayClusterSpec": cluster,
        },
    }
    return f"{_head(asked)}{yaml.dump_all([config_map, job], Dumper=Dumper, sort_keys=False)}"


def kubernetes_name(run: str) -> str:
    """A run's name as Kubernetes takes it: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:NAME_LENGTH].strip("-") or "run"


def _head(asked: Request) -> str:
    lines = [
        f"# Training {asked.name}: kubectl apply -f FILE; `kubectl delete` ends it, and applied again it resumes.",
        f"# Needs the image {asked.image}, and the volume claim {asked.claim} with what is below {asked.shared}.",
    ]
    if asked.assumed:
        lines.append("# The memory is assumed: the model's folder is not on the machine that wrote this.")
    return "".join(f"{line}\n" for line in lines)


def _pod(asked: Request, name: str, container: str) -> Value:
    resources: dict[str, Value] = {"cpu": asked.cores, "memory": f"{asked.memory_gib}Gi"}
    if asked.gpus:
        resources["nvidia.com/gpu"] = asked.gpus
    spec: dict[str, Value] = {
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [
            {
                "name": container,
                "image": asked.image,
                "resources": {"limits": dict(resources), "requests": dict(resources)},
                "volumeMounts": [
                    {"name": "shared", "mountPath": str(asked.shared)},
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "spec", "mountPath": SPEC},
                ],
            }
        ],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": asked.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{-(-asked.memory_gib // 3)}Gi"}},
            {"name": "spec", "configMap": {"name": name}},
        ],
    }
    if asked.priority:
        spec["priorityClassName"] = asked.priority
    return {"spec": spec}


class Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and in full what is repeated."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  yaml's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, _text)
