"""Sessions as imitation takes them: who plays them may be a script, a model, or a line of a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agile_ray.agent.environment import Question
from agile_ray.agent.functions import SEARCHES
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Completion, Policy, SessionView
from agile_ray.types import Session

FIRST_STREAM = 1_000_000
"""Index of the first stream of imitation where streams never end; PPO's lanes play those from 0 on."""
STREAMS = 32
"""Minimum number of episodes, so that a batch mixes memories of all sizes and, where streams are long, categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A session that was played for imitation."""

    session: Session
    stream: int  # index
    questions: Sequence[Question]  # of the stream
    learned: bool  # False: it only fills memory
    slips: frozenset[int]  # numbers of the turns whose query the tool refused
    fault: str  # why it is refused; "" if it is not. Memory holds nothing of a refused one

    @property
    def question(self) -> Question:
        """The session's question."""
        return self.questions[self.session.position]

    @property
    def without_slips(self) -> Session:
        """The session as if the executor, not the policy, had written the wrong queries: read, but not trained on."""
        turns = tuple(turn for number, turn in enumerate(self.session.turns) if number not in self.slips)
        return replace(self.session, turns=turns)


def no_fault(session: Session) -> str:
    """Refuse no session."""
    del session
    return ""


async def play(
    lane: Lane,
    policy: Policy,
    *,
    stream: int,
    learned: bool = True,
    fault: Callable[[Session], str] = no_fault,
) -> Played:
    """Play a lane's next session, which does not find what its position has written before.

    Args:
        lane: of the stream.
        policy: plays the session.
        stream: index of the stream.
        learned: False if the session only fills memory.
        fault: why a session is refused; "" if it is not.
    """
    earlier = lane.memory.forget(lane.position)
    noting = _NotesSlips(policy)
    session = await lane.play(noting)
    if wrong := fault(session):
        lane.memory.forget(session.position)
    for entry in earlier:
        lane.memory.write(entry)
    return Played(
        session=session,
        stream=stream,
        questions=lane.stream.questions,
        learned=learned,
        slips=frozenset(noting.slips),
        fault=wrong,
    )


class _NotesSlips:
    """Plays as another policy does, and notes the turns whose query the tool refused."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._latest: Completion | None = None
        self._number = 0  # of the next turn
        self.slips: list[int] = []

    async def write(self, view: SessionView) -> Completion:
        if self._latest is not None and self._latest.ids[-1] == view.tokenizer.eos_id and _refused(view):
            self.slips.append(self._number - 1)
        self._latest = await self._policy.write(view)
        self._number += 1
        return self._latest


def _refused(view: SessionView) -> bool:
    return view.last in SEARCHES and view.found is not None and view.found.bad_query
