"""Reserves the room of a run on the cluster before any of its actors is created: all of it, or none.

    needs      bundles: of an engine {CPU: 1, GPU: rollout.tensor_parallel}, of a learner rank {CPU: 1, GPU: 1};
               with cluster.colocate an engine and a rank share {CPU: 2, GPU: 1}
    reserve    one placement group of all bundles, the ranks close together (PACK); it is ready within `ROOM_S`
    places     the bundle of each engine and of each rank, which its actor is created in
    close      removes the group, and what still runs in it

Ray fills a placement group with all bundles at once. So of two runs that do not fit side by side one gets its room, and
the other holds nothing.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from agile_ray.config import RunConfig
from agile_ray.errors import ConfigError, DeadlineError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ROOM_S = 50.0
"""Longest wait for room, seconds: a command that finds none ends within a minute."""
CLOSE_S = 5.0
"""Longest wait for Ray to take room back, seconds. It does so anyway when this process ends."""

Bundle = Mapping[str, float]
"""Resources of one place, by Ray's names: CPU and GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run asks of the cluster."""

    bundles: tuple[Bundle, ...]
    engines: tuple[int, ...]  # the bundle of each engine
    ranks: tuple[int, ...]  # the bundle of each learner rank

    @classmethod
    def of(cls, config: RunConfig, *, engines: int, ranks: int) -> "Needs":
        """The needs of this many engines and ranks."""
        gpu = config.cluster.device == "gpu"
        if config.cluster.colocate:
            shared = _bundle(cpus=2, gpus=1 if gpu else 0)
            return cls(
                bundles=(shared,) * max(engines, ranks), engines=tuple(range(engines)), ranks=tuple(range(ranks))
            )
        rank = _bundle(cpus=1, gpus=1 if gpu else 0)
        engine = _bundle(cpus=1, gpus=config.rollout.tensor_parallel if gpu else 0)
        return cls(
            bundles=(rank,) * ranks + (engine,) * engines,
            engines=tuple(range(ranks, ranks + engines)),
            ranks=tuple(range(ranks)),
        )

    @property
    def total(self) -> Bundle:
        """All bundles together."""
        names = {name for bundle in self.bundles for name in bundle}
        return {name: sum(bundle.get(name, 0.0) for bundle in self.bundles) for name in names}


class Room:
    """The places of a run, which nobody else uses until it is closed."""

    def __init__(self, group: "PlacementGroup", needs: Needs) -> None:
        self._group = group
        self.engines = [_place(group, bundle) for bundle in needs.engines]
        self.ranks = [_place(group, bundle) for bundle in needs.ranks]

    def close(self) -> None:
        """Give the room back; Ray ends what still runs in it. It raises nothing, since it also runs after a failure.

        Ray itself may be dead then, and would be waited for: after `CLOSE_S` it goes on without an answer.
        """
        asking = Thread(target=_remove, args=(self._group,), daemon=True)
        asking.start()
        asking.join(CLOSE_S)


def reserve(config: RunConfig, *, engines: int, ranks: int, deadline_s: float = ROOM_S) -> Room:
    """Reserve room for this many engines and learner ranks on the cluster that this process has joined.

    Raises:
        ConfigError: the cluster has less than that, even if nothing else ran on it.
        DeadlineError: the room does not become free in time; nothing is held.
    """
    import ray
    from ray.util import placement_group

    needs = Needs.of(config, engines=engines, ranks=ranks)
    check(needs, nodes=_nodes(), free=ray.available_resources())
    group = placement_group([dict(bundle) for bundle in needs.bundles], strategy="PACK")
    room = Room(group, needs)
    try:
        if not group.wait(math.ceil(deadline_s)):
            numbers = _numbers(needs, nodes=_nodes(), free=ray.available_resources())
            raise DeadlineError(
                f"cluster: a run's room must be free within {deadline_s:g} s, but {numbers}; wait until others end, or "
                f"{_less(needs)}"
            )
    except BaseException:
        room.close()
        raise
    return room


def check(needs: Needs, *, nodes: Sequence[Bundle], free: Bundle) -> None:
    """Refuse needs that the cluster can't meet even when nothing else runs on it.

    Args:
        needs: of the run.
        nodes: resources of each node that is alive, used or not.
        free: what of them nobody uses.

    Raises:
        ConfigError: there is too little of a resource in all, or no node is large enough for one of the bundles.
    """
    numbers, total = _numbers(needs, nodes=nodes, free=free), _sum(nodes)
    if not _fits(needs.total, total):
        raise ConfigError(f"cluster: {numbers}; add nodes, or {_less(needs)}")
    for bundle in needs.bundles:
        if not any(_fits(bundle, node) for node in nodes):
            largest = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))
            raise ConfigError(
                f"cluster: {numbers}; one node must have {_amount(bundle, like=bundle)}, and the largest has "
                f"{_amount(largest, like=bundle)}: add a larger one, or {_less(needs)}"
            )


def _fits(bundle: Bundle, room: Bundle) -> bool:
    return all(amount <= room.get(name, 0.0) for name, amount in bundle.items())


def _bundle(*, cpus: float, gpus: float) -> Bundle:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _place(group: "PlacementGroup", bundle: int) -> "PlacementGroupSchedulingStrategy":
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=bundle, placement_group_capture_child_tasks=False
    )


def _remove(group: "PlacementGroup") -> None:
    from ray.exceptions import RayError
    from ray.util import remove_placement_group

    with suppress(RayError):
        remove_placement_group(group)


def _nodes() -> list[Bundle]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _sum(bundles: Sequence[Bundle]) -> Bundle:
    return {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in ("CPU", "GPU")}


def _numbers(needs: Needs, *, nodes: Sequence[Bundle], free: Bundle) -> str:
    """What is needed, what the cluster has, and what of it is free."""
    asked = (
        f"{len(places)} {name}{'s' if len(places) > 1 else ''}"
        for name, places in (("engine", needs.engines), ("learner rank", needs.ranks))
        if places
    )
    needed, has, left = (_amount(found, like=needs.total) for found in (needs.total, _sum(nodes), free))
    return f"{' and '.join(asked)} need {needed}, the cluster has {has}, free are {left}"


def _amount(found: Bundle, *, like: Bundle) -> str:
    """How much there is of each resource that `like` names, for example "3 GPUs and 8 CPUs"."""
    return " and ".join(f"{found.get(name, 0.0):g} {name}s" for name in ("GPU", "CPU") if name in like)


def _less(needs: Needs) -> str:
    keys = [
        *(["rollout.actors"] if needs.engines else []),
        *(["rollout.tensor_parallel"] if needs.engines and "GPU" in needs.total else []),
        *(["learner.ranks"] if needs.ranks else []),
    ]
    shared = len(needs.bundles) < len(needs.engines) + len(needs.ranks)
    colocate = "GPU" in needs.total and needs.engines and needs.ranks and not shared
    lower = f"lower {', '.join(keys[:-1])} or {keys[-1]}" if len(keys) > 1 else f"lower {keys[0]}"
    return f"{lower}, or share GPUs with cluster.colocate=true" if colocate else lower
