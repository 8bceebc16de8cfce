"""Templates in the style of six families, each with the control tokens that it writes."""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agile_ray.agent.functions import Function

WORDS = ["error history progress question advice of the lamp steel ?\n yes\n user assistant system tool model"] * 9
LOOP = "{% for message in messages %}"
ENDS = "{% endfor %}{% if add_generation_prompt %}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A style of templates and tokenizers."""

    template: str
    controls: tuple[str, ...]
    end: str  # ends the assistant's message
    eos: str
    bos: str | None = None
    qwen_split: bool = False  # newlines belong to the punctuation before them
    spaces: bool = False  # spaces are a character of the vocabulary, as in SentencePiece, not bytes
    swallows: bool = False  # control tokens swallow the white space after them
    tool_role: bool = False  # its tools do not speak as the user


QWEN = Family(
    template=(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
        + LOOP
        + "{% if message.role == 'tool' %}"
        "{% if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
        "{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
        "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}"
        + ENDS
        + "{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    controls=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    end="<|im_end|>",
    eos="<|im_end|>",
    qwen_split=True,
    tool_role=True,
)
SMOLLM = Family(
    template=(
        LOOP
        + "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        + ENDS
        + "{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    controls=("<|im_start|>", "<|im_end|>"),
    end="<|im_end|>",
    eos="<|im_end|>",
    bos="<|im_start|>",
    tool_role=True,
)
LLAMA = Family(
    template=(
        "{{ bos_token }}" + LOOP + "{% if message.role == 'tool' %}"
        "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + (message.content | tojson) + '<|eot_id|>' }}"
        "{% else %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim }}"
        "{{ '<|eot_id|>' }}{% endif %}" + ENDS + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    controls=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
    end="<|eot_id|>",
    eos="<|end_of_text|>",
    bos="<|begin_of_text|>",
    qwen_split=True,
)
GEMMA = Family(
    template=(
        "{{ bos_token }}" + LOOP + "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}"
        + ENDS
        + "{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    controls=("<start_of_turn>", "<end_of_turn>", "<eos>"),
    end="<end_of_turn>",
    eos="<eos>",
    bos="<bos>",
    spaces=True,
)
MISTRAL = Family(
    template=(
        "{{ bos_token }}" + LOOP + "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
        "{% elif message.role == 'assistant' %}{{ message.content + eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}" + ENDS + "{% endif %}"
    ),
    controls=("[INST]", "[/INST]", "</s>"),
    end="</s>",
    eos="</s>",
    bos="<s>",
    spaces=True,
)
PHI = Family(
    template=(
        LOOP
        + "{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}"
        + ENDS
        + "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    controls=("<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|endoftext|>"),
    end="<|end|>",
    eos="<|endoftext|>",
    bos="<s>",
    spaces=True,
    swallows=True,
    tool_role=True,
)
FAMILIES = {
    "qwen": QWEN, "smollm": SMOLLM, "llama": LLAMA, "gemma": GEMMA, "mistral": MISTRAL, "phi": PHI
}  # fmt: skip


def chat_tokenizer(family: Family, template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of the family with the function tokens; `template` replaces the family's own."""
    core = _spaced() if family.spaces else _of_bytes(qwen_split=family.qwen_split)
    controls = dict.fromkeys(one for one in (family.bos, *family.controls) if one is not None)
    added = [AddedToken(one, special=True, normalized=False, rstrip=family.swallows) for one in controls]
    core.add_tokens([*added, *(AddedToken(one.value, special=True, normalized=False) for one in Function)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=family.bos, eos_token=family.eos)
    tokenizer.chat_template = family.template if template is None else template
    return tokenizer


def write_chat_tokenizer(folder: Path, family: Family) -> PreTrainedTokenizerFast:
    """Write a tokenizer of the family into a folder."""
    tokenizer = chat_tokenizer(family)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _of_bytes(*, qwen_split: bool) -> Tokenizer:
    core = Tokenizer(models.BPE())
    split = r"'s|\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+| \p{L}+"
    core.pre_tokenizer = (
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        if qwen_split
        else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(WORDS, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    return core


def _spaced() -> Tokenizer:
    """A vocabulary of characters, and of bytes for all others, as SentencePiece has."""
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    core = Tokenizer(models.BPE(byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", space)
    core.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = [*map(chr, range(33, 127)), "\n", space]
    core.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=150, initial_alphabet=alphabet, show_progress=False))
    content = json.loads(core.to_str())
    vocabulary = content["model"]["vocab"]
    for number in range(256):
        vocabulary[f"<0x{number:02X}>"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(content))
