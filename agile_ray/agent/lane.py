"""A lane: one episode being played, session after session, with its memory."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from agile_ray.agent.environment import Stream, remembered
from agile_ray.agent.executor import Executor, Waits
from agile_ray.agent.hindsight import Held, HindsightObserver
from agile_ray.agent.later import later_similar
from agile_ray.agent.memory import Change, Memory, Moment
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.agent.policy import Policy
from agile_ray.agent.recurrence import Recurrence
from agile_ray.agent.rules import Rules
from agile_ray.agent.session_memory import GivenMemory, SessionMemory, given_memory
from agile_ray.agent.threads import in_thread
from agile_ray.errors import SessionError
from agile_ray.prices import Prices
from agile_ray.types import Ending, Int64, Receipt, Session

AHEAD = 16
"""Questions that are embedded together: the model is faster on several texts."""
CAPACITY = 10_000
"""Maximum number of different texts of each kind in a memory. A new text is refused by a full memory, and counted as
the remark `memory_full`. A text that memory holds always takes the question of another session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """A lane between two sessions."""

    stream: str  # id, to be checked on restore
    position: int  # of the session to play next
    memory: Change  # since the beginning, or since an earlier state
    receipts: tuple[Receipt, ...] = ()  # of this position and later ones, which were played before the last restore

    def then(self, later: "LaneState") -> "LaneState":
        """A later state of the same stream, whose memory is what has changed since this one."""
        return replace(later, memory=self.memory.then(later.memory))


class Lane:
    """Plays the sessions of one stream in order."""

    def __init__(
        self,
        stream: Stream,
        rules: Rules,
        *,
        sessions: int | None = None,
        asks: Callable[[str], None] | None = None,
        bought: Callable[[Receipt], None] | None = None,
        observed: bool = True,
        looks_ahead: bool = False,
        imagines: bool = False,
    ) -> None:
        """Open a lane at the start of a stream.

        Args:
            stream: the stream to play.
            rules: shared with the other lanes of the run.
            sessions: how many will be played, which oracles look at; None: the whole stream.
            asks: called with the key of every ask before the expert is asked.
            bought: called with the receipt of every ask that is paid for, before the policy reads the advice.
            observed: whether sessions record their hindsight; on a long stream that takes most of a script's time.
            looks_ahead: count the similar questions that follow each one, for credit. Embeds the whole stream.
            imagines: build the counterfactual prefixes that credit may score.
        """
        self.stream = stream
        self.position = 0
        self.memory = Memory(rules.embedder, capacity=CAPACITY)
        self._rules = rules
        self._recurrence = Recurrence(stream.questions)
        self._sessions = sessions
        self._observed = observed
        self._looks_ahead = looks_ahead
        self._imagines = imagines
        self._later: Int64 | None = None  # similar questions that follow each one, once they are counted
        self._held = Held(stream.questions)
        self._before: GivenMemory | None = None  # what memory held before the first session, once it is embedded
        self._expert = PaidExpert(rules.expert, deadline_s=rules.agent.expert_s, asks=asks, bought=bought)

    @property
    def finished(self) -> bool:
        """Every question of the stream was played."""
        return self.position >= len(self.stream.questions)

    def state(self, since: Moment | None = None) -> LaneState:
        """State for a checkpoint; only between two sessions.

        Args:
            since: a moment of this lane's memory. None, or a moment of another memory: the beginning.
        """
        return LaneState(
            stream=self.stream.id,
            position=self.position,
            memory=self.memory.change(since),
            receipts=self.bought,
        )

    def restore(self, state: LaneState) -> None:
        """Continue from the state of a lane of the same stream, with its whole memory; own receipts are kept."""
        self.position = state.position
        self._expert.add(state.receipts)
        self.memory = Memory.restore(state.memory, self._rules.embedder, capacity=CAPACITY)

    @property
    def bought(self) -> tuple[Receipt, ...]:
        """Receipts of the next session and later ones, which earlier attempts paid for."""
        return self._expert.since(self.position)

    def own(self, receipts: Iterable[Receipt]) -> None:
        """Take over receipts of this stream that earlier attempts at its sessions paid for."""
        self._expert.add(receipts)

    def give_up(self, reason: str) -> Session:
        """Leave out the next session because it can't be played; it counts as failed. Memory stays as it is."""
        question = self.stream.questions[self.position]
        session = Session(
            stream=self.stream.id,
            position=self.position,
            stream_length=len(self.stream.questions),
            question_id=question.id,
            kind=question.kind,
            topic=question.topic,
            price=self._price(),
            turns=(),
            ending=Ending.FAILED,
            error=reason,
            answer=None,
            correct=False,
            receipts=(),
            abandoned=self._expert.unused(self.position, ()),
            reads=(),
            writes=(),
            remarks=(),
        )
        self.position += 1
        return session

    def skip(self) -> None:
        """Leave out the next session. Memory stays as it is, as after a session that does not ask."""
        self.position += 1

    async def play(self, policy: Policy, *, waits: Waits = nullcontext) -> Session:
        """Play the next session to its end.

        A broken tool or expert fails this session and is recorded on it. A broken engine raises, because no other
        session could continue either, and so does an endpoint that would refuse every request.

        Args:
            policy: writes its turns.
            waits: the expert is asked in such a block.

        Raises:
            EngineError: the policy's engine is lost.
            TurnedAwayError: an endpoint refuses the key, or has no such address or model.
        """
        await self._embed_ahead()
        memory = SessionMemory(
            self.memory,
            questions=self.stream.questions,
            position=self.position,
            rules=self._rules,
            given=await self._given(),
            price=self._price(),
            colleague=self._colleague(),
        )
        executor = Executor(
            stream=self.stream,
            rules=self._rules,
            memory=memory,
            expert=self._expert,
            price=self._price(),
            sessions=self._sessions,
            observer=self._observer(memory) if self._observed else None,
            waits=waits,
        )
        try:
            while executor.ending is None:
                await executor.feed(await policy.write(executor))
        except SessionError as error:
            executor.fail(error)
        self.position += 1
        return executor.session()

    def _price(self) -> int:
        """Of an ask in the next session."""
        return self._quote(self._rules.prices)

    def _colleague(self) -> int | None:
        """Of an ask of the second expert there; None: there is none."""
        prices = self._rules.prices.colleague
        return None if prices is None else self._quote(prices)

    def _quote(self, prices: Prices) -> int:
        question = self.stream.questions[self.position]
        return prices.quote(self.stream.id, position=self.position, kind=question.kind)

    def _observer(self, memory: SessionMemory) -> HindsightObserver:
        later = 0 if self._later is None else int(self._later[self.position])
        return HindsightObserver(
            memory,
            self._rules,
            recurrence=self._recurrence,
            held=self._held,
            later_similar=later,
            imagines=self._imagines,
        )

    async def _given(self) -> GivenMemory | None:
        """What memory held before the stream's first session."""
        given, embedder = remembered(self.stream), self._rules.embedder
        if self._before is None and given.questions:
            await embedder.prepare([question.text for question in given.questions])
            self._before = given_memory(given, embedder)
        return self._before

    async def _embed_ahead(self) -> None:
        """Embed questions before the session reads them."""
        questions, embedder = self.stream.questions, self._rules.embedder
        if self._looks_ahead and self._later is None:
            await embedder.prepare([question.text for question in questions])
            threshold = self._rules.memory.threshold
            self._later = await in_thread(lambda: later_similar(questions, embedder=embedder, threshold=threshold))
        first = self.position - self.position % AHEAD
        await embedder.prepare([question.text for question in questions[first : first + AHEAD]])
