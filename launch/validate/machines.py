"""The nodes of a running cluster, as a spec is checked against them."""

from collections.abc import Sequence

from launch.cluster.dashboard import Dashboard
from launch.plan.machines import Node


def nodes_of(dashboard: Dashboard) -> Sequence[Node]:
    """The nodes of a running cluster.

    Raises:
        ConfigError: its dashboard does not answer.
    """
    return [
        Node(
            name=node.name,
            cores=node.cores,
            memory_bytes=node.memory_bytes,
            gpus=node.gpus,
            gpu_bytes=node.gpu_bytes,
            gpu_kind=node.gpu_kind,
        )
        for node in dashboard.nodes()
    ]
