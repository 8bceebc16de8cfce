"""Bytes of a learner rank and of an engine.

What a rank holds, for P parameters of the model, N of them trained (all, or those of LoRA), w bytes each in
`learner.dtype`, R ranks:

    part         ZeRO 1               ZeRO 2                  ZeRO 3
    weights      w P                  w P                     w P / R
    reference    w P                  w P                     w P / R         0 with LoRA
    optimizer    12 N / R             12 N / R                12 N / R        AdamW's moments and weights, float32
    gradients    w N + 4 N / R        4 N / R + two buckets   4 N / R + two buckets
    activations  of one micro-batch while it is learned, its logits included

A rank's peak is either in a backward pass, which needs the activations, or in the optimizer's step, which needs STEP
further copies of its share in float32. Growth over a process that has only loaded its libraries is counted.
"""

from dataclasses import dataclass
from typing import Literal

from agile_ray.config import RunConfig
from launch.plan.network import Network

Width = Literal[2, 4]
BUCKET_ELEMENTS = 50_000_000
"""Maximum number of gradients in one bucket of the reduction, as learner/engine.py sets it."""
STEP = 2
"""Float32 copies of its share that the optimizer's step needs: the gradient in one piece, and one number in between."""
LOGITS = 5
"""Arrays of float32 [action tokens, vocabulary] that a backward pass holds at once: the logits, the scaled ones, the
gradients of both, and what is in between."""
LIBRARIES = 53 << 20
"""What libraries load in their first pass, bytes. This and the next two are measured by benchmarks/rank_memory.py."""
ADAPTER_LIBRARY = 75 << 20
"""What peft loads, bytes."""
GAPS = 1.05
"""Memory that an allocator holds for what is allocated and freed in each pass, over what is used."""
HEADS_OF_CRITIC = 3
"""Heads on the last hidden state, of one row each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes of one learner rank."""

    weights: int
    reference: int  # the frozen SFT policy
    optimizer: int
    gradients: int
    activations: int  # of one micro-batch
    step: int  # in the optimizer's step, when there are no activations

    @property
    def total(self) -> int:
        """The peak."""
        held = self.weights + self.reference + self.optimizer + self.gradients
        return held + max(self.activations, self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Bytes of one engine; on GPUs, of each of its GPUs."""

    weights: int
    cache: int  # keys and values
    cached_tokens: int  # that fit into the caches of the engine's GPUs together

    @property
    def total(self) -> int:
        """Both."""
        return self.weights + self.cache


def width(dtype: str) -> Width:
    """Bytes of one number."""
    return 2 if dtype == "bfloat16" else 4


def rank_memory(config: RunConfig, network: Network, *, action_share: float) -> RankMemory:
    """Bytes of one learner rank.

    Args:
        config: of the run.
        network: sizes of the model.
        action_share: action tokens over all tokens of a session.
    """
    learner = config.learner
    ranks, each = learner.ranks, width(learner.dtype)
    shards = ranks if learner.zero_stage == 3 else 1
    heads = HEADS_OF_CRITIC * (network.hidden + 1)
    held = network.parameters + heads + (network.trained(learner.lora_rank) if learner.lora_rank else 0)
    trained = network.trained(learner.lora_rank) + heads
    share = 4 * trained // ranks
    bucket = each * min(trained, BUCKET_ELEMENTS)
    gradients = each * trained + bucket if learner.zero_stage == 1 else share + 2 * bucket
    return RankMemory(
        weights=each * held // shards,
        reference=0 if learner.lora_rank else each * network.parameters // shards,
        optimizer=3 * share,
        gradients=gradients,
        activations=activations(config, network, action_share=action_share),
        step=STEP * share,
    )


def activations(config: RunConfig, network: Network, *, action_share: float) -> int:
    """Bytes of what one micro-batch keeps for its backward pass, the logits of its action tokens included.

    Of a token each layer keeps, in numbers: what the two norms and the residual read and write (7 H); queries, keys and
    values of all heads, and attention's output in two orders (5 A, A = heads x D); four arrays of the MLP (4 F). Plain
    attention also keeps a row of weights over the session, and LoRA the output of every linear layer once more. With
    gradient checkpointing only each layer's input is kept, and one layer is computed again.
    """
    tokens, session = config.learner.micro_batch_tokens, config.agent.session_tokens
    each = width(config.learner.dtype)
    fast = {config.imitation.dtype, config.ppo.dtype, config.learner.dtype}
    products = 2 if "float32" not in fast else each  # of matrix products: the larger of both trainings
    heads = network.heads * network.head_size
    layer = each * 7 * network.hidden + products * (5 * heads + 4 * network.intermediate)
    if config.cluster.device == "cpu" and "bfloat16" in fast:  # plain attention; its softmax is in float32
        layer += network.heads * session * (4 + products % 4)
    if config.learner.lora_rank is not None:
        layer += products * sum(wide for wide, _ in network.linear) // network.layers
    cast = 2 * network.parameters if products < each else 0  # autocast keeps the weights in bfloat16, too
    if config.learner.gradient_checkpointing:
        kept = each * network.hidden * network.layers + layer
    else:
        kept = layer * network.layers
    logits = LOGITS * 4 * network.vocabulary * action_share
    libraries = LIBRARIES + (ADAPTER_LIBRARY if config.learner.lora_rank is not None else 0)
    return int(GAPS * tokens * (kept + logits)) + cast + libraries


def engine_memory(config: RunConfig, network: Network, *, gpu_bytes: int | None) -> EngineMemory:
    """Bytes of one engine.

    Args:
        gpu_bytes: memory of each GPU; None: the engine is on a CPU.
    """
    rollout = config.rollout
    each, gpus = width(rollout.dtype), rollout.tensor_parallel if gpu_bytes is not None else 1
    weights = each * network.parameters // gpus
    if gpu_bytes is None:
        cache = int(rollout.kv_cache_gib * 2**30)
    else:
        cache = max(0, int(rollout.gpu_memory * gpu_bytes) - weights - _engine_working(config, network))
    return EngineMemory(
        weights=weights, cache=cache, cached_tokens=cache * gpus // network.cache_bytes(each=each) if cache else 0
    )


def _engine_working(config: RunConfig, network: Network) -> int:
    """What vLLM sets aside on a GPU beside weights and cache: activations of its largest step, with float32 logits."""
    prefilled = max(8192, config.agent.session_tokens)  # vLLM's step, in tokens
    return prefilled * 2 * (2 * network.hidden + 2 * network.intermediate) + 2 * 4 * config.seats * network.vocabulary
