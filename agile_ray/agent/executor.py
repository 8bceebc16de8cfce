"""The executor: token in, token out. It runs the functions that the policy writes and appends what they return.

    policy writes            executor does                                          appends
    [GetQuestion]            shows the question                                     status line, question
    [RetrieveMemory]         searches memory with the question                      QA pairs, knowledge
    [SearchProduct] q <end>  runs the query q                                       rows, or why it can't be run
    [SeekAdvice]             asks the expert and pays                               advice
    [Reflection] words       keeps the words                                        -
    [UpdateMemory]           writes the QA pair and the reflection to memory        -
    [PredictAnswer] words    keeps the words                                        -
    [SubmitAnswer]           submits the latest of: prediction, advice, rows        -
    [ClearContext]           ends the session                                       -

A call out of order appends an error that the policy reads; the session goes on within its budgets. Nothing that the
policy wrote is ever decoded and encoded again: the context is a list of ids that only grows.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from agile_ray.agent.environment import Found, Question, Stream, Submission
from agile_ray.agent.expert import Advice
from agile_ray.agent.functions import NO_INFORMATION, SEARCHES, Function
from agile_ray.agent.memory import KNOWLEDGE, QA, Entry, Match, Memory
from agile_ray.agent.paid_expert import Till
from agile_ray.agent.policy import Completion
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.types import Counterfactual, Ending, MemoryUse, Receipt, Turn

SAYINGS = (
    "progress 10 questions 2 knowledge 3\n",
    "history : none\nknowledge : none\n",
    "advice : yes\nrows : none\n",
    "error : nothing to submit\n",
)
"""The executor's own words, for a tokenizer to be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What running one token did. `reply` None: nothing is appended and the policy writes on."""

    reply: list[int] | None = None
    reward: float = 0.0


_NOTHING = _Effect()


class Executor:
    """One session being played. Implements `SessionView`."""

    def __init__(
        self,
        *,
        stream: Stream,
        position: int,
        search_function: Function,
        memory: Memory,
        tokenizer: Tokenizer,
        till: Till,
        agent: Agent,
        memory_config: MemoryConfig,
        price: int,
    ) -> None:
        self.stream = stream
        self.position = position
        self.question: Question = stream.questions[position]
        self.tokenizer = tokenizer
        self.price = price
        self.context_ids: list[int] = [tokenizer.bos_id]
        self.last: Function | None = None
        self.found: Found | None = None
        self.ending: Ending | None = None
        self.turns: list[Turn] = []
        self.receipts: list[Receipt] = []
        self.reads: list[MemoryUse] = []
        self.writes: list[MemoryUse] = []
        self.counterfactuals: list[Counterfactual] = []
        self.decided_after: int | None = None  # action tokens when the session wrote, or could no longer; None: not yet
        self.remarks: list[str] = []
        self.submission: Submission | None = None  # the latest candidate, until it is submitted
        self.submitted = False
        self.correct = False
        self._search_function = search_function
        self._memory = memory
        self._till = till
        self._agent = agent
        self._memory_config = memory_config
        self._shown: slice | None = None  # where the reply of [GetQuestion] stands in the context
        self._advice: Advice | None = None
        self._reflection = ""
        self._pending: Function | None = None  # the function whose words are being written
        self._words: list[int] = []
        self._taken = 0  # action tokens of the turn that is being taken
        if agent.forced:
            for function, reply in (
                (Function.GET_QUESTION, self._get_question),
                (Function.RETRIEVE_MEMORY, self._retrieve_memory),
            ):
                self.context_ids.append(tokenizer.function_id(function))
                self.context_ids += reply()
                self.last = function

    @property
    def advised(self) -> bool:
        """The expert has answered."""
        return self._advice is not None

    @property
    def room(self) -> int:
        """Tokens that the policy may write in this turn."""
        return min(self._agent.turn_tokens, self._agent.session_tokens - len(self.context_ids))

    def similar(self, without: Collection[int] = ()) -> tuple[int, int]:
        """How many QA pairs of this product, and knowledge entries, are like the question.

        Args:
            without: positions of sessions whose entries are not counted.
        """
        threshold, text = self._memory_config.threshold, self.question.text
        count, product = self._memory.similar, self.question.product
        return (
            count(text, kind=QA, scope=product, threshold=threshold, without=without),
            count(text, kind=KNOWLEDGE, scope="", threshold=threshold, without=without),
        )

    @property
    def actions(self) -> int:
        """Action tokens that have been taken."""
        return sum(len(turn.completion_ids) for turn in self.turns) + self._taken

    async def feed(self, completion: Completion) -> None:
        """Take what the policy wrote, run it token by token, append the reply.

        Raises:
            SessionError: the tool or the expert broke; the session has failed.
        """
        prompt = np.array(self.context_ids, dtype=np.int32)
        rewards: list[float] = []
        reply: list[int] | None = None
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
            self.remarks.append("past_stop")
        self.turns.append(
            Turn(
                prompt_ids=prompt,
                completion_ids=completion.ids[:kept],
                logprobs=completion.logprobs[:kept],
                versions=completion.versions[:kept],
                rewards=np.array(rewards, dtype=np.float32),
            )
        )
        self.context_ids += reply or ()
        if self.ending is None and (self.room < 1 or len(self.turns) >= self._agent.turns):
            self.ending = Ending.CUT

    async def _take(self, token: int) -> _Effect:
        function = self.tokenizer.function_at(token)
        if function is None and token != self.tokenizer.eos_id:
            self._words.append(token)
            return _NOTHING
        words, pending = self.tokenizer.decode(self._words).strip(), self._pending
        self._words, self._pending = [], None
        if function is None:
            return self._search(words) if pending in SEARCHES else self._refuse("nothing to end here , call a function")
        if pending in SEARCHES:
            return self._refuse("a query ends with the end token")
        if pending is Function.PREDICT_ANSWER:
            self.submission = Submission(text=words, rows=None)
        if pending is Function.REFLECTION:
            self._reflection = words
        wrong = self._out_of_order(function)
        if wrong:
            return self._refuse(wrong)
        self.last = function
        return await self._run(function)

    def _out_of_order(self, function: Function) -> str:
        """Why a function can't be called now; "" if it can."""
        if function is Function.CLEAR_CONTEXT:
            return ""
        if self.submitted:
            return "the answer is submitted , clear the context"
        if function is Function.GET_QUESTION:
            return "the question is shown above" if self._shown else ""
        if self._shown is None:
            return "get the question first"
        if function in SEARCHES and function is not self._search_function:
            return f"there is no such tool , use {self._search_function.value.strip('[]')}"
        if function is Function.SEEK_ADVICE and len(self.receipts) >= self._agent.asks:
            return "no further advice in this session"
        if function is Function.UPDATE_MEMORY and self._advice is None:
            return "memory is written only after advice"
        if function is Function.SUBMIT_ANSWER and self.submission is None:
            return "nothing to submit"
        return ""

    async def _run(self, function: Function) -> _Effect:
        match function:
            case Function.GET_QUESTION:
                return _Effect(reply=self._get_question())
            case Function.RETRIEVE_MEMORY:
                return _Effect(reply=self._retrieve_memory())
            case Function.SEEK_ADVICE:
                return await self._seek_advice()
            case Function.UPDATE_MEMORY:
                self._update_memory()
            case Function.SUBMIT_ANSWER:
                self.submitted = True
                self._settle()
                assert self.submission is not None
                self.correct = self.stream.judge(self.question, self.submission)
                return _Effect(reward=float(self.correct))
            case Function.CLEAR_CONTEXT:
                self.ending = Ending.DONE
            case _:  # [PredictAnswer], [Reflection] and the searches: words follow
                self._pending = function
        return _NOTHING

    def _refuse(self, reason: str) -> _Effect:
        self.remarks.append("refused")
        return _Effect(reply=self.tokenizer.encode(f"error : {reason}\n"))

    def _get_question(self) -> list[int]:
        reply = self._question_reply(())
        self._shown = slice(len(self.context_ids), len(self.context_ids) + len(reply))
        return reply

    def _question_reply(self, without: Collection[int]) -> list[int]:
        status = ""
        if self._agent.status_line:
            progress = 10 * (10 * self.position // len(self.stream.questions))
            questions, knowledge = self.similar(without)
            status = f"progress {progress} questions {min(questions, 9)} knowledge {min(knowledge, 9)}\n"
        return self.tokenizer.encode(f"{status}{self.question.shown}\n")

    def _retrieve_memory(self) -> list[int]:
        found = self._retrieve(())
        if not self.reads and not self.receipts:  # later calls show what is seen already, or stand behind an ask
            self.counterfactuals = self._imagine(found)
        for kind, matches in found.items():
            self.reads += [MemoryUse(kind=kind, writer=m.entry.writer, similarity=m.similarity) for m in matches]
        return self._memory_reply(found)

    def _retrieve(self, without: Collection[int]) -> dict[str, list[Match]]:
        text, top_k = self.question.text, self._memory_config.top_k
        others = {self.position, *without}
        return {
            kind: self._memory.retrieve(text, kind=kind, scope=scope, top_k=top_k, without=others)
            for kind, scope in ((QA, self.question.product), (KNOWLEDGE, ""))
        }

    def _memory_reply(self, found: dict[str, list[Match]]) -> list[int]:
        reply: list[int] = []
        for kind, title in ((QA, "history"), (KNOWLEDGE, "knowledge")):
            if not found[kind]:
                reply += self.tokenizer.encode(f"{title} : none\n")
            for match in found[kind]:
                ids = self.tokenizer.encode(f"{title} : {match.entry.text}")[: self._memory_config.entry_tokens]
                reply += [*ids, *self.tokenizer.encode("\n")]
        return reply

    def _imagine(self, found: dict[str, list[Match]]) -> list[Counterfactual]:
        """What memory would have returned without each session that wrote what it did return, and without all."""
        writers = sorted({match.entry.writer for matches in found.values() for match in matches})
        groups = [(writer,) for writer in writers] + ([tuple(writers)] if len(writers) > 1 else [])
        imagined = [self._without(group) for group in groups]
        fitting = [one for one in imagined if len(one.prefix_ids) < self._agent.session_tokens]
        self.remarks += ["long_counterfactual"] * (len(imagined) - len(fitting))
        return fitting

    def _without(self, writers: tuple[int, ...]) -> Counterfactual:
        assert self._shown is not None, "[RetrieveMemory] is refused before the question is shown"
        context, questions = self.context_ids, self.stream.questions
        prefix = [
            *context[: self._shown.start],
            *self._question_reply(writers),
            *context[self._shown.stop :],
            *self._memory_reply(self._retrieve(writers)),
        ]
        cosines = [self._memory.cosine(self.question.text, questions[writer].text) for writer in writers]
        return Counterfactual(writers=writers, similarity=min(cosines), prefix_ids=np.array(prefix, dtype=np.int32))

    def _search(self, query: str) -> _Effect:
        self.found = self.stream.search(query)
        if self.found.bad_query:  # never something to submit: an empty answer may be right by luck
            self.remarks.append("bad_query")
        else:
            self.submission = Submission(text=self.found.text, rows=self.found.rows)
        return _Effect(reply=self.tokenizer.encode(f"{self.found.text}\n"))

    async def _seek_advice(self) -> _Effect:
        key = f"{self.stream.id}#{self.position}#{len(self.receipts)}"
        receipt = await self._till.ask(self.question, key=key, price=self.price)
        self.receipts.append(receipt)
        self._advice = Advice(text=receipt.advice, answer=receipt.answer)
        self.submission = Submission(text=self._advice.answer, rows=None, advised=True)
        return _Effect(reply=self.tokenizer.encode(f"advice : {self._advice.text}\n"), reward=-receipt.price / 1000)

    def _update_memory(self) -> None:
        assert self._advice is not None
        entries = [self._entry(QA, self.question.product, self.question.text, self._advice.text)]
        if self._reflection and NO_INFORMATION not in self._reflection.lower():
            entries.append(self._entry(KNOWLEDGE, "", self._reflection, ""))
        for entry in entries:
            if self._memory.write(entry):
                self.writes.append(MemoryUse(kind=entry.kind, writer=self.position, similarity=1.0))
                self._settle()

    def _settle(self) -> None:
        """The first write settles that the session writes, submitting that it will not: memory is closed behind it."""
        if self.decided_after is None:
            self.decided_after = self.actions

    def _entry(self, kind: str, scope: str, key: str, more: str) -> Entry:
        return Entry(kind=kind, scope=scope, key=key, text=f"{key} {more}".strip(), writer=self.position)
