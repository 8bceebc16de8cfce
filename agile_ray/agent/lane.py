"""A lane: one episode being played, session after session, with its memory."""

from collections import Counter
from dataclasses import dataclass

from agile_ray.agent.environment import Stream, Submission
from agile_ray.agent.executor import Executor
from agile_ray.agent.expert import Expert
from agile_ray.agent.functions import Function
from agile_ray.agent.hindsight import later_similar
from agile_ray.agent.memory import Embedder, Memory, Snapshot
from agile_ray.agent.paid_expert import Till
from agile_ray.agent.policy import Policy
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.config import Agent
from agile_ray.config import Memory as MemoryConfig
from agile_ray.errors import SessionError
from agile_ray.record.receipts import Journal
from agile_ray.types import Ending, Hindsight, Origin, Receipt, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """Where a lane stands between two sessions."""

    stream: str  # id, to be checked on restore
    position: int  # of the session to play next
    memory: Snapshot
    receipts: tuple[Receipt, ...] = ()  # of this position and later ones, which the lane played before it was put back


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What all lanes of a run share."""

    search_function: Function
    tokenizer: Tokenizer
    embedder: Embedder
    expert: Expert
    agent: Agent
    memory: MemoryConfig
    price: int  # of advice, thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What memory held before a session."""

    similar: int  # entries like the question, of the kind that has more
    known: bool
    sizes: dict[str, int]


class Lane:
    """Plays the sessions of one stream in order."""

    def __init__(self, stream: Stream, rules: Rules, *, journal: Journal | None = None) -> None:
        """Open a lane at the start of a stream; `journal` is told of every ask that is paid for."""
        self.stream = stream
        self.position = 0
        self.memory = Memory(rules.embedder, capacity=rules.memory.capacity)
        self._rules = rules
        self._till = Till(rules.expert, deadline_s=rules.agent.expert_s, journal=journal)

    @property
    def finished(self) -> bool:
        """Every question of the stream was played."""
        return self.position >= len(self.stream.questions)

    def state(self) -> LaneState:
        """For a checkpoint; only between two sessions."""
        return LaneState(
            stream=self.stream.id,
            position=self.position,
            memory=self.memory.snapshot(),
            receipts=self._till.since(self.position),
        )

    def restore(self, state: LaneState) -> None:
        """Go on where a lane of the same stream stood; what this lane has paid for stays paid."""
        self.position = state.position
        self._till.add(state.receipts)
        self.memory = Memory.restore(state.memory, self._rules.embedder, capacity=self._rules.memory.capacity)

    async def play(self, policy: Policy) -> Session:
        """Play the next session to its end.

        What a broken tool or expert does is written on the session; an engine that fails raises, because no other
        session could go on either.

        Raises:
            EngineError: the policy's engine is lost.
        """
        rules = self._rules
        executor = Executor(
            stream=self.stream,
            position=self.position,
            search_function=rules.search_function,
            memory=self.memory,
            tokenizer=rules.tokenizer,
            till=self._till,
            agent=rules.agent,
            memory_config=rules.memory,
            price=rules.price,
        )
        before = self._held(executor)
        error: str | None = None
        try:
            while executor.ending is None:
                await executor.feed(await policy.write(executor))
        except SessionError as broken:
            executor.ending, error = Ending.FAILED, f"{type(broken).__name__}: {broken}"
        session = self._session(executor, error=error, before=before)
        self.position += 1
        return session

    def _held(self, executor: Executor) -> "_Held":
        questions = self.stream.questions
        written_on = [questions[writer] for writer in self.memory.writers]
        return _Held(
            similar=max(executor.similar()),
            known=any(question.item == executor.question.item for question in written_on),
            sizes=dict(Counter(question.topic for question in written_on)),
        )

    def _session(self, executor: Executor, *, error: str | None, before: "_Held") -> Session:
        assert executor.ending is not None
        return Session(
            stream=self.stream.id,
            position=self.position,
            stream_length=len(self.stream.questions),
            question_id=executor.question.id,
            kind=executor.question.kind,
            topic=executor.question.topic,
            price=executor.price,
            turns=tuple(executor.turns),
            ending=executor.ending,
            error=error,
            answer=executor.submission.text if executor.submission and executor.submitted else None,
            correct=executor.correct,
            receipts=tuple(executor.receipts),
            abandoned=self._till.unused(self.position, executor.receipts),
            reads=tuple(executor.reads),
            writes=tuple(executor.writes),
            remarks=tuple(executor.remarks),
            origin=_origin(executor.submission) if executor.submission and executor.submitted else None,
            hindsight=Hindsight(
                known=before.known,
                memory_sizes=before.sizes,
                stored_similar=before.similar,
                later_similar=later_similar(
                    self.stream.questions,
                    self.position,
                    embedder=self._rules.embedder,
                    threshold=self._rules.memory.threshold,
                ),
                counterfactuals=tuple(executor.counterfactuals),
                decided_after=executor.actions if executor.decided_after is None else executor.decided_after,
            ),
        )


def _origin(submission: Submission) -> Origin:
    if submission.advised:
        return Origin.ADVICE
    return Origin.WORDS if submission.rows is None else Origin.ROWS
