"""Text to token ids: the protocol, a chat model's frames, and a tokenizer of words for policies without a model.

A chat model reads a session as a conversation: what the policy writes is the assistant's, what the executor appends is
the user's or a tool's. The frames around these texts are ids that the model's folder holds, so no text is rendered
again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from agile_ray.agent.functions import Function
from agile_ray.errors import ConfigError

CHAT_FILE = "chat.json"
"""In a model's folder: how it frames a session. A folder without one reads sessions as plain text."""


class Speaker(StrEnum):
    """Who says what the executor appends."""

    USER = "user"  # the question, and the expert's advice
    TOOL = "tool"  # memory, the environment's tool, and errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around one text, from the assistant's last token to its next one."""

    before: tuple[int, ...]  # begins with the token that ends the assistant's message
    lead: str  # plain text directly before the text, encoded together with it
    tail: str  # plain text directly after it
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """How a chat model frames a session."""

    opening: tuple[int, ...]  # up to the policy's first token
    user: Frame
    tool: Frame

    @property
    def end(self) -> int:
        """The token that ends the assistant's message."""
        return self.user.before[0]

    def frame(self, speaker: Speaker) -> Frame:
        """The frame of a speaker's texts."""
        return self.user if speaker is Speaker.USER else self.tool

    def decoded(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> str:
        """Text of ids of a session, without its frames.

        Args:
            ids: any part of a context that cuts no frame.
            decode: text of ids without frames.
        """
        return "".join(self._texts(list(ids), decode))

    def _texts(self, ids: list[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
        fixed = sorted({self.opening, *self._edges()} - {()}, key=len, reverse=True)
        begin, at = 0, 0
        while at < len(ids):
            edge = next((one for one in fixed if tuple(ids[at : at + len(one)]) == one), None)
            if edge is None:
                at += 1
                continue
            yield self._bare(decode(ids[begin:at]), ids[:begin])
            begin = at = at + len(edge)
        yield self._bare(decode(ids[begin:]), ids[:begin])

    def _edges(self) -> Iterator[tuple[int, ...]]:
        for frame in (self.user, self.tool):
            yield from (frame.before, frame.before[1:], frame.after)

    def _bare(self, text: str, before: Sequence[int]) -> str:
        """The text between two edges, without its lead and tail."""
        for frame in sorted((self.user, self.tool), key=lambda one: -len(one.lead)):
            edge = frame.before[1:]
            if tuple(before[-len(edge) :]) == edge and text.startswith(frame.lead):
                return text[len(frame.lead) :].removesuffix(frame.tail) + "\n"
        return text


def read_chat(folder: Path) -> Chat | None:
    """How the model in a folder frames a session; None: as plain text.

    Raises:
        ConfigError: the file is not readable.
    """
    file = folder / CHAT_FILE
    if not file.exists():
        return None
    try:
        return TypeAdapter(Chat).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"model.path: {file} must be what `agile-ray model from --chat` writes ({error})") from error


def write_chat(chat: Chat, folder: Path) -> None:
    """Write what `read_chat` reads."""
    (folder / CHAT_FILE).write_bytes(TypeAdapter(Chat).dump_json(chat, indent=2) + b"\n")


class Tokenizer(Protocol):
    """Encodes observations and decodes what the policy wrote; no token is decoded and encoded again."""

    @property
    def bos_id(self) -> int: ...  # opens every context

    @property
    def eos_id(self) -> int: ...  # ends a search query; of a chat model, also the assistant's message

    @property
    def chat(self) -> Chat | None: ...  # None: a session is plain text

    def encode(self, text: str) -> list[int]:
        """Encode plain text: without BOS and EOS, and never as a function token, whatever the text says."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def function_id(self, function: Function) -> int: ...

    def function_at(self, token_id: int) -> Function | None: ...


def opening(tokenizer: Tokenizer) -> list[int]:
    """What stands before the policy's first token."""
    return [tokenizer.bos_id] if tokenizer.chat is None else list(tokenizer.chat.opening)


def said(tokenizer: Tokenizer, text: str, *, speaker: Speaker) -> list[int]:
    """Ids of a text that the executor appends. A chat model reads it framed, and without outer white space."""
    if tokenizer.chat is None:
        return tokenizer.encode(text)
    frame = tokenizer.chat.frame(speaker)
    return [*frame.before, *tokenizer.encode(f"{frame.lead}{text.strip()}{frame.tail}"), *frame.after]


class WordTokenizer:
    """A reversible vocabulary of words that grows as it encodes; for scripted policies, which have no model.

    Ids depend on the order of encoding, so ids of one instance can't be decoded by another.
    """

    bos_id = 0
    eos_id = 1
    chat = None

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
