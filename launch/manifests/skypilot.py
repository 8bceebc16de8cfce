"""A SkyPilot task: `sky jobs launch FILE`. Fields: https://docs.skypilot.co/en/latest/reference/yaml-spec.html."""

import yaml

from agile_ray.errors import ConfigError
from launch.manifests.rayjob import Dumper, Value, kubernetes_name
from launch.manifests.request import Request

PORT = 6379
"""Of this run's Ray; SkyPilot's own has another."""
JOIN_S = 300
"""Longest wait for all nodes to join, seconds."""
SPEC = "/tmp/agile-ray-spec.yaml"

WRITE = """\
cat > {spec} <<'END'
{content}END
"""
ALONE = "{train} {spec}\n"
TOGETHER = """\
head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
if [ "$SKYPILOT_NODE_RANK" != 0 ]; then
    until ray start --address="$head:{port}"; do sleep 5; done
    while ray status --address="$head:{port}" > /dev/null 2>&1; do sleep 10; done  # until the head ends
    exit 0
fi
ray start --head --port={port} --block & ray=$!
trap 'kill "$ray"' EXIT  # no `ray stop`: it would end SkyPilot's own Ray
export RAY_ADDRESS="$head:{port}"
deadline=$((SECONDS + {join}))
until [ "$(python -c 'import ray; ray.init(log_to_driver=False); print(len(ray.nodes()))' 2> /dev/null)" = {nodes} ]; do
    [ "$SECONDS" -lt "$deadline" ] || {{ echo "not all of {nodes} nodes joined within {join} s" >&2; exit 1; }}
    sleep 5
done
{train} {spec}
"""


def skypilot(asked: Request) -> str:
    """The task, as YAML.

    Raises:
        ConfigError: the run needs GPUs, and nothing says which.
    """
    if asked.gpus and not asked.gpu_kind:
        raise ConfigError("--manifest skypilot: it must say which GPUs: give --cluster, such as 1x8xH100-80")
    resources: dict[str, Value] = {"cpus": f"{asked.cores}+", "memory": f"{asked.memory_gib}+"}
    if asked.gpus:
        resources = {"accelerators": f"{asked.gpu_kind}:{asked.gpus}", **resources}
    resources["image_id"] = f"docker:{asked.image}"
    run = ALONE.format(spec=SPEC, train=asked.train)
    if asked.nodes > 1:
        run = TOGETHER.format(spec=SPEC, train=asked.train, port=PORT, nodes=asked.nodes, join=JOIN_S)
    task: dict[str, Value] = {"name": kubernetes_name(asked.name), "num_nodes": asked.nodes, "resources": resources}
    if asked.priority:
        task["config"] = {"kubernetes": {"pod_config": {"spec": {"priorityClassName": asked.priority}}}}
    task["run"] = WRITE.format(spec=SPEC, content=asked.config.yaml()) + run
    lines = [
        f"# Training {asked.name}: sky jobs launch FILE. Started again, it resumes.",
        f"# Needs a volume or a bucket with what is below {asked.shared}: add it under `volumes` or `file_mounts`.",
    ]
    if asked.assumed:
        lines.append("# The memory is assumed: the model's folder is not on the machine that wrote this.")
    return "".join(f"{line}\n" for line in lines) + yaml.dump(task, Dumper=Dumper, sort_keys=False)
