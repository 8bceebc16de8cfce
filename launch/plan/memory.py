"""Bytes of a learner rank and of an engine.

What a rank holds, for P parameters of the model, N of them trained (all, or those of LoRA), w bytes each in
`learner.dtype`, R ranks:

    part         ZeRO 1                  ZeRO 2                  ZeRO 3
    weights      w P                     w P                     w P / R
    reference    w P                     w P                     w P / R         0 with LoRA
    optimizer    12 N / R                12 N / R                12 N / R        AdamW's moments and weights, float32
    gradients    w N + a bucket          4 N / R + two buckets   4 N / R + two buckets
                 bfloat16: (w + 4) N
    activations  of one micro-batch while it is learned, its logits included

In bfloat16, DeepSpeed's ZeRO 1 keeps the gradients of all ranks in float32. A rank's peak is either in a backward pass,
which needs the activations, or in the optimizer's step, which needs further float32 copies of the rank's share. Growth
over a process that has only loaded its libraries is counted.
"""

from dataclasses import dataclass
from typing import Literal

from agile_ray.config import RunConfig
from launch.plan.network import Network

Width = Literal[2, 4]
BUCKET_ELEMENTS = 50_000_000
"""Maximum number of gradients in one bucket of the reduction, as learner/engine.py sets it."""
STEP = 4
"""Float32 copies of its share that the optimizer's step needs: the averaged gradients, the same in one piece, and two
numbers in between."""
STEP_IN_ONE_PIECE = 2
"""The same where the gradients lie in one piece already."""
LOGITS = 5
"""Arrays of float32 [action tokens, vocabulary] that a backward pass holds at once: the logits, the scaled ones, the
gradients of both, and what is in between."""
LIBRARIES = 53 << 20
"""What libraries load with the first model, bytes. This and the next two are measured by benchmarks/rank_memory.py."""
ADAPTER_LIBRARY = 75 << 20
"""What peft loads, bytes."""
GAPS = 1.05
"""Memory that an allocator holds for what is allocated and freed in each pass, over what is used."""
HEADS_OF_CRITIC = 3
"""Heads on the last hidden state, of one row each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes of one learner rank."""

    libraries: int
    weights: int
    reference: int  # the frozen SFT policy
    optimizer: int
    gradients: int
    activations: int  # of one micro-batch
    step: int  # in the optimizer's step, when there are no activations

    @property
    def total(self) -> int:
        """The peak."""
        held = self.libraries + self.weights + self.reference + self.optimizer + self.gradients
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
    in_one_piece = learner.zero_stage == 1 and each == 2
    if learner.zero_stage == 1:
        gradients = each * trained + (4 * trained if in_one_piece else bucket)
    else:
        gradients = share + 2 * bucket
    return RankMemory(
        libraries=LIBRARIES + (ADAPTER_LIBRARY if learner.lora_rank is not None else 0),
        weights=each * held // shards,
        reference=0 if learner.lora_rank else each * network.parameters // shards,
        optimizer=3 * share,
        gradients=gradients,
        activations=activations(config, network, action_share=action_share),
        step=(STEP_IN_ONE_PIECE if in_one_piece else STEP) * share,
    )


def activations(config: RunConfig, network: Network, *, action_share: float) -> int:
    """Bytes of what one micro-batch keeps for its backward pass, the logits of its action tokens included.

    Of a token each layer keeps, in numbers: what the norms, the residual and the linear layers read (7 H; with LoRA
    5 H, as frozen norms need less, and what its A matrices give); the four arrays of the MLP (4 F); queries, keys,
    values and attention's output (A + 2 K, A = heads x D, K the same of the key-value heads). Plain attention repeats
    keys and values for all heads, in two orders (5 A), and keeps a row of weights over the session. With gradient
    checkpointing only each layer's input is kept, and one layer is computed again.
    """
    tokens, session, rank = config.learner.micro_batch_tokens, config.agent.session_tokens, config.learner.lora_rank
    each = width(config.learner.dtype)
    fast = {config.imitation.dtype, config.ppo.dtype, config.learner.dtype}
    products = 2 if "float32" not in fast else each  # of matrix products: the larger of both trainings
    if rank is None:
        layer = each * 7 * network.hidden
    else:
        layer = each * 5 * network.hidden + products * rank * len(network.linear) // network.layers
    layer += products * 4 * network.intermediate
    if config.cluster.device == "cpu" and "bfloat16" in fast:  # plain attention; its softmax is in float32
        layer += products * 5 * network.heads * network.head_size
        layer += network.heads * session * (4 + products % 4)
    else:
        layer += products * (network.heads + 2 * network.kv_heads) * network.head_size
    cast = 2 * network.parameters if products < each else 0  # autocast keeps the weights in bfloat16, too
    if config.learner.gradient_checkpointing:
        kept = each * network.hidden * network.layers + layer
    else:
        kept = layer * network.layers
    logits = LOGITS * 4 * network.vocabulary * action_share
    return int(GAPS * tokens * (kept + logits)) + cast


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
