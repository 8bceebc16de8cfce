"""A lane: one episode being played, session after session, with its memory."""

from collections.abc import Callable
from dataclasses import dataclass

from agile_ray.agent.environment import Stream
from agile_ray.agent.executor import Executor
from agile_ray.agent.hindsight import Held, HindsightObserver
from agile_ray.agent.later import later_similar
from agile_ray.agent.memory import Memory, Snapshot
from agile_ray.agent.paid_expert import PaidExpert
from agile_ray.agent.policy import Policy
from agile_ray.agent.recurrence import Recurrence
from agile_ray.agent.rules import Rules
from agile_ray.agent.session_memory import SessionMemory
from agile_ray.agent.threads import in_thread
from agile_ray.errors import SessionError
from agile_ray.types import Int64, Receipt, Session

AHEAD = 16
"""Questions that are embedded together: the model is faster on several texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """A lane between two sessions."""

    stream: str  # id, to be checked on restore
    position: int  # of the session to play next
    memory: Snapshot
    receipts: tuple[Receipt, ...] = ()  # of this position and later ones, which were played before the last restore


class Lane:
    """Plays the sessions of one stream in order."""

    def __init__(
        self,
        stream: Stream,
        rules: Rules,
        *,
        sessions: int | None = None,
        bought: Callable[[Receipt], None] | None = None,
        observed: bool = True,
        looks_ahead: bool = False,
    ) -> None:
        """Open a lane at the start of a stream.

        Args:
            stream: the stream to play.
            rules: shared with the other lanes of the run.
            sessions: how many will be played, which oracles look at; None: the whole stream.
            bought: called with the receipt of every ask that is paid for.
            observed: whether sessions record their hindsight; on a long stream that takes most of a script's time.
            looks_ahead: count the similar questions that follow each one, for credit. Embeds the whole stream.
        """
        self.stream = stream
        self.position = 0
        self.memory = Memory(rules.embedder, capacity=rules.memory.capacity)
        self._rules = rules
        self._recurrence = Recurrence(stream.questions)
        self._price = rules.prices.at(stream.id)
        self._sessions = sessions
        self._observed = observed
        self._looks_ahead = looks_ahead
        self._later: Int64 | None = None  # similar questions that follow each one, once they are counted
        self._held = Held(stream.questions)
        self._expert = PaidExpert(rules.expert, deadline_s=rules.agent.expert_s, bought=bought)

    @property
    def finished(self) -> bool:
        """Every question of the stream was played."""
        return self.position >= len(self.stream.questions)

    def state(self) -> LaneState:
        """State for a checkpoint; only between two sessions."""
        return LaneState(
            stream=self.stream.id,
            position=self.position,
            memory=self.memory.snapshot(),
            receipts=self._expert.since(self.position),
        )

    def restore(self, state: LaneState) -> None:
        """Continue from the state of a lane of the same stream; receipts of this lane are kept."""
        self.position = state.position
        self._expert.add(state.receipts)
        self.memory = Memory.restore(state.memory, self._rules.embedder, capacity=self._rules.memory.capacity)

    def skip(self) -> None:
        """Leave out the next session. Memory stays as it is, as after a session that does not ask."""
        self.position += 1

    async def play(self, policy: Policy) -> Session:
        """Play the next session to its end.

        A broken tool or expert fails this session and is recorded on it. A broken engine raises, because no other
        session could continue either.

        Raises:
            EngineError: the policy's engine is lost.
        """
        await self._embed_ahead()
        memory = SessionMemory(
            self.memory,
            questions=self.stream.questions,
            position=self.position,
            rules=self._rules,
            price=self._price,
        )
        executor = Executor(
            stream=self.stream,
            rules=self._rules,
            memory=memory,
            expert=self._expert,
            price=self._price,
            sessions=self._sessions,
            observer=self._observer(memory) if self._observed else None,
        )
        try:
            while executor.ending is None:
                await executor.feed(await policy.write(executor))
        except SessionError as error:
            executor.fail(error)
        self.position += 1
        return executor.session()

    def _observer(self, memory: SessionMemory) -> HindsightObserver:
        later = 0 if self._later is None else int(self._later[self.position])
        return HindsightObserver(memory, self._rules, recurrence=self._recurrence, held=self._held, later_similar=later)

    async def _embed_ahead(self) -> None:
        """Embed questions before the session reads them."""
        questions, embedder = self.stream.questions, self._rules.embedder
        if self._looks_ahead and self._later is None:
            await embedder.prepare([question.text for question in questions])
            threshold = self._rules.memory.threshold
            self._later = await in_thread(lambda: later_similar(questions, embedder=embedder, threshold=threshold))
        first = self.position - self.position % AHEAD
        await embedder.prepare([question.text for question in questions[first : first + AHEAD]])
