"""Predicts the speed and the idle shares of a run on 8 to 1,000 GPUs, by the arithmetic of launch/plan/speed.py.

Costs of this project's own code are arguments; --measure measures them here, on sessions that the teacher plays. Rates
of hardware are arguments too. Their defaults are those of an NVIDIA DGX H100:

    flops     989e12 /s    dense bfloat16      H100 datasheet (nvidia.com/en-us/data-center/h100)
    memory    3.35e12 B/s  HBM3                the same
    link      450e9 B/s    NVLink, one way     the same: 900 GB/s both ways
    network   400e9 B/s    eight 400 Gb/s NICs DGX H100 datasheet
    flops share   0.40     of training         Llama 3 (arXiv 2407.21783, table 4): 38 to 43 %
    memory share  0.60     of decoding         assumed

--fake SPEED plays iterations with 1, 2 and 4 actors, each a process with the agent's real lanes on an engine that
writes SPEED tokens per second for each lane, and a learner that takes its time by tokens. It prints what was measured
beside what is predicted.
"""

import argparse
import asyncio
import multiprocessing
import pickle
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import envs
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView
from agile_ray.config import RunConfig
from agile_ray.errors import DeadlineError
from agile_ray.scripted.references import Habits, reference
from agile_ray.segments import cut
from agile_ray.types import Session
from launch.border import border
from launch.plan.network import Network, read_network
from launch.plan.speed import Hardware, Iteration, OwnCosts, Speeds, Work, iteration, speeds
from launch.run import shipped_configs
from learner.plan import plan
from learner.ragged import lay_out
from rollout.rules import build_rules

EXAMPLE = """examples:
  python -m benchmarks.cluster_model quickstart loop.lanes=256 --model FOLDER --measure
  python -m benchmarks.cluster_model quickstart --model FOLDER --driver-ms 0.5 --agent-ms 3 --gpus 8 64 1000
  python -m benchmarks.cluster_model quickstart --fake 10
"""
MEASURED, MEASURED_LANES = 192, 16
"""Sessions that are played to measure what one takes, and on how many lanes."""
FAKE_SESSIONS = 6
FAKE_LANES = 16
LEARNED_PER_SECOND = 20_000.0
"""Of the fake learner, tokens."""
ACTORS = (1, 2, 4)
ANSWER_S = 600.0
"""Longest wait for what an actor plays at once, seconds."""


class Slowed:
    """A policy that writes as fast as an engine would, on each lane by itself."""

    def __init__(self, inner: Policy, *, speed: float) -> None:
        self._inner, self._speed = inner, speed

    async def write(self, view: SessionView) -> Completion:
        """Write a turn, and wait as long as its tokens take."""
        written = await self._inner.write(view)
        await asyncio.sleep(len(written.ids) / self._speed)
        return written


class Actor:
    """The lanes of one actor, without Ray."""

    def __init__(self, config: RunConfig, *, number: int, lanes: int, speed: float | None) -> None:
        """Open lanes at the start of their streams.

        Args:
            config: of the run.
            number: of the actor.
            lanes: how many.
            speed: tokens per second of the fake engine on each lane; None: it does not wait.
        """
        environment = envs.build(config.env, seed=config.seed)
        rules = build_rules(
            environment, env=config.env, agent=config.agent, memory=config.memory, model=None, seed=config.seed
        )
        share = config.imitation.asked_share
        habits = Habits(seed=config.seed, asked_share=share, first=0, asking=config.imitation.asking)
        script = reference("teacher", environment, habits)
        self._policy = script if speed is None else Slowed(script, speed=speed)
        streams = (environment.stream(split="train", index=number * lanes + lane) for lane in range(lanes))
        self._lanes = [Lane(stream, rules, looks_ahead=True, imagines=True) for stream in streams]

    def play(self, sessions: int) -> list[Session]:
        """Play this many sessions on every lane, all lanes at once."""

        async def one(lane: Lane) -> list[Session]:
            return [await lane.play(self._policy) for _ in range(sessions)]

        async def together() -> list[Session]:
            return [session for part in await asyncio.gather(*map(one, self._lanes)) for session in part]

        return asyncio.run(together())


def _serve(config: RunConfig, number: int, speed: float, pipe: Connection) -> None:
    """An actor's process: plays an iteration whenever it is asked."""
    actor = Actor(config, number=number, lanes=FAKE_LANES, speed=speed)
    actor.play(1)  # fills caches
    pipe.send(b"")
    while pipe.recv():
        pipe.send(pickle.dumps(actor.play(FAKE_SESSIONS)))


def _answer(pipe: Connection) -> bytes:
    """What an actor's process answers.

    Raises:
        DeadlineError: it takes longer than `ANSWER_S`.
    """
    if not pipe.poll(ANSWER_S):
        raise DeadlineError(f"cluster_model: an actor must answer within {ANSWER_S:g} s, it did not")
    return pipe.recv()


def digest(parts: Sequence[bytes], config: RunConfig) -> tuple[int, int]:
    """What the driver does with collected sessions; returns their number and tokens."""
    sessions = [session for part in parts for session in pickle.loads(part)]  # noqa: S301  from our own processes
    rows = [segment for session in sessions for segment in cut(session)]
    laid = lay_out(rows)
    plan(
        laid.lengths,
        seed=0,
        minibatches=min(config.ppo.minibatches, len(rows)),
        ranks=config.learner.ranks,
        micro_batch_tokens=config.learner.micro_batch_tokens,
    )
    return len(sessions), int(laid.lengths.sum())


def measure(config: RunConfig) -> tuple[OwnCosts, list[Session]]:
    """Measure this project's own costs on this machine."""
    actor = Actor(config, number=0, lanes=MEASURED_LANES, speed=None)
    begin = time.process_time()
    played = actor.play(MEASURED // MEASURED_LANES)
    agent_s = (time.process_time() - begin) / len(played)
    packed = pickle.dumps(played)
    begin = time.process_time()
    digest([packed], config)
    driver_s = (time.process_time() - begin) / len(played)
    weights = np.ones(1 << 24, np.float32)
    begin = time.process_time()
    bytes(weights.data)
    return (
        OwnCosts(driver_s=driver_s, agent_s=agent_s, pack=weights.nbytes / (time.process_time() - begin), call_s=0.005),
        played,
    )


def work_of(config: RunConfig, played: Sequence[Session]) -> Work:
    """An iteration of the config whose sessions are like the played ones."""
    rows = [segment for session in played for segment in cut(session)]
    lengths = [len(segment.token_ids) for segment in rows]
    mean = statistics.mean(lengths)
    return Work(
        lanes=config.seats,
        sessions=config.loop.sessions_per_lane,
        tokens=sum(lengths) / len(played),
        actions=sum(segment.actions for segment in rows) / len(played),
        spread=statistics.stdev(lengths) / mean,
        epochs=config.ppo.epochs,
        steps=config.ppo.epochs * config.ppo.minibatches,
    )


def best(network: Network, hardware: Hardware, work: Work, own: OwnCosts, *, gpus: int) -> tuple[int, Iteration]:
    """The number of engines among so many GPUs with which most sessions are played and learned in a second."""
    found = speeds(network, hardware, work, own)
    chosen = {
        actors: iteration(network, found, hardware, work, own, actors=actors, ranks=gpus - actors)
        for actors in sorted({max(1, gpus * share // 16) for share in range(1, 16)})
        if actors < gpus
    }
    actors = max(chosen, key=lambda one: chosen[one].sessions / chosen[one].seconds(overlapped=True))
    return actors, chosen[actors]


def fake(config: RunConfig, *, speed: float, own: OwnCosts, work: Work) -> None:
    """Print measured iterations with a fake engine and a fake learner beside the predicted ones."""
    work = replace(work, lanes=FAKE_LANES, sessions=FAKE_SESSIONS, epochs=1, steps=0)
    engine = FAKE_LANES * speed / work.actions
    found = Speeds(sessions=min(engine, 1 / own.agent_s), scored=float("inf"), learned=LEARNED_PER_SECOND)
    nothing = Hardware(
        flops=1, flops_share=1, memory=1, memory_share=1, link=float("inf"), network=float("inf"), gpus_per_node=8
    )
    without = Network(
        kind="none", parameters=0, linear=(), hidden=1, intermediate=1, layers=1, heads=1, kv_heads=1, head_size=1,
        vocabulary=1, tied=True, positions=None,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    for actors in ACTORS:
        predicted = iteration(without, found, nothing, work, own, actors=actors, ranks=1)
        pipes, processes = [], []
        for actor in range(actors):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(config, actor, speed, theirs), daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _answer(pipe)
        begin = time.perf_counter()
        for pipe in pipes:
            pipe.send(True)
        parts = [_answer(pipe) for pipe in pipes]
        collected = time.perf_counter()
        count, tokens = digest(parts, config)
        time.sleep(tokens / LEARNED_PER_SECOND)
        ended = time.perf_counter()
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(False)
            process.join(ANSWER_S)
        collect_s, total_s = collected - begin, ended - begin
        total = predicted.seconds(overlapped=False) - predicted.publish
        print(
            f"{actors} actors: {count / total_s:.1f} sessions/s, predicted {predicted.sessions / total:.1f}; engines "
            f"idle {1 - collect_s / total_s:.0%}, predicted {1 - predicted.collect / total:.0%}",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a shipped config, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--model", type=Path, help="folder with a config.json; default: model.path")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 16, 64, 128, 256, 512, 1000])
    parser.add_argument("--measure", action="store_true", help="measure own costs here instead of taking arguments")
    parser.add_argument("--driver-ms", type=float, default=0.5, help="of the driver for each session")
    parser.add_argument("--agent-ms", type=float, default=3.0, help="of an actor's event loop for each session")
    parser.add_argument("--pack", type=float, default=1e9, help="bytes per second of packing and loading weights")
    parser.add_argument("--call-ms", type=float, default=5.0, help="of one call to all actors")
    parser.add_argument("--flops", type=float, default=989e12)
    parser.add_argument("--flops-share", type=float, default=0.4)
    parser.add_argument("--memory", type=float, default=3.35e12)
    parser.add_argument("--memory-share", type=float, default=0.6)
    parser.add_argument("--link", type=float, default=450e9)
    parser.add_argument("--network", type=float, default=400e9)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--fake", type=float, metavar="SPEED", help="tokens per second of each lane of a fake engine")
    return parser.parse_intermixed_args()


def main() -> None:
    """Print the table, or the fake engine's runs."""
    given = arguments()
    with border():
        config = shipped_configs.read(given.config, given.overrides)
        own, played = measure(config)
        if not given.measure and given.fake is None:
            own = OwnCosts(
                driver_s=given.driver_ms / 1e3,
                agent_s=given.agent_ms / 1e3,
                pack=given.pack,
                call_s=given.call_ms / 1e3,
            )
        work = work_of(config, played)
        print(
            f"own costs: driver {own.driver_s * 1e3:.2f} ms and event loop {own.agent_s * 1e3:.2f} ms a session, "
            f"weights {own.pack / 1e9:.1f} GB/s"
        )
        print(f"a session has {work.tokens:.0f} tokens, of which {work.actions:.0f} are written")
        if given.fake is not None:
            fake(config, speed=given.fake, own=own, work=work)
            return
        network = read_network(given.model or config.model.path)
        hardware = Hardware(
            flops=given.flops,
            flops_share=given.flops_share,
            memory=given.memory,
            memory_share=given.memory_share,
            link=given.link,
            network=given.network,
            gpus_per_node=given.gpus_per_node,
        )
        for gpus in given.gpus:
            actors, found = best(network, hardware, work, own, gpus=gpus)
            line = [f"{gpus:5} GPUs: {actors} engines, {gpus - actors} ranks, {found.sessions} sessions"]
            for overlapped in (False, True):
                seconds = found.seconds(overlapped=overlapped)
                line.append(
                    f"{'overlapped' if overlapped else 'in turn'} {found.sessions / seconds:.0f} sessions/s, engines "
                    f"idle {found.engines_idle(overlapped=overlapped):.0%}, learners "
                    f"{found.learners_idle(overlapped=overlapped):.0%}"
                )
            print("; ".join(line) + f"; driver {found.driver / found.seconds(overlapped=False):.0%}")


if __name__ == "__main__":
    main()
