"""A Hugging Face tokenizer that implements the agent's `Tokenizer` protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path

# Neither this nor what it reads imports torch. AutoTokenizer imports every model's code, and with it Triton, whose
# binding prints a list of leaks when a driver ends.
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from agile_ray.agent.functions import PAPER, Function
from agile_ray.agent.tokenizer import read_chat
from agile_ray.errors import ConfigError, ContractError
from rollout.control_tokens import as_plain_text, check_encoder, control_tokens

CACHED_TEXTS = 65_536
"""Encodings in the cache: the same questions, tool results and memories are encoded many times."""


class HFTokenizer:
    """Encodes every text as plain text; function tokens exist only as ids.

    "[SeekAdvice]" in a question becomes several ordinary tokens; only `function_id` returns the function's token.
    """

    def __init__(self, folder: Path) -> None:
        """Read the tokenizer of a model folder.

        Raises:
            ConfigError: the folder has no fast tokenizer, no end token, or lacks function tokens; or plain text can
                become a control token.
        """
        tokenizer = _read(folder)
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        if not isinstance(end, int):
            raise ConfigError(f"model.path: the tokenizer of {folder} has no end token; set eos_token")
        self._encoder = as_plain_text(tokenizer.backend_tokenizer)
        self.chat = read_chat(folder)
        self.eos_id = end if self.chat is None else self.chat.end
        self.bos_id = begin if isinstance(begin, int) else end
        found = ((function, self._encoder.token_to_id(function.value)) for function in Function)
        self._ids = {function: token_id for function, token_id in found if token_id is not None}
        missing = [function.value for function in PAPER if function not in self._ids]
        if missing:
            raise ConfigError(
                f"model.path: the tokenizer of {folder} lacks {len(missing)} function tokens ({', '.join(missing)}); "
                f"add them with: agile-ray model from {folder} --output NEW"
            )
        self._functions = {token_id: function for function, token_id in self._ids.items()}
        self._reserved = frozenset(check_tokenizer(tokenizer, name=f"model.path: the tokenizer of {folder}").values())
        self._encodings: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without BOS, EOS, function tokens or other special tokens, whatever the text is.

        Raises:
            ContractError: the encoder returned one of these tokens.
        """
        ids = self._encodings.get(text)
        if ids is None:
            ids = tuple(self._encoder.encode(text, add_special_tokens=False).ids)
            if not self._reserved.isdisjoint(ids):
                raise ContractError(f"HFTokenizer: plain text became a control token: {text!r}")
            if len(self._encodings) >= CACHED_TEXTS:
                self._encodings.clear()
            self._encodings[text] = ids
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; begin and end tokens are left out, and a chat model's frames."""
        return self._decode(ids) if self.chat is None else self.chat.decoded(ids, self._decode)

    def _decode(self, ids: Sequence[int]) -> str:
        kept = [int(token_id) for token_id in ids if token_id not in (self.bos_id, self.eos_id)]
        return self._encoder.decode(kept, skip_special_tokens=False)

    @property
    def functions(self) -> Mapping[Function, int]:
        """The ids of the functions that the vocabulary has."""
        return self._ids

    def function_id(self, function: Function) -> int:
        return self._ids[function]

    def function_at(self, token_id: int) -> Function | None:
        return self._functions.get(token_id)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, *, name: str) -> dict[str, int]:
    """Refuse a tokenizer that can't serve the agent, and return its control tokens with their ids.

    Args:
        tokenizer: its encoder is set to read every text as plain text.
        name: of the tokenizer, which begins the error.

    Raises:
        ConfigError: it has no vocabulary, or plain text can become a control token.
    """
    encoder = as_plain_text(tokenizer.backend_tokenizer)
    roles = {role: getattr(tokenizer, role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
    controls = control_tokens(encoder, named=roles)
    unknown = tokenizer.unk_token_id
    check_encoder(encoder, controls, unknown=unknown if isinstance(unknown, int) else None, name=name)
    return controls


def _read(folder: Path) -> PreTrainedTokenizerFast:
    if not folder.is_dir():
        raise ConfigError(f"model.path: no such folder, found {str(folder)!r}; make one with: agile-ray model --help")
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"model.path: {folder} holds no tokenizer: it has no tokenizer.json")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.path: {folder} holds no tokenizer: {' '.join(str(error).split())[:200]}") from error
