"""Measures what the agent costs on top of its engine: sessions per second of a rollout actor and of bare vLLM.

The actor plays sessions as in training, with lanes, executor, memory, tool, expert, and the transfer through Ray. Then
the same engine gets the same turns directly: the same prompts, as many tokens, as many lanes at once, and nothing in
between. The two are timed alternately, several times, each time from an empty prefix cache.
"""

import argparse
import asyncio
import itertools
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import ray

from agile_ray.errors import DeadlineError, EngineError
from agile_ray.types import Session
from launch.border import border
from launch.cluster.ray_cluster import cluster
from launch.run import shipped_configs
from rollout.actor import RolloutActor
from rollout.engine import Traffic
from rollout.fleet.dispatch import REPORT_S
from rollout.fleet.messages import Lease, Orders, Report
from rollout.settings import ActorSettings, RolloutSettings

if TYPE_CHECKING:
    from ray.actor import ActorHandle

EXAMPLE = """example:
  python benchmarks/overhead.py quickstart model.path=runs/quickstart/sft

prints a line for each repeat and the median ratio; 1.00 means that the agent costs nothing. More lanes or longer
sessions change the ratio: set them as in the run that you want to know about, such as loop.lanes=32.
"""
START_S = 900
CALL_S = 900
"""Longest waits for the engine to start and for one measurement, seconds."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What was played once, and how long it took the agent and the bare engine."""

    lanes: list[list[Session]]
    played_s: float
    bare_s: float
    prompt_tokens: int  # that the agent's requests had
    cached_tokens: int  # of these, from the prefix cache
    sampled_tokens: int
    block_tokens: int  # of the prefix cache

    @property
    def sessions(self) -> list[Session]:
        """Of all lanes."""
        return [session for lane in self.lanes for session in lane]

    def __str__(self) -> str:
        count = len(self.sessions)
        return (
            f"{count} sessions on {len(self.lanes)} lanes: agent {count / self.played_s:.1f} sessions/s, bare vLLM "
            f"{count / self.bare_s:.1f} sessions/s, ratio {self.bare_s / self.played_s:.2f}; prompt tokens from the "
            f"prefix cache {self.cached_tokens / self.prompt_tokens:.1%}"
        )


class Driver:
    """Lets one actor play, as a run's driver does: it gives it all lanes, and takes its reports."""

    def __init__(self, actor: "ActorHandle", *, lanes: int) -> None:
        self._actor, self._lanes = actor, lanes
        self._orders = self._allowed = 0

    def collect(self, sessions: int) -> list[list[Session]]:
        """Play this many sessions on every lane, in stream order within a lane.

        Raises:
            EngineError: the engine is lost, or a session can't be played.
            DeadlineError: it takes longer than `CALL_S`.
        """
        first = [Lease(number=number, epoch=1, played=0, position=None) for number in range(self._lanes)]
        leases = () if self._orders else tuple(first)
        self._orders += 1
        self._allowed += sessions
        orders = Orders(number=self._orders, allowed=self._allowed, paused=False, leases=leases)
        self._actor.order.remote(pickle.dumps(orders))
        played: list[list[Session]] = [[] for _ in range(self._lanes)]
        end = time.monotonic() + CALL_S
        while any(len(lane) < sessions for lane in played):
            if time.monotonic() > end:
                raise DeadlineError(f"overhead: an actor must play {sessions} sessions on each lane in {CALL_S} s")
            report: Report = pickle.loads(ray.get(self._actor.report.remote(REPORT_S), timeout=CALL_S))
            faults = [report.failure, *(returned.fault for returned in report.returned)]
            if report.fatal is not None or any(faults):
                raise report.fatal or EngineError(f"rollout: {next(filter(None, faults))}")
            for one in report.played:
                played[one.number].append(one.session)
        return played


class BenchmarkActor(RolloutActor):
    """A rollout actor whose engine can also be driven without an agent."""

    async def traffic(self) -> Traffic:
        """What the engine has done for the agent since it started; bare turns do not count."""
        return replace(self._engine.traffic)

    async def block_tokens(self) -> int:
        """Tokens of one block of the prefix cache."""
        return int(self._engine.llm.vllm_config.cache_config.block_size)

    async def forget(self) -> None:
        """Empty the prefix cache."""
        await self._engine.forget()

    async def replay(self, lanes: Sequence[Sequence[Session]]) -> None:
        """Send the turns of every lane to vLLM, one after the other, all lanes at once."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        llm, numbers = self._engine.llm, itertools.count()

        async def lane(sessions: Sequence[Session]) -> None:
            for turn in (turn for session in sessions for turn in session.turns):
                tokens = len(turn.completion_ids)
                sampling = SamplingParams(
                    max_tokens=tokens,
                    min_tokens=tokens,
                    logprobs=0,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                prompt = TokensPrompt(prompt_token_ids=turn.prompt_ids.tolist())
                async for _ in llm.generate(prompt, sampling, request_id=f"bare-{next(numbers)}"):
                    pass

        await asyncio.gather(*(lane(sessions) for sessions in lanes))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="name of a shipped config, such as quickstart, or path of a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="keys of the config to set; model.path names the folder of a trained policy, whose sessions are realistic",
    )
    parser.add_argument("--repeats", type=int, default=5, help="times that both are measured; default: %(default)s")
    return parser.parse_args()


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds, and what the call returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def compare(settings: ActorSettings, *, repeats: int) -> Iterator[Repeat]:
    """Let one actor play, and its engine replay the same turns, several times; Ray must run."""
    each = settings.common.sessions
    gpus = settings.common.rollout.tensor_parallel if settings.common.device == "gpu" else 0
    kind = ray.remote(num_cpus=1, num_gpus=gpus)(BenchmarkActor)
    actor = cast("ActorHandle", kind.remote(settings))
    try:
        ray.get(actor.start.remote(), timeout=START_S)
        block: int = ray.get(actor.block_tokens.remote(), timeout=CALL_S)
        driver = Driver(actor, lanes=settings.common.lanes)
        driver.collect(each)  # warm up
        for _ in range(repeats):
            ray.get(actor.forget.remote(), timeout=CALL_S)
            before: Traffic = ray.get(actor.traffic.remote(), timeout=CALL_S)
            played_s, lanes = timed(lambda: driver.collect(each))
            after: Traffic = ray.get(actor.traffic.remote(), timeout=CALL_S)
            ray.get(actor.forget.remote(), timeout=CALL_S)
            bare_s, _ = timed(lambda lanes=lanes: ray.get(actor.replay.remote(lanes), timeout=CALL_S))
            yield Repeat(
                lanes=lanes,
                played_s=played_s,
                bare_s=bare_s,
                prompt_tokens=after.prompt_tokens - before.prompt_tokens,
                cached_tokens=after.cached_tokens - before.cached_tokens,
                sampled_tokens=after.sampled_tokens - before.sampled_tokens,
                block_tokens=block,
            )
    finally:
        ray.kill(actor)


@contextmanager
def benchmark_actor(name: str, overrides: Sequence[str]) -> Iterator[ActorSettings]:
    """Settings of one actor, and a Ray cluster of its own, within the block.

    Args:
        name: of a shipped config, or path of a YAML file.
        overrides: keys of the config to set.
    """
    config = shipped_configs.read(name, [*overrides, "run.name=benchmark", "rollout.actors=1"])
    folder = Path(tempfile.mkdtemp(prefix="agile-ray-"))  # kept if the engine fails: the error names its log
    with cluster(config.cluster, cpus=4):
        yield ActorSettings(
            common=replace(RolloutSettings.of(config), run_folder=folder),
            index=0,
            hired=0,
            start="benchmark",
            model=config.model.path.absolute(),
            log=folder / "engine.log",
        )
    shutil.rmtree(folder)


def main() -> None:
    """Measure on a Ray cluster of its own."""
    given = arguments()
    ratios: list[float] = []
    with border(), benchmark_actor(given.config, given.overrides) as settings:
        for repeat in compare(settings, repeats=given.repeats):
            ratios.append(repeat.bare_s / repeat.played_s)
            print(repeat, flush=True)
    print(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
