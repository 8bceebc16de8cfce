"""A small Llama from scratch, with a tokenizer trained on the texts that the agent reads and writes.

The tokenizer is a byte-level BPE: it encodes any text without loss, frequent words are one token, and numbers are split
into digits, so that the model can copy a number that it has never seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agile_ray.agent.functions import PAPER, Function
from agile_ray.errors import ConfigError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
MARKS = "<|im_start|>", "<|im_end|>"
"""Begin and end of a message, in a chat model."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
"""The chat template of a chat model: ChatML, as of Qwen and SmolLM."""
ROLES = ("user\n", "assistant\n", "tool\n")
"""What the template writes as plain text, for a tokenizer to be trained on."""
BYTES = 256
PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
"""Pieces that a token never crosses: a word, a digit or a run of signs, each with the space before it; other space."""
HEAD_DIM = 32
"""Width of an attention head: the smallest that vLLM's kernels support. Many narrow heads copy better than few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a model from scratch."""

    hidden: int  # width, a multiple of HEAD_DIM
    layers: int
    vocabulary: int  # maximum number of tokens; fewer if the texts have no more pairs to merge
    context: int  # tokens

    def __post_init__(self) -> None:
        if self.hidden < HEAD_DIM or self.hidden % HEAD_DIM:
            raise ConfigError(f"--hidden {self.hidden}: the width must be a multiple of {HEAD_DIM}")
        if self.layers < 1:
            raise ConfigError(f"--layers {self.layers}: a model has at least one layer")
        least = BYTES + len(Function) + 3 + len(MARKS)  # and begin, end, padding, and those of messages
        if self.vocabulary < least:
            raise ConfigError(f"--vocabulary {self.vocabulary}: bytes and function tokens alone take {least}")


def train_tokenizer(
    texts: Sequence[str], *, shape: Shape, functions: Sequence[Function] = PAPER, chat: bool = False
) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE on texts, with the function tokens as single special tokens.

    Args:
        texts: to train on.
        shape: of the model.
        functions: of the agent.
        chat: also add the tokens of a chat template, and the template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[
            AddedToken(text, special=True, normalized=False)
            for text in (BOS, EOS, PAD, *(function.value for function in functions), *(MARKS if chat else ()))
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=shape.context
    )
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(tokenizer: "PreTrainedTokenizerFast", *, shape: Shape, seed: int) -> "LlamaForCausalLM":
    """A Llama with random float32 weights and untied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = shape.hidden // HEAD_DIM
    ids = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        initializer_range=shape.hidden**-0.5,  # with the default, 0.02, a narrow model learns to copy slowly
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
    )
    return _mirrored(LlamaForCausalLM(config).float())


def _mirrored(model: "LlamaForCausalLM") -> "LlamaForCausalLM":
    """Initialize attention to find similar tokens and copy them to the output unchanged.

    Keys start as the mean of keys and queries, outputs as the mean of outputs and transposed values. Both products of a
    head then start near a multiple of the identity (mimetic initialization, Trockman and Kolter, 2023, arXiv
    2305.09828). The language model's head starts as the embeddings.
    """
    import torch
    from transformers.models.llama.modeling_llama import LlamaAttention

    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
        for attention in (module for module in model.modules() if isinstance(module, LlamaAttention)):
            for weight, mirrored in (
                (attention.k_proj.weight, attention.q_proj.weight),
                (attention.o_proj.weight, attention.v_proj.weight.T),
            ):
                weight.copy_((weight + mirrored) / 2**0.5)  # keeps the variance
    return model
