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

from agile_ray.errors import EngineError, SyncError
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
