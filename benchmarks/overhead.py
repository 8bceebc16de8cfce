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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import ray

from agile_ray.types import Session
from launch.border import border
from launch.run import shipped_configs
from rollout.actor import RolloutActor
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


class BenchmarkActor(RolloutActor):
    """A rollout actor whose engine can also be driven without an agent."""

    async def cached_share(self) -> float:
        """Share of all prompt tokens that came from the prefix cache."""
        traffic = self._engine.traffic
        return traffic.cached_tokens / traffic.prompt_tokens

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


def measure(settings: ActorSettings, *, repeats: int) -> None:
    """Print a line for each repeat and one for the median."""
    each = settings.common.sessions
    kind = ray.remote(num_cpus=1)(BenchmarkActor)
    actor = cast("ActorHandle", kind.remote(settings))
    ray.get(actor.start.remote(), timeout=START_S)
    ray.get(actor.collect.remote(each), timeout=CALL_S)  # warm up
    ratios: list[float] = []
    for _ in range(repeats):
        ray.get(actor.forget.remote(), timeout=CALL_S)
        played_s, answer = timed(lambda: ray.get(actor.collect.remote(each), timeout=CALL_S))
        sessions: list[Session] = pickle.loads(answer)
        lanes = [sessions[first : first + each] for first in range(0, len(sessions), each)]
        ray.get(actor.forget.remote(), timeout=CALL_S)
        bare_s, _ = timed(lambda lanes=lanes: ray.get(actor.replay.remote(lanes), timeout=CALL_S))
        ratios.append(bare_s / played_s)
        speeds = f"agent {len(sessions) / played_s:.0f} sessions/s, bare vLLM {len(sessions) / bare_s:.0f} sessions/s"
        print(f"{len(sessions)} sessions on {len(lanes)} lanes: {speeds}, ratio {ratios[-1]:.2f}", flush=True)
    cached: float = ray.get(actor.cached_share.remote(), timeout=CALL_S)
    print(f"prompt tokens from the prefix cache, warm-up and bare turns included: {cached:.1%}")
    print(f"median ratio {statistics.median(ratios):.2f} of {repeats}, {min(ratios):.2f} to {max(ratios):.2f}")


def main() -> None:
    """Measure on a Ray cluster of its own."""
    given = arguments()
    with border():
        config = shipped_configs.read(given.config, [*given.overrides, "run.name=benchmark", "rollout.actors=1"])
        folder = Path(tempfile.mkdtemp(prefix="agile-ray-"))  # kept if the engine fails: the error names its log
        settings = ActorSettings(
            common=replace(RolloutSettings.of(config), run_folder=folder),
            index=0,
            model=config.model.path.absolute(),
            log=folder / "engine.log",
        )
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            measure(settings, repeats=given.repeats)
        finally:
            ray.shutdown()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
