"""The real engine: ids in and out, logprobs, versions, and weight updates that apply completely or not at all."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from agile_ray.agent.functions import STOPS, Function
from agile_ray.errors import SyncError
from agile_ray.weights import WeightsRef
from rollout.engine import VLLMEngine
from rollout.settings import EngineSettings
from rollout.tokenizer import HFTokenizer
from tests.fakes.engine_contract import check_engine
from tests.integration.rollout_model import copy_of, logprobs_of, make_folder, pack, perturb, probes_of, stale_parts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

Result = TypeVar("Result")


@dataclass(slots=True)
class Rig:
    """A running engine and the Hugging Face model that it must agree with."""

    runner: asyncio.Runner
    engine: VLLMEngine
    tokenizer: HFTokenizer
    model: LlamaForCausalLM
    version: int = 0

    def run(self, work: Coroutine[None, None, Result]) -> Result:
        return self.runner.run(asyncio.wait_for(work, 120))


def start(folder: Path, *, dtype: str, tied: bool) -> Iterator[Rig]:
    model = make_folder(folder, tied=tied)
    tokenizer = HFTokenizer(folder)
    settings = EngineSettings(
        model=folder,
        dtype=dtype,
        exact=dtype == "float32",
        session_tokens=256,
        stops=(tokenizer.eos_id, *(tokenizer.function_id(stop) for stop in sorted(STOPS))),
        ask=tokenizer.function_id(Function.SEEK_ADVICE),
        lanes=32,
        transport="ray_shm",
        device="cpu",
        kv_cache_gib=0.25,
        gpu_memory=0.5,
        tensor_parallel=1,
        sleeps=False,
        seed=1,
        pinned=True,
        deadline_s=60.0,
        log=folder / "engine.log",
    )
    # The runner ends vLLM's tasks: left pending, they may hang the interpreter when collected.
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setenv("VLLM_RPC_BASE_PATH", str(folder))  # vLLM does not remove its sockets
        engine = runner.run(VLLMEngine.start(settings))
        yield Rig(runner=runner, engine=engine, tokenizer=tokenizer, model=model)
        engine.shutdown()


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from start(tmp_path_factory.mktemp("tied"), dtype="float32", tied=True)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from start(tmp_path_factory.mktemp("untied"), dtype="bfloat16", tied=False)


def test_logprobs_are_those_of_the_same_weights_in_transformers(tied: Rig) -> None:
    prompt = [tied.tokenizer.bos_id, *tied.tokenizer.encode("what is the colour of item 3 ?")]
    for temperature in (1.0, 0.7):
        written = tied.run(tied.engine.generate(prompt, max_tokens=40, temperature=temperature))
        ids = np.concatenate([np.array(prompt, np.int32), written.ids])
        expected = logprobs_of(tied.model, ids, temperature)[len(prompt) :]
        np.testing.assert_allclose(written.logprobs, expected, atol=1e-3)
        assert set(written.versions.tolist()) == {0}
    score = tied.run(tied.engine.score(ids.tolist()))
    np.testing.assert_allclose(score, logprobs_of(tied.model, ids), atol=1e-3)


@pytest.mark.parametrize(("temperature", "measured_at"), [(1.0, 1.0), (0.7, 0.7), (0.0, 1.0)])
def test_the_probability_of_asking_is_that_of_the_same_weights_in_transformers(
    tied: Rig, temperature: float, measured_at: float
) -> None:
    ask = tied.engine.settings.ask
    for text in ("what is the colour of item 3 ?", "item 99 is red"):
        prompt = [tied.tokenizer.bos_id, *tied.tokenizer.encode(text)]
        written = tied.run(tied.engine.generate(prompt, max_tokens=6, temperature=temperature))
        expected = np.exp(logprobs_of(tied.model, np.array([*prompt, ask], np.int32), measured_at)[-1])
        assert written.ask_probability == pytest.approx(expected, rel=2e-3)
        assert written.ask_probability > 0


def test_measuring_the_probability_of_asking_changes_no_token(tied: Rig) -> None:
    prompts = [[0, *tied.tokenizer.encode(f"what is the colour of item {n} ?")] for n in range(12)]

    async def write(*, measured: bool, temperature: float) -> list[tuple[list[int], list[float]]]:
        """Ids and logprobs of a batch whose requests have seeds of their own."""
        await tied.engine.forget()
        requests = []
        for seed, prompt in enumerate(prompts):
            sampling = tied.engine._sampling(20 + seed, temperature)
            sampling.seed = seed
            if not measured:
                sampling.logprobs, sampling.logprob_token_ids = 0, None
            requests.append(await tied.engine._send(prompt, sampling))
        outputs = [(await tied.engine._receive(request)).outputs[0] for request in requests]
        stride = 2 if measured else 1
        return [(list(one.token_ids), one.logprobs.logprobs[::stride]) for one in outputs]

    for temperature in (1.0, 0.0):
        without = tied.run(write(measured=False, temperature=temperature))
        assert tied.run(write(measured=True, temperature=temperature)) == without


def test_the_engine_keeps_the_contract_of_engines(tied: Rig) -> None:
    prompts = [[0, *tied.tokenizer.encode(f"what is the colour of item {n} ?")] for n in range(3)]
    tied.run(check_engine(tied.engine, prompts=prompts, version=tied.version))
    tied.version += 1


def load(rig: Rig, parameters: Mapping[str, torch.Tensor], *, dtype: str = "float32") -> None:
    buckets, blobs = pack(parameters, dtype=dtype)
    rig.version += 1
    weights = WeightsRef(version=rig.version, buckets=tuple(buckets), blobs=(), probes=probes_of(rig.model))
    rig.run(rig.engine.load(weights, blobs))


def canary(rig: Rig, *, dtype: str = "float32") -> None:
    """Leave one part stale at a time; the check must detect each, and must accept the complete version."""
    load(rig, copy_of(rig.model), dtype=dtype)
    for seed, prefixes in enumerate(stale_parts(rig.model).values()):
        old = copy_of(rig.model)
        perturb(rig.model, seed=seed)
        new = copy_of(rig.model)
        mixed = {name: old[name] if name.startswith(prefixes) else new[name] for name in new}
        with pytest.raises(SyncError, match="not what the engine serves"):
            load(rig, mixed, dtype=dtype)
        load(rig, new, dtype=dtype)


def test_a_stale_head_embedding_or_layer_is_detected_with_a_tied_head(tied: Rig) -> None:
    canary(tied)


@pytest.mark.long
def test_a_stale_head_embedding_or_layer_is_detected_in_bfloat16_with_an_untied_head(untied: Rig) -> None:
    canary(untied, dtype="bfloat16")


def reloaded(rig: Rig) -> bool:
    """Whether the engine serves the rig's model."""
    ids = probes_of(rig.model)[0].ids
    return bool(np.abs(rig.run(rig.engine.score(ids.tolist())) - logprobs_of(rig.model, ids)).max() < 1e-3)


def test_corrupt_missing_and_reordered_buckets_leave_the_old_version_serving(tied: Rig) -> None:
    changed = copy_of(tied.model)
    for tensor in changed.values():
        tensor += 1.0
    buckets, blobs = pack(changed)
    flipped = [blob.copy() for blob in blobs]
    flipped[1][7] ^= 1
    cases = {
        "checksum": (buckets, flipped),
        "missing": (buckets[:-1], blobs[:-1]),
        "in order": ([buckets[1], buckets[0], *buckets[2:]], [blobs[1], blobs[0], *blobs[2:]]),
        "arrived": (buckets, [blobs[0][:-4], *blobs[1:]]),
    }
    for message, (announced, sent) in cases.items():
        weights = WeightsRef(version=77, buckets=tuple(announced), blobs=(), probes=probes_of(tied.model))
        with pytest.raises(SyncError, match=message):
            tied.run(tied.engine.load(weights, sent))
        assert reloaded(tied)
        written = tied.run(tied.engine.generate([0, 20, 21], max_tokens=3, temperature=1.0))
        assert 77 not in written.versions
    load(tied, copy_of(tied.model))


def test_a_request_in_flight_continues_and_its_tokens_carry_both_versions(tied: Rig) -> None:
    load(tied, copy_of(tied.model))
    buckets, blobs = pack(copy_of(tied.model))

    async def write_and_load(after_s: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        prompt = [0, *range(20, 40)]
        writing = asyncio.ensure_future(tied.engine.generate(prompt, max_tokens=220, temperature=1.0))
        await asyncio.sleep(after_s)
        tied.version += 1
        weights = WeightsRef(version=tied.version, buckets=tuple(buckets), blobs=(), probes=probes_of(tied.model))
        await tied.engine.load(weights, blobs)
        written = await writing
        return written.ids, written.versions

    settings = tied.engine.settings
    tied.engine.settings = replace(settings, stops=())
    after_s = 0.15
    for _ in range(8):  # until the load comes amid the request, however fast the machine is
        old = tied.version
        ids, versions = tied.run(write_and_load(after_s))
        assert len(ids) == len(versions) == 220
        assert (np.diff(versions) >= 0).all()
        if len({*versions.tolist()}) > 1:
            break
        after_s *= 2 if versions[0] > old else 0.5
    tied.engine.settings = settings
    assert set(versions.tolist()) == {old, old + 1}


@pytest.mark.parametrize("name", ["tied", pytest.param("untied", marks=pytest.mark.long)])
def test_a_greedy_batch_is_the_same_twice(name: str, request: pytest.FixtureRequest) -> None:
    rig: Rig = request.getfixturevalue(name)
    prompts = [[0, *rig.tokenizer.encode(f"what is the colour of item {n} ?")] for n in range(24)]

    async def play() -> list[list[int]]:
        await rig.engine.forget()
        rows = prompts
        for _ in range(3):
            written = await rig.engine.generate_batch(rows, max_tokens=[1 + n % 7 for n in range(24)], temperature=0.0)
            rows = [[*row, *completion.ids.tolist()] for row, completion in zip(rows, written, strict=True)]
        return rows

    assert rig.run(play()) == rig.run(play())
