"""Whether a run fits its machines, what does not, and what would make it fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agile_ray.config import RunConfig
from launch.plan.machines import GIB, Node, Placement, actors_of, place
from launch.plan.memory import EngineMemory, RankMemory, engine_memory, rank_memory
from launch.plan.network import Network

SPARE = 0.05
"""Share of a GPU that its driver and the allocator's gaps take."""
ENGINE_IDLE = int(1.5 * GIB)
"""Main memory of an engine's processes on a CPU before a model is loaded, bytes: the actor, vLLM's core and worker."""
RANK_IDLE = int(0.6 * GIB)
"""Main memory of a learner rank's process before a model is loaded, bytes."""
LORA_RANK = 16
"""Rank of LoRA that is proposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a run takes of its machines."""

    rank: RankMemory
    engine: EngineMemory
    placement: Placement
    problems: tuple[str, ...]  # each says what does not fit, and what would
    warnings: tuple[str, ...]


def fit(
    config: RunConfig, network: Network, nodes: Sequence[Node], *, action_share: float, count_cores: bool = True
) -> Fit:
    """Compare what a run takes with what its machines have.

    Args:
        config: of the run.
        network: sizes of the model.
        nodes: of the cluster.
        action_share: action tokens over all tokens of a session.
        count_cores: False for a local run, whose logical cores may exceed those of the machine.
    """
    gpu_bytes = _smallest_gpu(nodes) if config.cluster.device == "gpu" else None
    rank = rank_memory(config, network, action_share=action_share)
    engine = engine_memory(config, network, gpu_bytes=gpu_bytes)
    actors = actors_of(config, rank_bytes=rank.total + RANK_IDLE, engine_bytes=engine.total + ENGINE_IDLE)
    placement = place(actors, nodes, count_cores=count_cores)
    problems = [
        *_rank_problems(config, network, rank, gpu_bytes, action_share),
        *_engine_problems(config, network, engine, gpu_bytes),
        *_room_problems(config, nodes, placement, sum(actor.memory_bytes for actor in actors)),
    ]
    return Fit(
        rank=rank,
        engine=engine,
        placement=placement,
        problems=tuple(problems),
        warnings=tuple(_warnings(config, engine)),
    )


def _smallest_gpu(nodes: Sequence[Node]) -> int:
    return min((node.gpu_bytes for node in nodes if node.gpus), default=0)


def _rank_problems(
    config: RunConfig, network: Network, rank: RankMemory, gpu_bytes: int | None, action_share: float
) -> Iterator[str]:
    if not gpu_bytes:
        return
    room = int((1 - SPARE) * gpu_bytes)
    if rank.total <= room:
        return
    what = f"a learner rank takes {rank.total / GIB:.1f} GiB, a GPU has {room / GIB:.1f} to give"
    single = [
        f"{words} ({total / GIB:.1f} GiB)"
        for words, changed in _savings(config)
        if (total := rank_memory(changed, network, action_share=action_share).total) <= room
    ]
    if single:
        yield f"{what}; one of these is enough: {', '.join(single)}"
        return
    together, words = config, list[str]()
    for _ in range(len(list(_savings(config)))):
        best = min(
            _savings(together),
            key=lambda saving: rank_memory(saving[1], network, action_share=action_share).total,
            default=None,
        )
        if best is None:
            break
        words.append(best[0])
        together = best[1]
        total = rank_memory(together, network, action_share=action_share).total
        if total <= room:
            yield f"{what}; together these are enough: {', '.join(words)} ({total / GIB:.1f} GiB)"
            return
    yield f"{what}; no setting makes it fit: take larger GPUs, or a smaller model"


def _savings(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Changes that save memory of a rank, each with the configuration that it makes."""
    learner = config.learner
    changes: list[tuple[str, object]] = []
    if not learner.gradient_checkpointing:
        changes.append(("gradient_checkpointing", True))
    if learner.micro_batch_tokens // 2 >= config.agent.session_tokens:
        changes.append(("micro_batch_tokens", learner.micro_batch_tokens // 2))
    if learner.dtype == "float32":
        changes.append(("dtype", "bfloat16"))
    if learner.lora_rank is None:
        changes += [("zero_stage", stage) for stage in (2, 3) if stage > learner.zero_stage and learner.ranks > 1]
        changes.append(("ranks", 2 * learner.ranks))
        if learner.zero_stage < 3:
            changes.append(("lora_rank", LORA_RANK))
    for name, value in changes:
        shown = str(value).lower() if isinstance(value, bool) else value
        changed = learner.model_copy(update={name: value})
        yield f"learner.{name}={shown}", config.model_copy(update={"learner": changed})


def _engine_problems(config: RunConfig, network: Network, engine: EngineMemory, gpu_bytes: int | None) -> Iterator[str]:
    rollout, session = config.rollout, config.agent.session_tokens + 1
    if network.heads % rollout.tensor_parallel:
        yield (
            f"rollout.tensor_parallel ({rollout.tensor_parallel}) must divide the model's {network.heads} heads; "
            f"choose one of {', '.join(str(n) for n in (1, 2, 4, 8) if not network.heads % n)}"
        )
    if engine.cached_tokens >= session or gpu_bytes == 0:
        return
    each = network.cache_bytes(each=2 if rollout.dtype == "bfloat16" else 4)
    if gpu_bytes is None:
        yield (
            f"rollout.kv_cache_gib: the cache must hold a session of {session} tokens, {session * each / GIB:.2f} GiB, "
            f"found {rollout.kv_cache_gib:g}; raise it"
        )
        return
    yield (
        f"an engine's weights take {engine.weights / GIB:.1f} GiB of each of its GPUs, which leaves no cache for a "
        f"session of {session} tokens in rollout.gpu_memory ({rollout.gpu_memory:g} of {gpu_bytes / GIB:.0f} GiB); "
        f"raise rollout.tensor_parallel to {2 * rollout.tensor_parallel}"
        f"{', or set rollout.dtype=bfloat16' if rollout.dtype == 'float32' else ''}"
    )


def _room_problems(config: RunConfig, nodes: Sequence[Node], placement: Placement, memory: int) -> Iterator[str]:
    if not placement.left_out:
        return
    first, *others = placement.left_out
    named = f"{first} and {len(others)} more find" if others else f"{first} finds"
    learner, rollout = config.learner, config.rollout
    if config.cluster.device == "gpu":
        need = learner.ranks + rollout.actors * rollout.tensor_parallel
        have, most = sum(node.gpus for node in nodes), max((node.gpus for node in nodes), default=0)
        without = "take machines that have GPUs, or set cluster.device=cpu"
        if config.cluster.colocate:
            why = (
                f"{learner.ranks} GPUs are needed, one for each rank and its engine, found {have}; "
                f"{'lower learner.ranks and rollout.actors, or add nodes' if have else without}"
            )
        elif rollout.tensor_parallel > most > 0:
            why = (
                f"an engine needs {rollout.tensor_parallel} GPUs of one node, which has at most {most}; lower "
                "rollout.tensor_parallel"
            )
        else:
            why = (
                f"{need} GPUs are needed, one for each of {learner.ranks} ranks and {rollout.tensor_parallel} for each "
                f"of {rollout.actors} engines, found {have}; "
                f"{'lower learner.ranks or rollout.actors, or add nodes' if have else without}"
            )
        yield f"{named} no room: {why}"
        return
    cores, known = [node.cores or 0 for node in nodes], [node.memory_bytes or 0 for node in nodes]
    yield (
        f"{named} no room: {learner.ranks + rollout.actors} cores and {memory / GIB:.1f} GiB are needed, found "
        f"{sum(cores)} and {sum(known) / GIB:.1f}; lower learner.ranks, learner.micro_batch_tokens, rollout.actors or "
        "rollout.kv_cache_gib, or add nodes"
    )


def _warnings(config: RunConfig, engine: EngineMemory) -> Iterator[str]:
    seats, session = config.seats, config.agent.session_tokens
    if session < engine.cached_tokens < seats * session:
        yield (
            f"the cache of an engine holds {engine.cached_tokens} tokens, {engine.cached_tokens // session} of its "
            f"{seats} seats with the longest sessions: the others then wait, and prompts are computed again"
        )
