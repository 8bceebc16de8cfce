"""Scripted policies: a reader that answers as well as an agent could, and rules that decide when it asks.

The reader uses a question's gold fields instead of its text, so it measures the value of asking, not of reading. It
answers from memory if memory holds advice on the item, else with the tool if the tool applies, else with a guess. It
can't tell wrong advice from right: it submits wrong advice, remembers it, and answers later questions on the item with
it. It writes tokens, turn by turn, so imitation can learn from what it plays.

    after                writes
    -                    [GetQuestion]
    [GetQuestion]        [RetrieveMemory]
    [RetrieveMemory]     [SeekAdvice], or [AskColleague] if there is one; where asks carry words, question <end>
                         or [SearchProduct] query <end>
                         or [PredictAnswer] answer [SubmitAnswer][ClearContext]
    advice               [Reflection] knowledge [UpdateMemory][SubmitAnswer][ClearContext]
    no advice            [PredictAnswer] answer [SubmitAnswer][ClearContext]
    a search             the next query, if there are several or this was a slip
                         or [SubmitAnswer][ClearContext]
                         or [PredictAnswer] answer [SubmitAnswer][ClearContext], if the result is a text to read
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from agile_ray.agent.environment import Found, Question
from agile_ray.agent.functions import NO_INFORMATION, SEARCHES, Function
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.scripted.optimum import worth_asking
from agile_ray.seeds import derive
from agile_ray.types import NO_WRITER, MemoryUse

Asker = Callable[[SessionView], bool]
"""Whether to ask for advice, once memory has been read."""
Chooser = Callable[[SessionView], Function]
"""Whom to ask, among `SessionView.offers`."""

_END = "\0"  # the end token, among the parts of a turn; no text is equal to it


class Scripted:
    """A policy that asks when its asker says so, and otherwise answers from memory, the tool or a guess."""

    def __init__(
        self,
        asks: Asker,
        *,
        search_function: Function,
        guess: Callable[[Question], str],
        slips: Asker | None = None,
        whom: Chooser | None = None,
    ) -> None:
        """Combine an asker with a guess.

        Args:
            asks: when to ask.
            search_function: how the environment's tool is called.
            guess: what to predict where neither memory nor the tool helps.
            slips: when to write a query that the tool refuses before the right one; None: never.
            whom: whom to ask; None: the expert, or the colleague if the expert is barred.
        """
        self._asks = asks
        self._search_function = search_function
        self._guess = guess
        self._slips = slips
        self._whom = whom or first_offer

    async def write(self, view: SessionView) -> Completion:
        ids = _ids(self._parts(view), view.tokenizer, room=view.room)
        return Completion(
            ids=np.array(ids, dtype=np.int32),
            logprobs=np.zeros(len(ids), dtype=np.float32),
            versions=np.zeros(len(ids), dtype=np.int32),
        )

    def _parts(self, view: SessionView) -> tuple[Function | str, ...]:
        """What to write in this turn: functions and words."""
        question, last = view.question, view.last
        if last is None:
            return (Function.GET_QUESTION,)
        if last is Function.GET_QUESTION and not chooses(view):
            return (Function.RETRIEVE_MEMORY,)
        if chooses(view) and view.offers and self._asks(view):
            return _ask(self._whom(view), view)
        if view.advised:
            return (*_remembering(view), *_SUBMIT)
        if last in SEARCHES and view.found is not None:
            return self._after_search(view, view.found)
        if remembers(view):
            return (Function.PREDICT_ANSWER, _recalled(view), *_SUBMIT)
        if chooses(view) and has_tool(view):
            return (self._search_function, self._queries(view)[0], _END)
        return (Function.PREDICT_ANSWER, self._guess(question), *_SUBMIT)

    def _queries(self, view: SessionView) -> tuple[str, ...]:
        """All queries of the session, in order."""
        question = view.question
        slips = self._slips is not None and question.wrong_query and self._slips(view)
        return (*((question.wrong_query,) if slips else ()), question.query, *question.more_queries)

    def _after_search(self, view: SessionView, found: Found) -> tuple[Function | str, ...]:
        queries, question = self._queries(view), view.question
        written = [*view.context_ids].count(view.tokenizer.function_id(self._search_function))
        if found.bad_query and queries[written - 1] != question.wrong_query:
            return (Function.PREDICT_ANSWER, self._guess(question), *_SUBMIT)
        if written < len(queries):
            return (self._search_function, queries[written], _END)
        return _SUBMIT if found.rows is not None else (Function.PREDICT_ANSWER, question.answer, *_SUBMIT)


_SUBMIT = (Function.SUBMIT_ANSWER, Function.CLEAR_CONTEXT)


def _ids(parts: tuple[Function | str, ...], tokenizer: Tokenizer, *, room: int) -> list[int]:
    """Encode the parts of a turn. If they are too long, the longest text is shortened, never a function."""
    pieces: list[list[int]] = []
    for part in parts:
        if isinstance(part, Function):
            pieces.append([tokenizer.function_id(part)])
        else:
            pieces.append([tokenizer.eos_id] if part == _END else tokenizer.encode(f" {part}"))
    excess = sum(map(len, pieces)) - room
    if excess > 0:
        longest = max(pieces, key=len)
        del longest[max(1, len(longest) - excess) :]
    return [token for piece in pieces for token in piece][:room]


def _ask(function: Function, view: SessionView) -> tuple[Function | str, ...]:
    """An ask. Its words are the question's own: a script wants to know nothing else."""
    return (function, view.question.text, _END) if function in view.worded else (function,)


def _remembering(view: SessionView) -> tuple[Function | str, ...]:
    """What to write to memory after advice."""
    if Function.UPDATE_MEMORY in view.barred:
        return ()
    if Function.REFLECTION in view.barred:
        return (Function.UPDATE_MEMORY,)
    return (Function.REFLECTION, _learned(view), Function.UPDATE_MEMORY)


def chooses(view: SessionView) -> bool:
    """Whether the agent has read what it can, and now asks, searches or predicts."""
    if Function.RETRIEVE_MEMORY in view.barred:
        return view.last is Function.GET_QUESTION
    return view.last is Function.RETRIEVE_MEMORY


def has_tool(view: SessionView) -> bool:
    """Whether the tool answers the question, and the agent may use it."""
    return bool(as_met(view).query)


def as_met(view: SessionView) -> Question:
    """The question as the agent meets it: the tool answers nothing if it is barred."""
    return replace(view.question, query="") if SEARCHES & frozenset(view.barred) else view.question


def first_offer(view: SessionView) -> Function:
    """The expert, or the colleague if the expert is barred."""
    return next(iter(view.offers))


def drawn_offer(seed: int) -> Chooser:
    """Choose among the offers with equal probability; each draw depends only on (seed, stream, position)."""

    def draws(view: SessionView) -> Function:
        return Random(derive(seed, "whom", view.stream.id, view.position)).choice(list(view.offers))

    return draws


def best_guess(question: Question) -> str:
    """The best answer without knowing the question's item."""
    return question.guess


def read_answer(reads: Sequence[MemoryUse], question: Question, questions: Sequence[Question]) -> bool:
    """Whether an entry that was read was written by a session whose question depends on the same item.

    Args:
        reads: of the session that answers the question.
        question: to be answered.
        questions: of the stream.
    """
    return any(use.writer != NO_WRITER and questions[use.writer].item == question.item for use in reads)


def remembers(view: SessionView) -> bool:
    """Memory returned an entry on the question's item."""
    return read_answer(view.reads, view.question, view.stream.questions)


def _recalled(view: SessionView) -> str:
    """The answer by the first entry on the item: right if the advice behind the entry was, else that wrong advice."""
    questions = view.stream.questions
    writer = next(use.writer for use in view.reads if read_answer((use,), view.question, questions))
    wrong = _wrong_advice(view, writer)
    return view.question.answer if wrong is None else wrong


def _learned(view: SessionView) -> str:
    """What to remember beyond this product: the gold knowledge, or after wrong advice the question with that answer."""
    question = view.question
    if not question.knowledge:
        return NO_INFORMATION
    wrong = _wrong_advice(view, view.position)
    return question.knowledge if wrong is None else f"{question.text} {wrong}"


def _wrong_advice(view: SessionView, position: int) -> str | None:
    """The answer that the session at a position was told, if it is not the gold one of its question."""
    told = view.told(position)
    return None if told is None or told.answer == view.stream.questions[position].answer else told.answer


def needs_advice(view: SessionView) -> bool:
    """Neither memory nor the tool answers the question."""
    return not has_tool(view) and not remembers(view)


def by_judgement(view: SessionView) -> bool:
    """Ask if the question needs advice and 1 - `guess_probability` > the lowest price in reward; ignore later uses."""
    return needs_advice(view) and any(
        worth_asking(as_met(view), uses=1, price=offer.price) for offer in view.offers.values()
    )


def at_random(share: float, *, seed: int) -> Asker:
    """Ask with probability `share`, whatever the question; each draw depends only on (seed, stream, position)."""

    return _drawn("asks", share, seed=seed)


def slips_at_random(share: float, *, seed: int) -> Asker:
    """Slip with probability `share`; each draw depends only on (seed, stream, position)."""
    return _drawn("slips", share, seed=seed)


def _drawn(purpose: str, share: float, *, seed: int) -> Asker:
    def draws(view: SessionView) -> bool:
        return Random(derive(seed, purpose, view.stream.id, view.position)).random() < share

    return draws
