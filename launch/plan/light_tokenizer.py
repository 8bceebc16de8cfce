"""A model's tokenizer without transformers, to play sessions for their lengths, and to look at stored ones."""

from collections.abc import Sequence
from pathlib import Path

from agile_ray.agent.functions import PAPER, Function
from agile_ray.agent.tokenizer import read_chat
from agile_ray.errors import ConfigError
from launch.models.folder import named_tokens, read_encoder


class LightTokenizer:
    """Implements the agent's `Tokenizer`; encodes as `rollout.tokenizer.HFTokenizer` does."""

    def __init__(self, folder: Path) -> None:
        """Read tokenizer.json.

        Raises:
            ConfigError: there is none, or it lacks an end token or a function token of the paper.
        """
        self._encoder = read_encoder(folder)
        named = named_tokens(folder)
        begin, end = named.get("bos_token"), named.get("eos_token")
        self.chat = read_chat(folder)
        self.eos_id = self._id(folder, end or "") if self.chat is None else self.chat.end
        self.bos_id = self._id(folder, begin or end or "")
        there = [one for one in Function if one in PAPER or self._encoder.token_to_id(one.value) is not None]
        self._ids = {function: self._id(folder, function.value) for function in there}
        self._functions = {token_id: function for function, token_id in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids) if self.chat is None else self.chat.decoded(ids, self._decode)

    def _decode(self, ids: Sequence[int]) -> str:
        kept = [int(token_id) for token_id in ids if token_id not in (self.bos_id, self.eos_id)]
        return self._encoder.decode(kept, skip_special_tokens=False)

    def function_id(self, function: Function) -> int:
        return self._ids[function]

    def function_at(self, token_id: int) -> Function | None:
        return self._functions.get(token_id)

    def _id(self, folder: Path, text: str) -> int:
        found = self._encoder.token_to_id(text)
        if found is None:
            raise ConfigError(f"model.path: the tokenizer of {folder} lacks the token {text!r}")
        return found
