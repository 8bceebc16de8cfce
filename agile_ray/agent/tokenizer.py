"""Text to token ids: the protocol, and a tokenizer with a growing vocabulary for policies without a model."""

import re
from collections.abc import Sequence
from typing import Protocol

from agile_ray.agent.functions import Function


class Tokenizer(Protocol):
    """Encodes observations and decodes what the policy wrote; no token is decoded and encoded again."""

    @property
    def bos_id(self) -> int: ...  # opens every context

    @property
    def eos_id(self) -> int: ...  # ends a search query

    def encode(self, text: str) -> list[int]:
        """Encode plain text: without BOS and EOS, and never as a function token, whatever the text says."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def function_id(self, function: Function) -> int: ...

    def function_at(self, token_id: int) -> Function | None: ...


class WordTokenizer:
    """A reversible vocabulary of words that grows as it encodes; for scripted policies, which have no model.

    Ids depend on the order of encoding, so ids of one instance can't be decoded by another.
    """

    bos_id = 0
    eos_id = 1

    def __init__(self) -> None:
        self._pieces: list[str] = ["", "", *Function]
        self._ids = {piece: index for index, piece in enumerate(self._pieces) if index > 1}
        self._functions = {self._ids[function]: function for function in Function}

    def encode(self, text: str) -> list[int]:
        return [self._id(piece) for piece in re.findall(r"\s*[^\s]+|\s+$", text)]

    def _id(self, piece: str) -> int:
        key = "\0" + piece  # a word spelled like a function token is not one
        if key not in self._ids:
            self._ids[key] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[key]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[index] for index in ids)

    def function_id(self, function: Function) -> int:
        return self._ids[function]

    def function_at(self, token_id: int) -> Function | None:
        return self._functions.get(token_id)
