"""How fast an iteration is, and who waits: phases of the loop from the speed of engines, learners, links and driver.

    collect   engines play lanes x sessions; the slowest lane ends it
    driver    one process reads the sessions, cuts and lays out rows, plans micro-batches
    learn     scoring, then epochs of forward and backward passes; gradients are reduced at each step
    publish   weights are packed, carried to every node, loaded and checked

In turn, the iteration takes the sum. Overlapped, engines play the next iteration while the learners learn from the last
one: it takes the longer of both, and publishing.
"""

import math
from dataclasses import dataclass

from launch.plan.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Rates of the machines, in bytes and operations per second."""

    flops: float  # of one GPU, dense bfloat16
    flops_share: float  # of them that training and prefill reach
    memory: float  # of one GPU
    memory_share: float  # of it that decoding reaches
    link: float  # between the GPUs of a node, one direction, each GPU
    network: float  # of a node, one direction
    gpus_per_node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCosts:
    """What this project's own code takes. `benchmarks/cluster_model.py --measure` measures it."""

    driver_s: float  # of the driver, for each session
    agent_s: float  # of an actor's event loop, for each session
    pack: float  # bytes per second that weights are packed, checked and loaded with
    call_s: float  # of one call to all actors


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an iteration consists of. Sessions are of one lane in one iteration."""

    lanes: int
    sessions: int
    tokens: float  # of a session, without padding
    actions: float  # tokens of a session that the policy writes
    spread: float  # standard deviation of a session's length over its mean
    epochs: int
    steps: int  # optimizer steps of an iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Speeds of the parts."""

    sessions: float  # of one engine, per second, with all its lanes busy
    scored: float  # tokens per second that one rank scores, by policy and reference
    learned: float  # tokens per second that one rank learns from


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """Seconds of the phases of one iteration."""

    sessions: int
    collect: float
    driver: float
    learn: float
    publish: float

    def seconds(self, *, overlapped: bool) -> float:
        """Of the whole iteration."""
        learning = self.driver + self.learn
        return (max(self.collect, learning) if overlapped else self.collect + learning) + self.publish

    def engines_idle(self, *, overlapped: bool) -> float:
        """Share of the iteration in which engines play nothing."""
        return 1 - self.collect / self.seconds(overlapped=overlapped)

    def learners_idle(self, *, overlapped: bool) -> float:
        """Share of the iteration in which learner ranks compute nothing."""
        return 1 - self.learn / self.seconds(overlapped=overlapped)


def speeds(network: Network, hardware: Hardware, work: Work, own: OwnCosts, *, gpus: int = 1) -> Speeds:
    """Speeds on GPUs.

    A decoding step reads all weights and the keys and values of its lanes; a prompt costs 2 operations for each
    parameter and token, learning 6, and scoring twice 2. An engine and its event loop work at the same time.

    Args:
        network: sizes of the model, whose numbers take 2 bytes.
        hardware: of every node.
        work: of an iteration.
        own: costs of the event loop.
        gpus: of one engine.
    """
    compute = hardware.flops * hardware.flops_share
    read = 2 * network.parameters + work.lanes * (work.tokens / 2) * network.cache_bytes(each=2)
    step_s = max(read / (hardware.memory * hardware.memory_share), 2 * network.parameters * work.lanes / compute) / gpus
    prefill_s = 2 * network.parameters * (work.tokens - work.actions) / (compute * gpus)
    engine_s = work.actions * step_s / work.lanes + prefill_s
    return Speeds(
        sessions=1 / max(engine_s, own.agent_s),
        scored=compute / (4 * network.parameters),
        learned=compute / (6 * network.parameters),
    )


def iteration(
    network: Network,
    found: Speeds,
    hardware: Hardware,
    work: Work,
    own: OwnCosts,
    *,
    actors: int,
    ranks: int,
    gpus_per_engine: int = 1,
) -> Iteration:
    """Seconds of one iteration of a run of this size.

    Args:
        network: sizes of the model.
        found: speeds of one engine and one rank.
        hardware: of every node.
        work: of an iteration.
        own: costs of this project's code.
        actors: number of engines.
        ranks: number of learner ranks.
        gpus_per_engine: as `rollout.tensor_parallel`.
    """
    lanes = actors * work.lanes
    sessions = lanes * work.sessions
    tokens = sessions * work.tokens
    # The longest of n sums of k lengths is about sqrt(2 ln n) standard deviations above their mean.
    last = 1 + work.spread * math.sqrt(2 * math.log(max(2, lanes)) / work.sessions)
    return Iteration(
        sessions=sessions,
        collect=work.lanes * work.sessions / found.sessions * last + own.call_s,
        driver=sessions * own.driver_s,
        learn=tokens / (ranks * found.scored)
        + work.epochs * tokens / (ranks * found.learned)
        + work.steps * (_reduce_s(network, hardware, ranks=ranks) + own.call_s),
        publish=_publish_s(network, hardware, own, gpus=actors * gpus_per_engine),
    )


def _reduce_s(network: Network, hardware: Hardware, *, ranks: int) -> float:
    """A ring all-reduce of float32 gradients, by the slower of its links."""
    within = ranks <= hardware.gpus_per_node
    rate = hardware.link if within else min(hardware.link, hardware.network / hardware.gpus_per_node)
    return 2 * (ranks - 1) / ranks * 4 * network.parameters / rate


def _publish_s(network: Network, hardware: Hardware, own: OwnCosts, *, gpus: int) -> float:
    """Pack once, hand on from node to node as a tree, load on every node at once, check with one more call."""
    size = 2 * network.parameters
    nodes = -(-gpus // hardware.gpus_per_node)
    return 2 * size / own.pack + math.ceil(math.log2(nodes + 1)) * size / hardware.network + 2 * own.call_s
