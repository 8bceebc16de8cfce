"""Policies whose turns a chat model writes as text, played by the same executor as a trained policy.

    Prompt          one question, one answer: no memory, no tool, no advice
    PromptedAgent   the whole agent: the model reads the transcript, and writes function names as text

The opening of a session, [GetQuestion] and [RetrieveMemory], has no alternative and is written without the model, as is
[ClearContext] after the answer. The model's reply becomes tokens: a function's name its token, other words the words'
tokens; the end token closes a query. Words before the first function are thoughts, and left out. What follows a
function whose result the model has not seen is left out, too.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from agile_ray.agent.functions import SEARCHES, STOPS, Function
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.threads import in_thread
from agile_ray.agent.tokenizer import Tokenizer
from envs.endpoints.chat import Chat
from rollout.prompted.prompts import QUESTION, agent_prompt

NAME = re.compile("(" + "|".join(re.escape(function) for function in Function) + ")")
WORDS_TAKEN = frozenset({*SEARCHES, Function.PREDICT_ANSWER, Function.REFLECTION})
"""Functions that words follow, whatever asks carry."""
CLOSES = (Function.SUBMIT_ANSWER, Function.CLEAR_CONTEXT)

Part = Function | str
"""A function, or words."""


class Prompt:
    """Asks the model each question on its own."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def write(self, view: SessionView) -> Completion:
        if view.last is None:
            return _completion([Function.GET_QUESTION], view)
        messages = [{"role": "system", "content": QUESTION}, {"role": "user", "content": view.question.shown}]
        words = await in_thread(lambda: self._chat.ask(messages, max_tokens=_limit(view)))
        return _completion([Function.PREDICT_ANSWER, _line(words), *CLOSES], view)


class PromptedAgent:
    """Lets the model write every turn in which there is something to decide."""

    def __init__(self, chat: Chat, *, search_function: Function) -> None:
        self._chat = chat
        self._search_function = search_function

    async def write(self, view: SessionView) -> Completion:
        if view.last is None:
            return _completion([Function.GET_QUESTION], view)
        if view.last is Function.GET_QUESTION and Function.RETRIEVE_MEMORY not in view.barred:
            return _completion([Function.RETRIEVE_MEMORY], view)
        colleague = view.offers.get(Function.ASK_COLLEAGUE)
        told = agent_prompt(
            price=view.price,
            search_function=self._search_function,
            barred=view.barred,
            colleague=None if colleague is None else colleague.price,
            worded=view.worded,
        )
        shown = f"Transcript:\n{transcript(view.context_ids, view.tokenizer)}\nYour next call:"
        messages = [{"role": "system", "content": told}, {"role": "user", "content": shown}]
        reply = await in_thread(lambda: self._chat.ask(messages, max_tokens=_limit(view)))
        return _completion(parts(reply, worded=view.worded), view)


def _limit(view: SessionView) -> int:
    """Tokens of a reply: the model's may be shorter than the run's, and it may think before it calls."""
    return 2 * view.room + 64


def transcript(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """A context as text, function tokens by their names."""
    said: list[str] = []
    words: list[int] = []
    for token in [*ids, None]:
        function = None if token is None else tokenizer.function_at(token)
        if token is not None and function is None:
            words.append(token)
            continue
        said.append(tokenizer.decode(words).strip())
        words = []
        if function is not None:
            said.append(function.value)
    return "\n".join(text for text in said if text)


def parts(reply: str, *, worded: Collection[Function] = ()) -> list[Part]:
    """What a reply calls, up to the first call whose result is still to come, a query included.

    A reply without a call stays as it is: the executor says that it calls nothing. Words count after a function that
    takes some.

    Args:
        reply: the model's text.
        worded: functions that ask in words.
    """
    ended = SEARCHES.union(worded)
    found: list[Part] = []
    for piece in NAME.split(reply):
        if NAME.fullmatch(piece):
            function = Function(piece)
            if found and found[-1] in ended:  # a query without words
                break
            found.append(function)
            if function in STOPS.difference(worded):
                return found
        elif found and found[-1] in WORDS_TAKEN.union(worded) and (words := _line(piece)):
            found.append(words)
            if found[-2] in ended:
                return found
    if not found:
        return [_line(reply)]
    if found[-1] is not Function.SUBMIT_ANSWER and _predicts(found):
        found.append(Function.SUBMIT_ANSWER)
    return [*found, Function.CLEAR_CONTEXT] if found[-1] is Function.SUBMIT_ANSWER else found


def _predicts(found: Sequence[Part]) -> bool:
    """Whether the last call predicts an answer, so that only submitting it can follow."""
    calls = [part for part in found if isinstance(part, Function)]
    return calls[-1] is Function.PREDICT_ANSWER and found[-1] is not Function.PREDICT_ANSWER


def _line(text: str) -> str:
    return " ".join(text.split())


def _completion(written: Sequence[Part], view: SessionView) -> Completion:
    """Encode the parts of a turn. If they are too long, the longest words are shortened, never a function."""
    pieces = [list(_encoded(part, view.tokenizer)) for part in _ended(written, view)]
    excess = sum(map(len, pieces)) - view.room
    if excess > 0:
        longest = max(pieces, key=len)
        del longest[max(1, len(longest) - excess) :]
    ids = [token for piece in pieces for token in piece][: view.room]
    return Completion(
        ids=np.array(ids, dtype=np.int32),
        logprobs=np.zeros(len(ids), dtype=np.float32),
        versions=np.zeros(len(ids), dtype=np.int32),
    )


def _ended(written: Sequence[Part], view: SessionView) -> Iterable[Part | None]:
    """The parts, and None for the end token: after a query or an ask in words, and after words that call nothing."""
    calls = [part for part in written if isinstance(part, Function)]
    ends = not calls or calls[-1] in SEARCHES or calls[-1] in view.worded
    return [*written, None] if ends else written


def _encoded(part: Part | None, tokenizer: Tokenizer) -> Iterator[int]:
    if part is None:
        yield tokenizer.eos_id
    elif isinstance(part, Function):
        yield tokenizer.function_id(part)
    elif part:
        yield from tokenizer.encode(f" {part}")
