"""What the agent costs on top of its engine: sessions per second of a rollout actor against bare vLLM, in one run.

    python benchmarks/overhead.py quickstart model.path=runs/quickstart/sft

The actor plays sessions as in training: lanes, executor, memory, tool, expert, and the way back through Ray. Then the
same turns go straight into the same engine, with as many lanes at once: the same prompts, as many tokens, and nothing
between them. Both are timed in turn, several times, each from an empty prefix cache.
"""

import asyncio
import itertools
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ray

from agile_ray.record.folder import RunFolder
from agile_ray.types import Session
from launch.run import shipped_configs
from rollout.actor import Post, RolloutActor

REPEATS = 5


class Bare(RolloutActor):
    """A rollout actor whose engine can also be driven without an agent."""

    async def cached_share(self) -> float:
        """Share of all prompt tokens that came from the prefix cache."""
        traffic = self._ready.engine.traffic
        return traffic.cached_tokens / traffic.prompt_tokens

    async def forget(self) -> None:
        await self._ready.engine.forget()

    async def replay(self, lanes: Sequence[Sequence[Session]]) -> None:
        """Send the turns of every lane to vLLM, one after the other, all lanes at once."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        llm, numbers = self._ready.engine.llm, itertools.count()

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


def timed(call: Callable[[], bytes | None]) -> tuple[float, bytes | None]:
    """Seconds, and what the call returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main(words: Sequence[str]) -> None:
    """Measure, and print a line for each repeat and one for the medians."""
    config = shipped_configs.read(words[0], [*words[1:], "run.name=benchmark", "rollout.actors=1"])
    each = config.loop.sessions_per_lane
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    scratch = Path(tempfile.mkdtemp())
    post = Post(
        config=config,
        index=0,
        model=config.model.path.absolute(),
        log=scratch / "engine.log",
        asked=RunFolder(scratch).journal(0),
    )
    actor = ray.remote(num_cpus=1)(Bare).remote(post)
    ray.get(actor.start.remote(), timeout=900)
    ray.get(actor.collect.remote(each), timeout=900)  # warm up
    ratios: list[float] = []
    for _ in range(REPEATS):
        ray.get(actor.forget.remote(), timeout=60)
        played_s, answer = timed(lambda: ray.get(actor.collect.remote(each), timeout=900))
        sessions: list[Session] = pickle.loads(answer or b"")
        lanes = [sessions[first : first + each] for first in range(0, len(sessions), each)]
        ray.get(actor.forget.remote(), timeout=60)
        bare_s, _ = timed(lambda lanes=lanes: ray.get(actor.replay.remote(lanes), timeout=900))
        ratios.append(bare_s / played_s)
        speeds = f"agent {len(sessions) / played_s:.0f} sessions/s, bare vLLM {len(sessions) / bare_s:.0f} sessions/s"
        print(f"{len(sessions)} sessions on {len(lanes)} lanes: {speeds}, ratio {ratios[-1]:.2f}", flush=True)
    cached: float = ray.get(actor.cached_share.remote(), timeout=60)
    print(f"prompt tokens from the prefix cache, warm-up and bare turns included: {cached:.1%}")
    print(f"median ratio {statistics.median(ratios):.2f} of {REPEATS}, {min(ratios):.2f} to {max(ratios):.2f}")
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
