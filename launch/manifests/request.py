"""What a run asks of a cluster's own scheduler: nodes, and GPUs, cores and memory of each, by the plan of its spec.

All nodes are alike. The driver runs on the first of them, beside its actors.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError
from launch.cluster.address import check_shared
from launch.plan.fit import ENGINE_IDLE, RANK_IDLE, fit
from launch.plan.machines import GIB, Actor, Node, actors_of, place
from launch.plan.memory import engine_memory, rank_memory
from launch.plan.network import Network, read_network
from launch.run.sweep_plan import flags

GPUS_OF_A_NODE = 8
"""GPUs of a node where no shape says otherwise."""
CORES_PER_GPU = 4
"""Cores beside each GPU: vLLM's and DeepSpeed's host threads."""
DRIVER_CORES = 2
DRIVER_BYTES = 2 * GIB
KEPT_CORES, KEPT = 1, 0.1
"""What a node of a given shape keeps for its system: cores, and share of its memory."""
STORE = 0.3
"""Share of a node's memory that Ray's object store takes, in /dev/shm."""
CORE_GIB, GPU_GIB = 4, 64
"""Main memory for each core, or for each GPU, where the model's folder can't be seen from here. Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run asks for."""

    config: RunConfig
    nodes: int
    gpus: int  # of each node
    gpu_kind: str  # "": not stated
    cores: int  # of each node
    memory_gib: int  # of each node
    assumed: bool  # the memory is not that of the plan
    image: str
    claim: str  # the volume with run.folder, model.path and data, as Kubernetes names it
    priority: str  # "": none
    track: tuple[str, ...] = ()  # programs that are given the metrics meanwhile

    @property
    def train(self) -> str:
        """The command that trains, without the spec."""
        return shlex.join(["agile-ray", "train", *flags(self.track)])

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.run.name

    @property
    def shared(self) -> Path:
        """The folder that every node must see: the topmost one of those that the run names."""
        config = self.config
        recordings = config.env.expert.recordings.values()
        paths = (config.run.folder, config.model.path, config.env.data, *recordings)
        tops = {path.parts[1] for path in paths if path is not None and len(path.parts) > 1}
        return Path("/", *tops) if len(tops) == 1 else Path("/")


def request(
    config: RunConfig,
    *,
    nodes: Sequence[Node] | None,
    image: str,
    claim: str,
    priority: str,
    track: Sequence[str] = (),
) -> Request:
    """What a run asks for.

    Args:
        config: of the run, with absolute paths.
        nodes: machines that are meant; None: as many as it takes, of at most GPUS_OF_A_NODE GPUs.
        image: of containers.
        claim: the volume that its nodes share.
        priority: its name in the cluster; "": none.
        track: names of programs that are given the metrics meanwhile.

    Raises:
        ConfigError: a path is relative, or not below one shared folder; the run does not fit; or its nodes differ.
    """
    check_shared(config)
    seen = (config.model.path / "config.json").is_file()
    network = read_network(config.model.path) if seen else None
    gpu = config.cluster.device == "gpu"
    actors = _actors(
        config, network, gpu_bytes=min((node.gpu_bytes for node in nodes or ()), default=0) if gpu else None
    )
    used, loads = _placed(config, network, actors, nodes)
    if len({(node.gpus, node.gpu_kind, node.cores, node.memory_bytes) for node in used}) > 1:
        raise ConfigError(
            f"--cluster: nodes of one kind are needed here, found {', '.join(node.name for node in used)}"
        )
    first, gpus = used[0], max(sum(actor.gpus for actor in load) for load in loads)
    gpus = first.gpus if nodes is not None else gpus
    busy = max(sum(actor.cores for actor in load) for load in loads)
    cores = DRIVER_CORES + max(busy, CORES_PER_GPU * gpus)
    if first.cores is not None:
        cores = max(1, first.cores - KEPT_CORES)
    planned = max(sum(_main_memory(config, network, actor, loads) for actor in load) for load in loads)
    memory = math.ceil((planned + DRIVER_BYTES) / (1 - STORE) / GIB)
    if network is None:
        memory = GPU_GIB * gpus if gpus else CORE_GIB * cores
    if first.memory_bytes is not None:
        memory = max(1, int((1 - KEPT) * first.memory_bytes / GIB))
    made = Request(
        config=config,
        nodes=len(used),
        gpus=gpus,
        gpu_kind=first.gpu_kind,
        cores=cores,
        memory_gib=memory,
        assumed=network is None and first.memory_bytes is None,
        image=image,
        claim=claim,
        priority=priority,
        track=tuple(track),
    )
    if made.shared == Path("/"):
        raise ConfigError(
            f"run.folder={config.run.folder}: run.folder, model.path and data must be below one folder that every node "
            "mounts, such as /mnt, found several"
        )
    return made


def _actors(config: RunConfig, network: Network | None, *, gpu_bytes: int | None) -> list[Actor]:
    if network is None:
        return actors_of(config, rank_bytes=0, engine_bytes=0)
    rank = rank_memory(config, network, action_share=0.0).total + RANK_IDLE
    engine = engine_memory(config, network, gpu_bytes=gpu_bytes).total + ENGINE_IDLE
    return actors_of(config, rank_bytes=rank, engine_bytes=engine)


def _placed(
    config: RunConfig, network: Network | None, actors: Sequence[Actor], nodes: Sequence[Node] | None
) -> tuple[list[Node], list[list[Actor]]]:
    """The nodes that are used, and the actors of each.

    Raises:
        ConfigError: the run does not fit.
    """
    machines = _enough(actors) if nodes is None else nodes
    placement = place(actors, machines, count_cores=True)
    problems = () if network is None else fit(config, network, machines, action_share=0.0).problems
    if placement.left_out or problems:
        said = "; ".join(problems) or f"no room for {', '.join(placement.left_out)}"
        raise ConfigError(f"submit: it does not fit: {said}")
    by_name = {actor.name: actor for actor in actors}
    used = [node for node in machines if placement.by_node[node.name]]
    return used, [[by_name[name] for name in placement.by_node[node.name]] for node in used]


def _enough(actors: Sequence[Actor]) -> Sequence[Node]:
    """As few nodes as hold the actors, with equal numbers of GPUs."""
    total, largest = sum(actor.gpus for actor in actors), max(actor.gpus for actor in actors)
    if not total:
        return [Node(name="node-0")]
    most = max(GPUS_OF_A_NODE, largest)
    for count in range(math.ceil(total / most), total + 1):
        for each in range(max(largest, math.ceil(total / count)), most + 1):
            nodes = [Node(name=f"node-{index}", gpus=each) for index in range(count)]
            if not place(actors, nodes, count_cores=False).left_out:
                return nodes
    raise AssertionError("a node for each actor holds them all")


def _main_memory(config: RunConfig, network: Network | None, actor: Actor, loads: Sequence[Sequence[Actor]]) -> int:
    """Bytes of main memory that an actor takes: on a CPU all of it, on a GPU its process and copies of the weights."""
    if network is None or not any(one.gpus for load in loads for one in load):
        return actor.memory_bytes
    copies = 4 * network.parameters  # float32, of a version on its way or a checkpoint
    rank = rank_memory(config, network, action_share=0.0)
    states = rank.weights + rank.reference + rank.optimizer + rank.gradients
    if config.cluster.colocate:
        return ENGINE_IDLE + RANK_IDLE + states + 2 * copies
    return (RANK_IDLE + copies) if actor.name.startswith("rank") else (ENGINE_IDLE + 2 * copies)
