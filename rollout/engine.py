"""The one door to vLLM: token ids in, token ids with logprobs and versions out.

The engine's core and its workers run in processes of their own; this class lives on an actor's event loop and needs no
Ray. All logprobs are those of the distribution that was sampled from, temperature included.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from agile_ray.agent.policy import Completion
from agile_ray.errors import DeadlineError, EngineError, SyncError
from agile_ray.types import Float32
from agile_ray.weights import Bucket, WeightsRef
from rollout.settings import EngineSettings, cause, check_length, one_line, set_environment
from rollout.weights.shared_memory import shared_file
from rollout.weights.sync_check import SyncCheck, SyncReport, flat

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector

Result = TypeVar("Result")

BLOCK_TOKENS = 32
"""Tokens of one key-value block: what the prefix cache reuses at least. CPU kernels want multiples of 32."""


@dataclass(slots=True)
class Traffic:
    """What went through an engine since it started."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, read from the prefix cache
    sampled_tokens: int = 0


class VLLMEngine:
    """One vLLM engine. Build it with `await VLLMEngine.start(settings)`."""

    def __init__(self, llm: "AsyncLLM", settings: EngineSettings) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self.version = 0
        self.llm = llm
        self._requests = itertools.count()
        self._check = SyncCheck(exact=settings.exact)

    @classmethod
    async def start(cls, settings: EngineSettings) -> "VLLMEngine":
        """Start the processes and load the model's folder, which counts as version 0.

        Raises:
            ConfigError: the folder's model is too short for `agent.session_tokens`.
            EngineError: vLLM does not start; quotes the cause from its log.
        """
        check_length(settings)
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
                    max_model_len=settings.session_tokens + 1,  # scoring samples one token more
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
        """Continue a prompt up to a stop token or `max_tokens`; temperature 0.0 is greedy.

        Raises:
            EngineError: vLLM refused or lost the request.
            DeadlineError: no answer within `cluster.deadline_s`.
        """
        request = await self._send(prompt_ids, self._sampling(max_tokens, temperature))
        return self._completion(await self._receive(request))

    async def generate_batch(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: Sequence[int], temperature: float
    ) -> list[Completion]:
        """Continue several prompts as one batch whose composition is the same on every run.

        The scheduler is held until all of them have arrived, in order: arithmetic in bfloat16 depends on which requests
        share a step, so only equal batches give equal tokens.
        """
        core = self.llm.engine_core  # `pause_generation` would add a sleep of 20 ms to every batch
        await self.wait("pause", core.pause_scheduler_async(mode="keep", clear_cache=False))
        try:
            requests = [
                await self._send(prompt, self._sampling(limit, temperature))
                for prompt, limit in zip(prompts, max_tokens, strict=True)
            ]
        finally:
            await self.wait("resume", core.resume_scheduler_async())
        return [self._completion(await self._receive(request)) for request in requests]

    async def forget(self) -> None:
        """Empty the prefix cache, so that what follows does not depend on what came before."""
        await self.wait("reset_prefix_cache", self.llm.reset_prefix_cache())

    async def score(self, ids: Sequence[int]) -> Float32:
        """Logprob of every token given those before it, [T], nats, at temperature 1; entry 0 is 0.0.

        Raises:
            EngineError, DeadlineError: vLLM failed, or took longer than cluster.deadline_s.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

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
        """Serve a new version: hold the scheduler, transfer, drop every cached key and value, go on, then check.

        Requests in flight stay; they go on with the new weights and their tokens say so.

        Args:
            weights: what the version holds; its buckets are empty where the transport moved the bytes itself.
            blobs: the buckets' bytes, in order.

        Raises:
            SyncError: a bucket was refused (the old version goes on serving), or the check failed.
        """
        before = await self._probe(weights)
        await self.hold()
        try:
            if weights.buckets:
                await self._transfer(weights.buckets, blobs)
            await self.wait("update_weight_version", self.llm.update_weight_version(str(weights.version)))
        finally:
            await self.release()
        self.version = weights.version
        after = await self._probe(weights)
        learner = flat([probe.logprobs for probe in weights.probes])
        return self._check.check(weights.version, before=before, after=after, learner=learner)

    async def hold(self) -> None:
        """Compute nothing from here to `release`, and forget every cached key and value."""
        await self.wait("pause", self.llm.pause_generation(mode="keep", clear_cache=True))

    async def release(self) -> None:
        """Go on with what was held; requests in flight are read again with whatever weights are there."""
        await self.wait("resume", self.llm.resume_generation())

    async def _transfer(self, buckets: Sequence[Bucket], blobs: Sequence[NDArray[np.uint8]]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        if len(buckets) != len(blobs):
            raise SyncError(f"rollout: {len(buckets)} buckets were announced, {len(blobs)} came")
        try:
            await self.wait("start_weight_update", self.llm.start_weight_update())
            for bucket, blob in zip(buckets, blobs, strict=True):
                with shared_file(blob) as path:
                    info = _message(bucket, path=path, count=len(buckets))
                    request = WeightTransferUpdateRequest(update_info=info)
                    await self.wait("update_weights", self.llm.update_weights(request))
            await self.wait("finish_weight_update", self.llm.finish_weight_update())
        except EngineError as error:
            raise SyncError(f"rollout: a weight update was refused: {error}") from error

    async def _probe(self, weights: WeightsRef) -> Float32:
        return flat(await asyncio.gather(*(self.score(probe.ids.tolist()) for probe in weights.probes)))

    def _sampling(self, max_tokens: int, temperature: float) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            stop_token_ids=list(self.settings.stops),
            ignore_eos=True,  # the model's own end token ends a turn only where the tokenizer says so too
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    async def _send(self, prompt_ids: Sequence[int], sampling: "SamplingParams") -> "RequestOutputCollector":
        """Hand one request to the engine; returns when it is on its way."""
        from vllm.inputs.engine import tokens_input

        request_id = str(next(self._requests))
        prompt = tokens_input([int(token) for token in prompt_ids])
        return await self.wait("add_request", self.llm.add_request(request_id, prompt, sampling))

    async def _receive(self, request: "RequestOutputCollector") -> "RequestOutput":
        """Wait for a request's only output. Giving up takes the request out of the engine."""
        try:
            return await self.wait("generate", request.get())  # pyright: ignore[reportReturnType]  no pooling here
        except (DeadlineError, asyncio.CancelledError):
            await self.llm.abort(request.request_id, internal=True)
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
        return Completion(
            ids=np.array(written.token_ids, dtype=np.int32),
            logprobs=np.array(written.logprobs.logprobs, dtype=np.float32),  # pyright: ignore[reportAttributeAccessIssue]
            versions=np.repeat(np.array(versions, dtype=np.int32), lengths),
        )

    async def wait(self, name: str, waiting: Awaitable[Result]) -> Result:
        """Wait for vLLM; whatever it raises becomes one line that names the call.

        Raises:
            DeadlineError: it took longer than cluster.deadline_s.
            EngineError: vLLM failed, or died.
        """
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            async with asyncio.timeout(self.settings.deadline_s):
                return await waiting
        except TimeoutError as error:
            limit = f"cluster.deadline_s ({self.settings.deadline_s} s)"
            raise DeadlineError(f"rollout: vLLM's {name} took longer than {limit}") from error
        except EngineDeadError as error:
            raise EngineError(f"rollout: vLLM died in {name}: {cause(self.settings.log, error)}") from error
        except (EngineGenerateError, RuntimeError, ValueError) as error:
            raise EngineError(f"rollout: vLLM's {name}: {one_line(error)}") from error
        except Exception as error:
            if type(error) is not Exception:  # a failed call into vLLM's core arrives as a bare Exception
                raise
            raise EngineError(f"rollout: vLLM's {name}: {one_line(error)}") from error

    def shutdown(self) -> None:
        """End the engine's processes."""
        self.llm.shutdown()


def _message(bucket: Bucket, *, path: str, count: int) -> dict[str, object]:
    return {
        "path": path,
        "count": count,
        "index": bucket.index,
        "size_bytes": bucket.size_bytes,
        "checksum": bucket.checksum,
        "tensors": [[spec.name, spec.dtype, list(spec.shape), spec.offset_bytes] for spec in bucket.tensors],
    }
