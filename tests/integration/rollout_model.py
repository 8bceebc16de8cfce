"""A small model, its logprobs in transformers, and the learner's side of a weight update."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agile_ray.agent.functions import Function
from agile_ray.types import Float32
from agile_ray.weights import Bucket, Probe, TensorSpec

TENSORS_PER_BUCKET = 8


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


def logprobs_of(model: LlamaForCausalLM, ids: NDArray[np.int32], temperature: float = 1.0) -> Float32:
    with torch.no_grad():
        logits = model(torch.tensor(ids[None].astype(np.int64)), use_cache=False).logits[0] / temperature
    chosen = torch.log_softmax(logits[:-1].float(), -1).gather(1, torch.tensor(ids[1:, None].astype(np.int64)))[:, 0]
    return np.concatenate([[0.0], chosen.numpy()]).astype(np.float32)


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
    sequences = [random.integers(12, 400, size=60).astype(np.int32) for _ in range(4)]
    return tuple(Probe(ids=ids, logprobs=logprobs_of(model, ids)) for ids in sequences)


def perturb(model: LlamaForCausalLM, *, seed: int) -> None:
    """Change every parameter slightly, as a few optimizer steps do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def copy_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def stale_parts(model: LlamaForCausalLM) -> dict[str, tuple[str, ...]]:
    """Prefixes of the parameters that each case leaves stale; tied embeddings include the head."""
    embeddings = ("model.embed_tokens.weight", "lm_head.weight")
    tied = model.config.tie_word_embeddings
    return {
        "head": ("lm_head.weight",),
        "embeddings": embeddings if tied else embeddings[:1],
        "layer": ("model.layers.1.",),
    }
