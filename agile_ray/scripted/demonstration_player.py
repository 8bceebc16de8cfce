"""Plays files of demonstrations through the executor: the recorded agent decides, the environment answers.

A line is refused, with the reason, if it can't be read, if the agent's rules refuse a call, if a reply is not the
recorded one, if it does not fit into the budgets, or if the judge says otherwise.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agile_ray.agent.environment import Environment, taught_split
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.functions import ASKS, SEARCHES, STOPS, Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, SessionView
from agile_ray.agent.rules import Rules
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.errors import DemonstrationError
from agile_ray.scripted.demonstration_file import SHOWN_CHARACTERS, Call, Refused, Row, read
from agile_ray.scripted.played import FIRST_STREAM, Played, play
from agile_ray.types import Ending, Session

OVER_BUDGET = "ran out of a budget"
"""Why a session is refused that is too long."""
ERROR = "error : "
"""How the executor begins what it says to a call that it refuses."""


class Stage:
    """The lanes of the streams that demonstrations are of."""

    def __init__(self, environment: Environment, rules: Rules) -> None:
        """Begin with empty memories.

        Args:
            environment: provides the streams.
            rules: of the lanes; the gold expert replaces their expert, as for the scripted teacher.
        """
        self._environment = environment
        self._rules = replace(rules, expert=GoldExpert())
        self._split = taught_split(environment)
        self._endless = environment.streams(self._split) is None
        self._lanes: dict[int, Lane] = {}
        self._positions: dict[int, dict[str, int]] = {}  # stream -> question's id -> its position

    def lane(self, stream: int) -> Lane:
        """The lane of a stream; its memory holds what was played on it."""
        if stream not in self._lanes:
            lane = Lane(self._environment.stream(split=self._split, index=stream), self._rules, observed=False)
            self._lanes[stream] = lane
            self._positions[stream] = {question.id: place for place, question in enumerate(lane.stream.questions)}
        return self._lanes[stream]

    async def play(self, row: Row, *, line: int) -> Played | Refused:
        """Play a row, or say why it is refused. Memory holds nothing of a refused one."""
        if self._endless and row.stream < FIRST_STREAM:
            return Refused(line=line, reason=f"a stream of PPO; stream: at least {FIRST_STREAM}, found {row.stream}")
        lane = self.lane(row.stream)
        position = self._positions[row.stream].get(row.question)
        if position is None:
            return Refused(line=line, reason=f"no such question; {row.question!r} is not in {lane.stream.id}")
        lane.position = position
        played = await play(
            lane,
            _Recital(row),
            stream=row.stream,
            learned=row.learn,
            fault=lambda session: _fault(session, row, self._rules),
        )
        return Refused(line=line, reason=played.fault) if played.fault else played


async def play_file(file: Path, environment: Environment, rules: Rules) -> AsyncIterator[Played | Refused]:
    """Play every line of a file, in order.

    Raises:
        ConfigError: the file can't be read.
    """
    stage = Stage(environment, rules)
    for line, row in read(file):
        yield row if isinstance(row, Refused) else await stage.play(row, line=line)


def _fault(session: Session, row: Row, rules: Rules) -> str:
    """Why a session that was played is refused; "" if it is not."""
    if session.error is not None:
        return session.error.removeprefix(f"{DemonstrationError.__name__}: ")
    if session.ending is not Ending.DONE:
        return _over_budget(rules)
    if session.correct == row.right:
        return ""
    judged = "right" if session.correct else "wrong"
    said = "nothing was submitted" if session.answer is None else f"the judge takes {session.answer!r} for {judged}"
    return f"judged {judged}; {said}, found right: {str(row.right).lower()}"


def _over_budget(rules: Rules) -> str:
    agent = rules.agent
    return (
        f"{OVER_BUDGET}; agent.session_tokens is {agent.session_tokens}, agent.turn_tokens {agent.turn_tokens}, "
        f"agent.turns {agent.turns}"
    )


class _Recital:
    """A policy that writes the calls of a row, turn by turn, and compares the replies.

    A turn ends where an engine would stop: after a stop function, or with the end token of a query.
    """

    def __init__(self, row: Row) -> None:
        self._left = list(row.calls)
        self._turn: list[tuple[Call, list[int]]] = []  # the latest turn: its calls, and the tokens of each
        self._begin = 0  # where it begins in the context

    async def write(self, view: SessionView) -> Completion:
        if self._turn:
            self._check_turn(view)
        else:
            self._check_forced(view)
        self._turn = [(call, _ids(call, view)) for call in self._next_turn()]
        self._begin = len(view.context_ids)
        ids = [token for _, tokens in self._turn for token in tokens]
        if len(ids) > view.room:
            raise DemonstrationError(
                f"{OVER_BUDGET}; {self._turn[0][0].call.value}: a turn of {len(ids)} tokens, room for {view.room}"
            )
        return Completion(
            ids=np.array(ids, dtype=np.int32),
            logprobs=np.zeros(len(ids), dtype=np.float32),
            versions=np.zeros(len(ids), dtype=np.int32),
        )

    def _next_turn(self) -> list[Call]:
        """Take the calls of the next turn; the last call of a row ends the session."""
        end = next(number for number, one in enumerate(self._left) if one.call in STOPS or one.call in SEARCHES)
        turn, self._left = self._left[: end + 1], self._left[end + 1 :]
        return turn

    def _check_turn(self, view: SessionView) -> None:
        """Compare what the turn was answered.

        Raises:
            DemonstrationError: the executor refused a call, or the reply is not the recorded one.
        """
        at, context = self._begin, view.context_ids
        for call, tokens in self._turn:
            kept = list(context[at : at + len(tokens)]) == tokens
            at += len(tokens)
            if not kept:  # the function was refused, so its words are not in the context
                self._refuse(call, view.tokenizer.decode(context[at - len(tokens) + 1 :]))
            reply = view.tokenizer.decode(context[at:])
            if call.call not in SEARCHES and reply.startswith(ERROR):
                self._refuse(call, reply)
        _compare(self._turn[-1][0], view.tokenizer.decode(context[at:]))

    def _refuse(self, call: Call, reply: str) -> None:
        raise DemonstrationError(f"the rules refuse a call; {call.call.value}: {reply.strip()}")

    def _check_forced(self, view: SessionView) -> None:
        """Compare the calls that the executor itself makes with the first ones of the row.

        Raises:
            DemonstrationError: they differ.
        """
        for function, reply in _forced(view.context_ids, view.tokenizer):
            call = self._left.pop(0)
            if call.call is not function:
                raise DemonstrationError(
                    f"agent.forced calls {function.value} first; the row must begin with it, found {call.call.value}"
                )
            _compare(call, view.tokenizer.decode(reply))


def _ids(call: Call, view: SessionView) -> list[int]:
    """The tokens of a call.

    Raises:
        DemonstrationError: the vocabulary lacks the function, or asks carry no words and this one does.
    """
    tokenizer, ends = view.tokenizer, call.call in SEARCHES or call.call in view.worded
    if call.call in ASKS and call.words is not None and not ends:
        raise DemonstrationError(f"asks carry no words, by env.expert; {call.call.value}: found {call.words!r}")
    try:
        function = tokenizer.function_id(call.call)
    except KeyError:
        raise DemonstrationError(f"the model has no such function; {call.call.value}") from None
    words = [] if call.words is None else tokenizer.encode(f" {call.words}")
    end = [tokenizer.eos_id] if ends else []
    return [function, *words, *end]


def _forced(context_ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[Function, list[int]]]:
    """The functions in a context to which the policy has written nothing yet, each with its reply."""
    found: list[tuple[Function, list[int]]] = []
    for token in context_ids:
        if (function := tokenizer.function_at(token)) is not None:
            found.append((function, []))
        elif found:  # else what opens a context
            found[-1][1].append(token)
    return found


def _compare(call: Call, reply: str) -> None:
    if call.reply is None or (expected := call.reply.split()) == (found := reply.split()):
        return
    number = next(
        (number for number, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other),
        min(len(expected), len(found)),
    )
    raise DemonstrationError(
        f"a reply differs; {call.call.value}: recorded {_from(expected, number)}, found {_from(found, number)}"
    )


def _from(words: Sequence[str], number: int) -> str:
    """The words from the first that differs on, and two before it."""
    begin = max(0, number - 2)
    text = " ".join(words[begin:])
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    return repr(f"{'... ' if begin else ''}{shown}")
