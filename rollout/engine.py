"""The vLLM engine: token ids in, token ids with logprobs and weight versions out.

This is the only module that generates with vLLM; `rollout.weights` loads new weights through the methods defined here.
vLLM's engine core and workers run in their own processes. The class itself runs on an actor's event loop and does not
need Ray. Logprobs are those of the sampling distribution, temperature included; of greedy decoding, at temperature 1.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from agile_ray.agent.policy import Completion
from agile_ray.errors import DeadlineError, EngineError
from agile_ray.types import Float32
from agile_ray.weights import WeightsRef
from rollout.settings import EngineSettings, cause, check_length, one_line, set_environment
from rollout.weights.loader import VersionLoader
from rollout.weights.sync_check import SyncCheck, SyncReport

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdatePayload
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector

Result = TypeVar("Result")

BLOCK_TOKENS = 32
"""Tokens of one key-value block, the unit that the prefix cache reuses. CPU kernels need multiples of 32."""


@dataclass(slots=True)
class Traffic:
    """Totals of one engine since it started."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens that were read from the prefix cache
    sampled_tokens: int = 0


class VLLMEngine:
    """One vLLM engine. Build it with `await VLLMEngine.start(settings)`."""

    def __init__(self, llm: "AsyncLLM", settings: EngineSettings) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self.llm = llm
        self._requests = itertools.count()
        self.loader = VersionLoader(self, check=SyncCheck(exact=settings.exact))

    @classmethod
    async def start(cls, settings: EngineSettings) -> "VLLMEngine":
        """Start vLLM's processes with the weights in the model's folder, which are version 0.

        Raises:
            ConfigError: the model has too few positions for `agent.session_tokens`.
            EngineError: vLLM does not start; the message quotes the cause from its log.
        """
        check_length(settings.model, settings.session_tokens)
        set_environment(settings)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = settings.device == "cpu"
        try:
            llm = AsyncLLM.from_engine_args(
                AsyncEngineArgs(
                    model=str(settings.model),
                    skip_tokenizer_init=True,
                    dtype=settings.dtype,  # pyright: ignore[reportArgumentType]  vLLM's literal also names others
                    max_model_len=settings.session_tokens + 1,  # scoring also samples one token
                    max_num_seqs=max(settings.lanes, 8),
                    block_size=BLOCK_TOKENS if on_cpu else None,
                    enable_prefix_caching=True,
                    enforce_eager=on_cpu,
                    logprobs_mode="processed_logprobs",
                    generation_config="vllm",
                    weight_transfer_config={"backend": settings.transport},  # pyright: ignore[reportArgumentType]
                    kv_cache_memory_bytes=int(settings.kv_cache_gib * 2**30) if on_cpu else None,
                    gpu_memory_utilization=settings.gpu_memory,
                    tensor_parallel_size=settings.tensor_parallel,
                    distributed_executor_backend=executor_of(settings),
                    enable_sleep_mode=settings.sleeps,
                    seed=settings.seed % 2**31,
                    disable_log_stats=True,
                )
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"rollout: vLLM did not start: {cause(settings.log, error)}") from error
        engine = cls(llm, settings)
        await engine.wait("start", llm.update_weight_version("0"))
        return engine

    async def generate(self, prompt_ids: Sequence[int], *, max_tokens: int, temperature: float) -> Completion:
        """Continue a prompt until a stop token or `max_tokens`; temperature 0.0 is greedy.

        Raises:
            EngineError: vLLM rejected or lost the request, or the engine is held since a version failed to load.
            DeadlineError: no answer within `cluster.deadline_s`.
        """
        self.loader.check_serving()
        request = await self._send(prompt_ids, self._sampling(max_tokens, temperature))
        return self._completion(await self._receive(request))

    async def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: Sequence[int],
        temperature: float,
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Continue several prompts as one batch that has the same composition on every run.

        The scheduler is paused until all prompts have arrived, in order. Logprobs depend in their last bits on which
        requests share a step, so only equal batches give equal tokens.

        Args:
            prompts: token ids of each.
            max_tokens: of each.
            temperature: of sampling; 0.0 is greedy.
            seeds: of each prompt's sampling; None samples from the engine's own stream of random numbers.

        Raises:
            EngineError, DeadlineError: as `generate`.
        """
        self.loader.check_serving()
        drawn: Sequence[int | None] = [None] * len(prompts) if seeds is None else seeds
        core = self.llm.engine_core  # `pause_generation` would add a sleep of 20 ms to every batch
        await self.wait("pause", core.pause_scheduler_async(mode="keep", clear_cache=False))
        try:
            requests = [
                await self._send(prompt, self._sampling(limit, temperature, seed))
                for prompt, limit, seed in zip(prompts, max_tokens, drawn, strict=True)
            ]
        finally:
            await self.wait("resume", core.resume_scheduler_async())
        return [self._completion(await self._receive(request)) for request in requests]

    async def forget(self) -> None:
        """Empty the prefix cache, so that later results do not depend on earlier requests."""
        await self.wait("reset_prefix_cache", self.llm.reset_prefix_cache())

    async def score(self, ids: Sequence[int]) -> Float32:
        """Logprob of every token given the tokens before it, [T], nats, at temperature 1; entry 0 is 0.0.

        Raises:
            EngineError, DeadlineError: as `generate`.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.loader.check_serving()
        sampling = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._receive(await self._send(ids, sampling))
        logprobs = output.prompt_logprobs
        if logprobs is None:
            raise EngineError(f"rollout: vLLM scored none of {len(ids)} tokens")
        return np.array([0.0, *logprobs.logprobs], dtype=np.float32)  # pyright: ignore[reportAttributeAccessIssue]

    async def load(self, weights: WeightsRef, blobs: Sequence[NDArray[np.uint8]]) -> SyncReport:
        """Serve a new version and check it; see `rollout.weights.loader`.

        Args:
            weights: the version.
            blobs: the buckets' bytes, in order.

        Raises:
            SyncError: a bucket was refused, or the check failed; the message says whether the engine is held.
            EngineError, DeadlineError: vLLM failed, or took longer than `cluster.deadline_s`.
        """
        return await self.loader.load(weights, blobs)

    async def hold(self) -> None:
        """Pause the scheduler until `release`, and drop every cached key and value; requests in flight are kept."""
        await self.wait("pause", self.llm.pause_generation(mode="keep", clear_cache=True))

    async def release(self) -> None:
        """Resume the scheduler; requests in flight are prefilled again with the weights that are then loaded."""
        await self.wait("resume", self.llm.resume_generation())

    async def sleep(self) -> None:
        """Pause the scheduler and keep requests; on a shared GPU also move the weights to main memory, drop the cache.

        Level 2 would drop the weights, but the check of the next version compares it with the old one.
        """
        await self.wait("sleep", self.llm.sleep(level=1 if self.settings.sleeps else 0, mode="keep"))

    async def wake(self) -> None:
        """Bring the weights back and resume the scheduler.

        Raises:
            EngineError: a part of the engine still sleeps.
        """
        tags = None if self.settings.sleeps else ["scheduling"]
        if not await self.wait("wake_up", self.llm.wake_up(tags)):
            raise EngineError("rollout: vLLM's wake_up must bring back the whole engine, but a part of it sleeps")

    async def init_weight_transfer_engine(self, request: "WeightTransferInitRequest") -> None:
        """Open the transport in every worker."""
        await self.wait("init_weight_transfer_engine", self.llm.init_weight_transfer_engine(request))

    async def start_weight_update(self) -> None:
        """Begin a version in every worker."""
        await self.wait("start_weight_update", self.llm.start_weight_update())

    async def update_weights(self, update_info: "WeightTransferUpdatePayload") -> None:
        """Hand every worker one part of the version."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        request = WeightTransferUpdateRequest(update_info=update_info)
        await self.wait("update_weights", self.llm.update_weights(request))

    async def finish_weight_update(self) -> None:
        """Load the version's parts into the model of every worker."""
        await self.wait("finish_weight_update", self.llm.finish_weight_update())

    async def update_weight_version(self, version: str) -> None:
        """Label every token that is sampled from now on with this version."""
        await self.wait("update_weight_version", self.llm.update_weight_version(version))

    def _sampling(self, max_tokens: int, temperature: float, seed: int | None = None) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stop_token_ids=list(self.settings.stops),
            ignore_eos=True,  # `stops` has the tokenizer's end token; the model's config may name another
            logprob_token_ids=[self.settings.ask],  # beside the sampled token; `logprobs=0` would drop it
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    async def _send(self, prompt_ids: Sequence[int], sampling: "SamplingParams") -> "RequestOutputCollector":
        """Submit one request; returns once the engine has queued it."""
        from vllm.inputs.engine import tokens_input

        request_id = str(next(self._requests))
        prompt = tokens_input([int(token) for token in prompt_ids])
        return await self.wait("add_request", self.llm.add_request(request_id, prompt, sampling))

    async def _receive(self, request: "RequestOutputCollector") -> "RequestOutput":
        """Wait for a request's only output. A deadline or a cancellation aborts the request in the engine."""
        try:
            return await self.wait("generate", request.get())  # pyright: ignore[reportReturnType]  no pooling here
        except (DeadlineError, asyncio.CancelledError):
            await self.wait("abort", self.llm.abort(request.request_id, internal=True))
            raise
        finally:
            request.close()

    def _completion(self, output: "RequestOutput") -> Completion:
        written, prompt = output.outputs[0], output.prompt_token_ids or []
        if not written.token_ids or written.logprobs is None or written.weight_versions is None:
            raise EngineError(f"rollout: vLLM ended a request of {len(prompt)} tokens with {written.finish_reason!r}")
        self.traffic.requests += 1
        self.traffic.prompt_tokens += len(prompt)
        self.traffic.cached_tokens += output.num_cached_tokens or 0
        self.traffic.sampled_tokens += len(written.token_ids)
        versions = [int(span.version) for span in written.weight_versions]
        lengths = [span.end - span.start for span in written.weight_versions]
        flat = written.logprobs.logprobs  # pyright: ignore[reportAttributeAccessIssue]
        logprobs = np.array(flat, dtype=np.float32).reshape(-1, 2)  # of the sampled token, then of [SeekAdvice]
        return Completion(
            ids=np.array(written.token_ids, dtype=np.int32),
            logprobs=logprobs[:, 0].copy(),
            ask_probability=float(np.exp(logprobs[0, 1])),
            versions=np.repeat(np.array(versions, dtype=np.int32), lengths),
        )

    async def wait(self, name: str, waiting: Awaitable[Result]) -> Result:
        """Wait for a call into vLLM. A failure becomes an error of one line that names the call.

        Raises:
            DeadlineError: the call took longer than `cluster.deadline_s`.
            EngineError: vLLM failed, or died.
        """
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            async with asyncio.timeout(self.settings.deadline_s):
                return await waiting
        except TimeoutError as error:
            limit = f"cluster.deadline_s ({self.settings.deadline_s} s)"
            held = "" if self.loader.held is None else f": {self.loader.held}"
            raise DeadlineError(f"rollout: vLLM's {name} took longer than {limit}{held}") from error
        except EngineDeadError as error:
            raise EngineError(f"rollout: vLLM died in {name}: {cause(self.settings.log, error)}") from error
        except (EngineGenerateError, RuntimeError, ValueError) as error:
            raise EngineError(f"rollout: vLLM's {name}: {one_line(error)}") from error
        except Exception as error:
            if type(error) is not Exception:  # a call that fails inside vLLM's core raises a bare Exception here
                raise
            raise EngineError(f"rollout: vLLM's {name}: {one_line(error)}") from error

    def shutdown(self) -> None:
        """End the engine's processes."""
        self.llm.shutdown()


def executor_of(settings: EngineSettings) -> Literal["uni", "mp"]:
    """Where vLLM's workers run: in the core's process or in their own. In some actors vLLM itself would choose Ray."""
    return "uni" if settings.device == "gpu" and settings.tensor_parallel == 1 else "mp"
