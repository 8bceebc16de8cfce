"""The executor: token in, token out. It runs the functions that the policy writes and appends what they return.

    policy writes            executor does                                          appends
    [GetQuestion]            shows the question                                     status line, question
    [RetrieveMemory]         searches memory with the question                      QA pairs, knowledge
    [SearchProduct] q <end>  runs the query q                                       rows, or why it can't be run
    [CallTool] name {} <end> calls a tool with arguments in JSON                    its result, or why there is none
    [SeekAdvice]             asks the expert and pays                               advice, or that there is none
    [AskColleague]           asks the second expert and pays                        advice, or that there is none
    [SeekAdvice] words <end> asks in words, where asks carry them                   advice, or that there is none
    [Reflection] words       keeps the words                                        -
    [UpdateMemory]           writes the QA pair and the reflection to memory        -
    [PredictAnswer] words    keeps the words                                        -
    [SubmitAnswer]           submits the latest of: prediction, advice, rows        -
    [ClearContext]           ends the session                                       -

A call out of order, or of a function in `agent.bar`, appends an error that the policy reads, and the session continues
within its budgets. So does an end token that ends no query; the words before it are not kept. What the policy wrote is
never decoded and encoded again: the context is a list of ids that only grows. Where the model is a chat model, what is
appended comes in its frames.
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from agile_ray.agent import environment
from agile_ray.agent.environment import Found, Question, Stream, Submission
from agile_ray.agent.expert import Advice, AskKey
from agile_ray.agent.functions import ASKS, NO_INFORMATION, SEARCHES, Function
from agile_ray.agent.memory import KNOWLEDGE, QA
from agile_ray.agent.observer import Observer
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.agent.policy import Completion, Offer
from agile_ray.agent.rules import Rules
from agile_ray.agent.session_memory import SessionMemory
from agile_ray.agent.threads import in_thread
from agile_ray.agent.tokenizer import Speaker, Tokenizer, opening, said
from agile_ray.errors import SessionError, ToolError, TurnedAwayError, described
from agile_ray.plugins.secrets import redacted
from agile_ray.types import Ending, Hindsight, MemoryUse, Origin, Outcome, Receipt, Session, Turn

SAYINGS = (
    "progress 10 questions 2 knowledge 3\n",
    "progress 10 questions 2 knowledge 3 price 0.3\n",
    "history : none\nknowledge : none\n",
    "advice : yes\nrows : none\n",
    "error : nothing to submit\n",
)
"""The executor's own words, for a tokenizer to be trained on."""
HANGING_S = 30.0
"""Seconds beyond `env.tool_s` after which a tool hangs: one that ends its own queries has ended them, also on a loaded
machine."""

Result = TypeVar("Result")
Waits = Callable[[], AbstractAsyncContextManager[None]]
"""Makes the block in which a session waits for an expert, however long that takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What running one token did. `reply` None: nothing is appended and the policy continues."""

    reply: list[int] | None = None
    reward: float = 0.0


_NOTHING = _Effect()


class Executor:
    """One session being played. Implements `SessionView`."""

    def __init__(
        self,
        *,
        stream: Stream,
        rules: Rules,
        memory: SessionMemory,
        expert: PaidExpert,
        price: int,
        sessions: int | None = None,
        observer: Observer | None = None,
        waits: Waits = nullcontext,
    ) -> None:
        """Begin the session at the memory's position; run the forced functions, if the rules have any.

        If what they show leaves no room to write, the session has ended as cut.

        Args:
            stream: the lane's stream.
            rules: the lane's rules.
            memory: the lane's memory, at the position of this session.
            expert: the lane's expert.
            price: of one ask, thousandths.
            sessions: of the stream that are played; None: all.
            observer: watches the session; without one, `Session.hindsight` stays empty.
            waits: the expert is asked in such a block.
        """
        self.stream = stream
        self.position = memory.position
        self.question: Question = memory.question
        self.tokenizer: Tokenizer = rules.tokenizer
        self.price = price
        self.sessions = len(stream.questions) if sessions is None else sessions
        self.context_ids: list[int] = opening(rules.tokenizer)
        self.last: Function | None = None
        self.found: Found | None = None
        self._finds: list[Found] = []
        self.reads: list[MemoryUse] = []
        self.ending: Ending | None = None
        self.barred = frozenset(Function(f"[{name}]") for name in rules.agent.bar)
        self.worded = rules.worded
        self._search_function = rules.search_function
        self._agent = rules.agent
        self._prices = {Function.SEEK_ADVICE: rules.prices}
        if rules.prices.colleague is not None:
            self._prices[Function.ASK_COLLEAGUE] = rules.prices.colleague
        self._embedder = rules.embedder
        self._tool_s = rules.tool_s
        self._memory = memory
        self._expert = expert
        self._observer = observer
        self._waits = waits
        self._error: str | None = None
        self._turns: list[Turn] = []
        self._receipts: list[Receipt] = []
        self._writes: list[MemoryUse] = []
        self._remarks: list[str] = []
        self._candidate: Submission | None = None  # what [SubmitAnswer] would submit
        self._submitted: Submission | None = None
        self._correct = False
        self._graded: int | None = None
        self._shown: slice | None = None  # where the reply of [GetQuestion] is in the context
        self._advice: Advice | None = None
        self._reflection = ""
        self._pending: Function | None = None  # the function whose words are being written
        self._words: list[int] = []
        self._taken = 0  # action tokens of the turn that is being taken
        self._ask_probability = math.nan  # of that turn, as in Turn
        self._asks_with: float | None = None  # that of the latest call that asks, if its turn begins with it
        if rules.agent.forced:
            self._force(Function.GET_QUESTION)
            if Function.RETRIEVE_MEMORY not in self.barred:
                self._force(Function.RETRIEVE_MEMORY)
        self._cut_if_spent()

    def _force(self, function: Function) -> None:
        self.context_ids.append(self.tokenizer.function_id(function))
        self.context_ids += self._get_question() if function is Function.GET_QUESTION else self._retrieve_memory()
        self.last = function

    @property
    def advised(self) -> bool:
        """The expert has answered."""
        return self._advice is not None

    @property
    def offers(self) -> Mapping[Function, Offer]:
        """What an ask costs, and how often its advice is right, by the function that asks; without barred ones."""
        return {
            function: Offer(price=self._quote(function), reliability=self._expert.reliability(ASKS[function]))
            for function in self._prices
            if function not in self.barred
        }

    def _quote(self, function: Function) -> int:
        """The price that the agent is told; that of [SeekAdvice] is the session's."""
        if function is Function.SEEK_ADVICE:
            return self.price
        return self._prices[function].quote(self.stream.id, position=self.position, kind=self.question.kind)

    def told(self, position: int) -> Advice | None:
        """What the expert said to the session at a position of this stream; None: that session did not ask."""
        return self._expert.told(position)

    @property
    def room(self) -> int:
        """Tokens that the policy may write in this turn."""
        return min(self._agent.turn_tokens, self._agent.session_tokens - len(self.context_ids))

    async def feed(self, completion: Completion) -> None:
        """Take what the policy wrote, run it token by token, append the reply.

        Raises:
            SessionError: the tool, the judge or the expert broke; call `fail`.
            TurnedAwayError: the endpoint of one of them would refuse every request.
        """
        prompt = np.array(self.context_ids, dtype=np.int32)
        rewards: list[float] = []
        reply: list[int] | None = None
        self._ask_probability = completion.ask_probability
        for token in completion.ids.tolist():
            self.context_ids.append(token)
            self._taken += 1
            effect = await self._take(token)
            rewards.append(effect.reward)
            if effect.reply is not None or self.ending is not None:
                reply = effect.reply
                break
        kept = len(rewards)
        self._taken = 0
        if kept < len(completion.ids):
            self._remarks.append("past_stop")
        self._turns.append(
            Turn(
                prompt_ids=prompt,
                completion_ids=completion.ids[:kept],
                logprobs=completion.logprobs[:kept],
                versions=completion.versions[:kept],
                rewards=np.array(rewards, dtype=np.float32),
                ask_probability=completion.ask_probability,
            )
        )
        self.context_ids += self._continuing(reply or [])
        self._cut_if_spent()

    def _continuing(self, reply: list[int]) -> list[int]:
        """The reply without the end of the assistant's message, if the policy has written that itself."""
        ended = self.tokenizer.chat is not None and self.context_ids[-1] == self.tokenizer.eos_id
        return reply[1:] if ended else reply

    def _cut_if_spent(self) -> None:
        """End the session if the policy may write no further token or turn."""
        if self.ending is None and (self.room < 1 or len(self._turns) >= self._agent.turns):
            self.ending = Ending.CUT

    def fail(self, error: SessionError) -> None:
        """End the session because the tool or the expert broke, and take back what it wrote to memory.

        Nobody learns from a failed session, so its entries would have no writer that credit can reach.
        """
        self._memory.take_back()
        self._writes = []
        self.ending = Ending.FAILED
        self._error = redacted(described(error))

    def session(self) -> Session:
        """Return the record of the session. Call it after the session has ended."""
        assert self.ending is not None, "Executor: a session is recorded once it has ended"
        return Session(
            stream=self.stream.id,
            position=self.position,
            stream_length=len(self.stream.questions),
            question_id=self.question.id,
            kind=self.question.kind,
            topic=self.question.topic,
            price=self.price,
            turns=tuple(self._turns),
            ending=self.ending,
            error=self._error,
            answer=None if self._submitted is None else _answer(self._submitted),
            correct=self._correct,
            graded=self._graded,
            receipts=tuple(self._receipts),
            abandoned=self._expert.unused(self.position, self._receipts),
            reads=tuple(self.reads),
            writes=tuple(self._writes),
            remarks=tuple(self._remarks),
            origin=None if self._submitted is None else _origin(self._submitted),
            hindsight=self._hindsight(),
        )

    def _hindsight(self) -> Hindsight:
        if self._observer is None:
            return Hindsight()
        aided = self._advice is not None or (self.found is not None and bool(self.found.rows))
        words = None if self._submitted is None or self._submitted.rows is not None else self._submitted.text
        return self._observer.hindsight(actions=self._actions, unaided=None if aided else words)

    @property
    def _actions(self) -> int:
        """Action tokens that have been taken."""
        return sum(len(turn.completion_ids) for turn in self._turns) + self._taken

    async def _take(self, token: int) -> _Effect:
        function = self.tokenizer.function_at(token)
        if function is None and token != self.tokenizer.eos_id:
            self._words.append(token)
            return _NOTHING
        words, pending = self.tokenizer.decode(self._words).strip(), self._pending
        self._words, self._pending = [], None
        if pending is Function.PREDICT_ANSWER:
            self._candidate = Submission(text=words, rows=None)
        if pending is Function.REFLECTION:
            self._reflection = words
        if function is None:
            if pending in SEARCHES:
                return await self._search(words)
            if pending is not None and pending in ASKS:
                return await self._ask(pending, words)
            return self._refuse("nothing to end here , call a function")
        if pending in SEARCHES:
            return self._refuse("a query ends with the end token")
        if pending in ASKS:
            return self._refuse("the words of an ask end with the end token")
        wrong = self._out_of_order(function)
        if wrong:
            return self._refuse(wrong)
        self.last = function
        return await self._run(function)

    def _out_of_order(self, function: Function) -> str:
        """Why a function can't be called now; "" if it can."""
        if function is Function.CLEAR_CONTEXT:
            return ""
        if function in self.barred:
            return f"{function.value.strip('[]')} is not available"
        if self._submitted is not None:
            return "the answer is submitted , clear the context"
        if function is Function.GET_QUESTION:
            return "the question is shown above" if self._shown else ""
        if self._shown is None:
            return "get the question first"
        if function in SEARCHES and function is not self._search_function:
            return f"there is no such tool , use {self._search_function.value.strip('[]')}"
        if function in ASKS:
            return self._may_not_ask(function)
        if function is Function.UPDATE_MEMORY and self._advice is None:
            return "memory is written only after advice"
        if function is Function.SUBMIT_ANSWER and self._candidate is None:
            return "nothing to submit"
        return ""

    def _may_not_ask(self, function: Function) -> str:
        if function not in self._prices:
            return "there is no colleague"
        return "no further advice in this session" if len(self._receipts) >= self._agent.asks else ""

    async def _run(self, function: Function) -> _Effect:
        match function:
            case Function.GET_QUESTION:
                return _Effect(reply=self._get_question())
            case Function.RETRIEVE_MEMORY:
                return _Effect(reply=self._retrieve_memory())
            case Function.SEEK_ADVICE | Function.ASK_COLLEAGUE:
                first = function is Function.SEEK_ADVICE and self._taken == 1  # the probability is the first token's
                known = first and not math.isnan(self._ask_probability)
                self._asks_with = self._ask_probability if known else None
                if function not in self.worded:
                    return await self._ask(function)
                self._pending = function
            case Function.UPDATE_MEMORY:
                await self._update_memory()
            case Function.SUBMIT_ANSWER:
                return await self._submit_answer()
            case Function.CLEAR_CONTEXT:
                self.ending = Ending.DONE
            case _:  # [PredictAnswer], [Reflection] and the searches: words follow, as in some asks
                self._pending = function
        return _NOTHING

    def _refuse(self, reason: str) -> _Effect:
        self._remarks.append("refused")
        return _Effect(reply=said(self.tokenizer, f"error : {reason}\n", speaker=Speaker.TOOL))

    def _get_question(self) -> list[int]:
        reply = self._memory.question_reply()
        self._shown = slice(len(self.context_ids), len(self.context_ids) + len(reply))
        return reply

    def _retrieve_memory(self) -> list[int]:
        found = self._memory.retrieve()
        # Later calls repeat what was shown, or come after an ask: credit uses neither.
        if self._observer is not None and not self.reads and not self._receipts:
            assert self._shown is not None, "[RetrieveMemory] is refused before the question is shown"
            self._remarks += self._observer.retrieved(found, context_ids=self.context_ids, shown=self._shown)
        for kind, matches in found.items():
            self.reads += [MemoryUse(kind=kind, writer=m.entry.writer, similarity=m.similarity) for m in matches]
        return self._memory.retrieval_reply(found)

    async def _search(self, query: str) -> _Effect:
        finds = tuple(self._finds)
        self.found = _checked(
            await self._environment(
                "tool", lambda: environment.search(self.stream, query, question=self.question, found=finds)
            )
        )
        self._finds.append(self.found)
        if self.found.remark:
            self._remarks.append(self.found.remark)
        if self.found.bad_query:  # never something to submit: an empty answer may be right by luck
            self._remarks.append("bad_query")
        elif self.found.rows is not None:
            self._candidate = Submission(text=self.found.text, rows=self.found.rows)
        return _Effect(reply=said(self.tokenizer, f"{redacted(self.found.text)}\n", speaker=Speaker.TOOL))

    def _ask_key(self, function: Function, words: str) -> AskKey:
        to = ASKS[function]
        return AskKey(
            stream=self.stream.id,
            position=self.position,
            number=sum(AskKey.parse(receipt.key).to == to for receipt in self._receipts),
            to=to,
            ask_probability=self._asks_with,
            words=words,
        )

    async def _ask(self, function: Function, words: str = "") -> _Effect:
        async with self._waits():
            receipt = await self._expert.ask(
                self.question,
                key=self._ask_key(function, words),
                price=self._quote(function),
                prices=self._prices[function],
                count=lambda text: len(self.tokenizer.encode(text)),
            )
        self._receipts.append(receipt)
        reward = -receipt.price / 1000
        if receipt.outcome is not Outcome.ANSWERED:
            self._remarks.append(f"advice_{receipt.outcome}")
            return _Effect(reply=said(self.tokenizer, "advice : none\n", speaker=Speaker.USER), reward=reward)
        self._advice = Advice(text=receipt.advice, answer=receipt.answer)
        self._candidate = Submission(text=self._advice.answer, rows=None, advised=True)
        advice = said(self.tokenizer, f"advice : {self._advice.text}\n", speaker=Speaker.USER)
        return _Effect(reply=advice, reward=reward)

    async def _update_memory(self) -> None:
        assert self._advice is not None
        text = f"{self.question.text} {self._advice.text}".strip()
        self._write(QA, scope=self.question.product, text=text)
        if self._reflection and NO_INFORMATION not in self._reflection.lower():
            self._write(KNOWLEDGE, scope="", text=self._reflection)

    def _write(self, kind: str, *, scope: str, text: str) -> None:
        if self._memory.write(kind, scope=scope, text=text):
            self._writes.append(MemoryUse(kind=kind, writer=self.position, similarity=1.0))
            self._decided()
        elif not self._memory.has(kind, scope=scope, text=text):
            self._remarks.append("memory_full")

    async def _submit_answer(self) -> _Effect:
        assert self._candidate is not None
        self._submitted = submitted = self._candidate
        self._decided()
        lowest, highest = environment.reward_range(self.stream)
        given = await self._environment("judge", lambda: self.stream.judge(self.question, submitted))
        earned = _in_range(given, lowest=lowest, highest=highest)
        self._correct = earned >= highest
        if earned != float(self._correct):
            self._graded = round(1000 * earned)
        return _Effect(reward=float(self._correct) if self._graded is None else self._graded / 1000)

    async def _environment(self, name: str, call: Callable[[], Result | Awaitable[Result]]) -> Result:
        """Call the environment's code, which may block or be asynchronous.

        Raises:
            ToolError: the call raised, or hangs.
        """

        def guarded() -> Result:
            with _broken_as_tool_error(name):
                result = call()
                return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

        try:
            return await in_thread(guarded, deadline_s=self._tool_s + HANGING_S)
        except TimeoutError as error:
            raise ToolError(
                f"{name}: a call must end within env.tool_s ({self._tool_s:g} s), and ran {HANGING_S:g} s longer"
            ) from error

    def _decided(self) -> None:
        if self._observer is not None:
            self._observer.decided(actions=self._actions)


@contextmanager
def _broken_as_tool_error(name: str) -> Iterator[None]:
    """Whatever the environment's code raises, only the session that called it ends, unless all others would, too.

    Raises:
        ToolError: the block raised.
        TurnedAwayError: an endpoint would refuse every request.
    """
    try:
        yield
    except (SessionError, TurnedAwayError):
        raise
    except Exception as error:
        raise ToolError(f"{name}: {described(error)}") from error


async def _awaited(result: Awaitable[Result]) -> Result:
    return await result


def _in_range(given: float, *, lowest: float, highest: float) -> float:
    """What a judge gave, as a number.

    Raises:
        ToolError: it is none, or out of range.
    """
    try:
        earned = float(given)
    except (TypeError, ValueError):
        earned = math.nan
    if not lowest <= earned <= highest:
        raise ToolError(
            f"judge: judge() must return true, false or a number from {lowest:g} to {highest:g}, found {given!r}; "
            "declare another range as the stream's reward_range"
        )
    return earned


def _checked(found: Found) -> Found:
    if not isinstance(found, Found) or not isinstance(found.text, str):
        raise ToolError(f"tool: search() must return a Found with a text, found {found!r}")
    return found


def _answer(submission: Submission) -> str:
    return submission.text if submission.rows is None else " ".join(submission.rows)


def _origin(submission: Submission) -> Origin:
    if submission.advised:
        return Origin.ADVICE
    return Origin.WORDS if submission.rows is None else Origin.ROWS
