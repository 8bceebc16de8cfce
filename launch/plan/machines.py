"""Machines: what a cluster consists of, and where the actors of a run find room.

A shape is written NODESxCOUNTxKIND-GIB, several joined by +:

    2x8xH100-80           two nodes with eight GPUs of 80 GiB each
    4x16xcpu-64           four nodes of sixteen cores and 64 GiB
    1x8xH100-80+2x64xcpu-256
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError

GIB = 2**30
SHAPE = re.compile(r"(\d+)x(\d+)x([A-Za-z][A-Za-z0-9]*)-(\d+(?:\.\d+)?)")
CPU = "cpu"
RULE = "a shape is NODESxCOUNTxKIND-GIB, such as 2x8xH100-80 (GPUs) or 4x16xcpu-64 (cores), several joined by +"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine."""

    name: str
    cores: int | None = None  # None: not stated, and taken for enough
    memory_bytes: int | None = None  # main memory; likewise
    gpus: int = 0
    gpu_bytes: int = 0  # of each GPU
    gpu_kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """What one actor of a run takes."""

    name: str
    cores: int = 1
    gpus: int
    memory_bytes: int  # of main memory; 0 if it computes on GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which node each actor is on."""

    by_node: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]  # actors that find no room


def parse_shape(text: str) -> tuple[Node, ...]:
    """The nodes of a shape.

    Raises:
        ConfigError: it is written otherwise, or has no node.
    """
    nodes: list[Node] = []
    for part in text.split("+"):
        found = SHAPE.fullmatch(part.strip())
        if found is None or not int(found[1]) or not int(found[2]):
            raise ConfigError(f"--cluster {text}: {RULE}")
        count, each, kind, size = int(found[1]), int(found[2]), found[3], int(float(found[4]) * GIB)
        for _ in range(count):
            name = f"node-{len(nodes)}"
            if kind.lower() == CPU:
                nodes.append(Node(name=name, cores=each, memory_bytes=size))
            else:
                nodes.append(Node(name=name, gpus=each, gpu_bytes=size, gpu_kind=kind))
    return tuple(nodes)


def describe(nodes: Sequence[Node]) -> str:
    """The nodes in words, equal ones counted."""
    counted: dict[str, int] = {}
    for node in nodes:
        counted[_words(node)] = counted.get(_words(node), 0) + 1
    return ", ".join(f"{count} x ({words})" for words, count in counted.items())


def _words(node: Node) -> str:
    parts = []
    if node.gpus:
        parts.append(f"{node.gpus} {node.gpu_kind or 'GPU'} of {node.gpu_bytes / GIB:.0f} GiB")
    if node.cores is not None:
        parts.append(f"{node.cores} cores")
    if node.memory_bytes is not None:
        parts.append(f"{node.memory_bytes / GIB:.0f} GiB of memory")
    return ", ".join(parts)


def actors_of(config: RunConfig, *, rank_bytes: int, engine_bytes: int) -> list[Actor]:
    """The actors of a run, those first that need most GPUs on one node."""
    gpu = config.cluster.device == "gpu"
    if config.cluster.colocate:  # launch/cluster/room.py reserves one place for both
        memory = 0 if gpu else engine_bytes + rank_bytes
        return [
            Actor(name=f"engine-{index} with rank-{index}", cores=2, gpus=1 if gpu else 0, memory_bytes=memory)
            for index in range(config.learner.ranks)
        ]
    engines = [
        Actor(
            name=f"engine-{index}",
            gpus=config.rollout.tensor_parallel if gpu else 0,
            memory_bytes=0 if gpu else engine_bytes,
        )
        for index in range(config.rollout.actors)
    ]
    ranks = [
        Actor(name=f"rank-{rank}", gpus=1 if gpu else 0, memory_bytes=0 if gpu else rank_bytes)
        for rank in range(config.learner.ranks)
    ]
    return [*engines, *ranks]


def place(actors: Sequence[Actor], nodes: Sequence[Node], *, count_cores: bool) -> Placement:
    """Put each actor on the first node that has room for it: its cores, its GPUs, and its memory.

    Args:
        actors: in order.
        nodes: in order.
        count_cores: False for a local run, whose logical cores may exceed those of the machine.
    """
    gpus = [node.gpus for node in nodes]
    cores = [node.cores for node in nodes]
    memory = [node.memory_bytes for node in nodes]
    by_node: dict[str, list[str]] = {node.name: [] for node in nodes}
    left_out: list[str] = []
    for actor in actors:
        for index, node in enumerate(nodes):
            free, left = cores[index], memory[index]
            if (
                gpus[index] >= actor.gpus
                and (not count_cores or free is None or free >= actor.cores)
                and (left is None or left >= actor.memory_bytes)
            ):
                gpus[index] -= actor.gpus
                cores[index] = None if free is None else free - actor.cores
                memory[index] = None if left is None else left - actor.memory_bytes
                by_node[node.name].append(actor.name)
                break
        else:
            left_out.append(actor.name)
    return Placement(by_node={name: tuple(names) for name, names in by_node.items()}, left_out=tuple(left_out))
