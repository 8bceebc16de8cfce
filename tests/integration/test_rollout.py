"""The real engine: ids in and out, logprobs, versions, and weight updates that must be whole or not at all."""

import asyncio
import zlib
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agile_ray.errors import SyncError
from agile_ray.functions import STOPS, Function
from agile_ray.types import Float32
from agile_ray.weights import Bucket, Probe, TensorSpec, WeightsRef
from rollout.engine import VLLMEngine
from rollout.settings import EngineSettings
from rollout.tokenizer import HFTokenizer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

Result = TypeVar("Result")
TENSORS_PER_BUCKET = 8


@dataclass(slots=True)
class Rig:
    """A live engine and the Hugging Face model that it should agree with."""

    loop: asyncio.AbstractEventLoop
    engine: VLLMEngine
    tokenizer: HFTokenizer
    model: LlamaForCausalLM
    version: int = 0

    def run(self, work: Coroutine[None, None, Result]) -> Result:
        return self.loop.run_until_complete(asyncio.wait_for(work, 120))


def make_folder(folder: Path, *, tied: bool) -> LlamaForCausalLM:
    texts = [f"what is the colour of item {n} ? it is red or blue number {n * 7}" for n in range(200)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", *(function.value for function in Function)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            initializer_range=0.15,  # logits far from uniform, as a trained model's are
        )
    )
    model.save_pretrained(folder)
    return model.eval()


def start(folder: Path, *, dtype: str, tied: bool) -> Iterator[Rig]:
    model = make_folder(folder, tied=tied)
    tokenizer = HFTokenizer(folder)
    settings = EngineSettings(
        model=folder,
        dtype=dtype,
        exact=dtype == "float32",
        session_tokens=256,
        stops=(tokenizer.eos_id, *(tokenizer.function_id(stop) for stop in sorted(STOPS))),
        lanes=32,
        transport="ray_shm",
        device="cpu",
        kv_cache_gib=0.25,
        gpu_memory=0.5,
        tensor_parallel=1,
        seed=1,
        deadline_s=60.0,
        log=folder / "engine.log",
    )
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(VLLMEngine.start(settings))
    yield Rig(loop=loop, engine=engine, tokenizer=tokenizer, model=model)
    engine.shutdown()
    loop.close()


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from start(tmp_path_factory.mktemp("tied"), dtype="float32", tied=True)


def logprobs_of(model: LlamaForCausalLM, ids: NDArray[np.int32], temperature: float = 1.0) -> Float32:
    with torch.no_grad():
        logits = model(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0] / temperature
    chosen = torch.log_softmax(logits[:-1].float(), -1).gather(1, torch.tensor(ids[1:, None].astype(np.int64)))[:, 0]
    return np.concatenate([[0.0], chosen.numpy()]).astype(np.float32)


def test_logprobs_are_those_of_the_same_weights_in_transformers(tied: Rig) -> None:
    prompt = [tied.tokenizer.bos_id, *tied.tokenizer.encode("what is the colour of item 3 ?")]
    for temperature in (1.0, 0.7):
        written = tied.run(tied.engine.generate(prompt, max_tokens=40, temperature=temperature))
        ids = np.concatenate([np.array(prompt, np.int32), written.ids])
        expected = logprobs_of(tied.model, ids, temperature)[len(prompt) :]
        print("gap", np.abs(written.logprobs - expected).max(), len(written.ids))
        np.testing.assert_allclose(written.logprobs, expected, atol=1e-3)
        assert set(written.versions.tolist()) == {0}
    score = tied.run(tied.engine.score(ids.tolist()))
    np.testing.assert_allclose(score, logprobs_of(tied.model, ids), atol=1e-3)


def pack(
    parameters: Mapping[str, torch.Tensor], *, dtype: str = "float32"
) -> tuple[list[Bucket], list[NDArray[np.uint8]]]:
    """Pack parameters a few to a bucket, as a learner does."""
    names = list(parameters)
    groups = [names[start : start + TENSORS_PER_BUCKET] for start in range(0, len(names), TENSORS_PER_BUCKET)]
    buckets: list[Bucket] = []
    blobs: list[NDArray[np.uint8]] = []
    for index, group in enumerate(groups):
        specs: list[TensorSpec] = []
        content = bytearray()
        for name in group:
            tensor = parameters[name].detach().to(getattr(torch, dtype)).contiguous()
            specs.append(TensorSpec(name=name, dtype=dtype, shape=tuple(tensor.shape), offset_bytes=len(content)))
            content += tensor.view(torch.uint8).numpy().tobytes()
        blob = np.frombuffer(bytes(content), dtype=np.uint8)
        blobs.append(blob)
        buckets.append(Bucket(index=index, size_bytes=len(blob), checksum=zlib.crc32(blob.data), tensors=tuple(specs)))
    return buckets, blobs


def probes_of(model: LlamaForCausalLM) -> tuple[Probe, ...]:
    random = np.random.default_rng(5)
    rows = [random.integers(12, 400, size=60).astype(np.int32) for _ in range(4)]
    return tuple(Probe(ids=row, logprobs=logprobs_of(model, row)) for row in rows)


def perturb(model: LlamaForCausalLM, *, seed: int) -> None:
    """Change every parameter a little, as a few optimizer steps do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def load(rig: Rig, parameters: Mapping[str, torch.Tensor], *, dtype: str = "float32") -> None:
    buckets, blobs = pack(parameters, dtype=dtype)
    rig.version += 1
    weights = WeightsRef(version=rig.version, buckets=tuple(buckets), blobs=(), probes=probes_of(rig.model))
    rig.run(rig.engine.load(weights, blobs))


def copy_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def stale_parts(model: LlamaForCausalLM) -> dict[str, tuple[str, ...]]:
    """Prefixes of what is left stale together; embeddings that are tied take their head along."""
    embeddings = ("model.embed_tokens.weight", "lm_head.weight")
    tied = model.config.tie_word_embeddings
    return {
        "head": ("lm_head.weight",),
        "embeddings": embeddings if tied else embeddings[:1],
        "layer": ("model.layers.1.",),
    }


def canary(rig: Rig, *, dtype: str = "float32") -> None:
    """Leave one part stale at a time; the check must see each, and must accept the version that is sent whole."""
    load(rig, copy_of(rig.model), dtype=dtype)
    for seed, (part, prefixes) in enumerate(stale_parts(rig.model).items()):
        old = copy_of(rig.model)
        perturb(rig.model, seed=seed)
        new = copy_of(rig.model)
        mixed = {name: old[name] if name.startswith(prefixes) else new[name] for name in new}
        with pytest.raises(SyncError, match="not what the engine serves") as caught:
            load(rig, mixed, dtype=dtype)
        print(part, caught.value)
        load(rig, new, dtype=dtype)


def test_a_stale_head_embedding_or_layer_is_seen_with_a_tied_head(tied: Rig) -> None:
    canary(tied)


def reloaded(rig: Rig) -> bool:
    """The engine serves the rig's model."""
    ids = probes_of(rig.model)[0].ids
    return bool(np.abs(rig.run(rig.engine.score(ids.tolist())) - logprobs_of(rig.model, ids)).max() < 1e-3)


def test_corrupt_missing_and_reordered_buckets_leave_the_old_version_serving(tied: Rig) -> None:
    buckets, blobs = pack(copy_of(tied.model))
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


def test_a_request_in_flight_goes_on_and_its_tokens_name_both_versions(tied: Rig) -> None:
    load(tied, copy_of(tied.model))
    old = tied.version

    async def write_and_load() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        prompt = [0, *range(20, 40)]
        writing = asyncio.ensure_future(tied.engine.generate(prompt, max_tokens=220, temperature=1.0))
        await asyncio.sleep(0.15)
        buckets, blobs = pack(copy_of(tied.model))
        weights = WeightsRef(version=old + 1, buckets=tuple(buckets), blobs=(), probes=probes_of(tied.model))
        await tied.engine.load(weights, blobs)
        written = await writing
        return written.ids, written.versions

    settings = tied.engine.settings
    tied.engine.settings = replace(settings, stops=())
    ids, versions = tied.run(write_and_load())
    tied.engine.settings = settings
    tied.version = old + 1
    assert len(ids) == len(versions) == 220
    assert set(versions.tolist()) == {old, old + 1}
    assert (np.diff(versions) >= 0).all()


def test_a_greedy_batch_is_the_same_twice(tied: Rig) -> None:
    prompts = [[0, *tied.tokenizer.encode(f"what is the colour of item {n} ?")] for n in range(24)]

    async def play() -> list[list[int]]:
        await tied.engine.forget()
        rows = prompts
        for _ in range(3):
            written = await tied.engine.generate_batch(rows, max_tokens=[1 + n % 7 for n in range(24)], temperature=0.0)
            rows = [[*row, *completion.ids.tolist()] for row, completion in zip(rows, written, strict=True)]
        return rows

    assert tied.run(play()) == tied.run(play())
