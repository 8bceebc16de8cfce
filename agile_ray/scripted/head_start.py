"""Where lanes begin in their first streams, and what they remember there.

If all lanes began at 0, a batch would hold one slice of the stream: first only empty memories, later only full ones. So
lane n of N begins at question floor(n L / N) of its first stream, which has L. Where each lane collects whole streams,
a batch covers them anyway, and lanes begin at 0: credit across sessions is exact only within what is collected.

The memory at that place is grown by script, without an engine. An earlier session asks with the share of its question's
kind, and of its price if prices differ, in the starting policy's sampled evaluation, gets the gold answer and writes
the gold knowledge. Whether it asks depends on (seed, stream, position) alone. Sessions that do not ask are left out,
since only advice is remembered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from random import Random
from statistics import fmean
from typing import Self

from agile_ray.agent.environment import Environment, Question, Stream
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.lane import Lane, LaneState
from agile_ray.agent.rules import Rules
from agile_ray.errors import ExpertError, StarvedError
from agile_ray.evaluation import failures
from agile_ray.scripted.references import Habits, reference
from agile_ray.seeds import derive
from agile_ray.types import Ending, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingShares:
    """How often a policy asks: shares of sessions, in [0, 1]."""

    kinds: Mapping[str, float]  # by kind of question
    overall: float  # for kinds that are not known
    priced: Mapping[tuple[str, int], float] = field(default_factory=dict)  # by kind and price, if prices differ

    @classmethod
    def of(cls, sessions: Sequence[Session]) -> Self:
        """The shares of some sessions, without those that failed for another reason than their expert.

        A recording has no advice on most questions of validation. If sessions that asked in vain were left out, the
        policy would seem to ask for nothing.

        Raises:
            StarvedError: none is left.
        """
        kinds: dict[str, list[bool]] = {}
        priced: dict[tuple[str, int], list[bool]] = {}
        for session in sessions:
            in_vain = (session.error or "").startswith(ExpertError.__name__)
            if in_vain or session.ending is not Ending.FAILED:
                asked = in_vain or session.asks > 0
                kinds.setdefault(session.kind, []).append(asked)
                priced.setdefault((session.kind, session.price), []).append(asked)
        if not kinds:
            raise StarvedError(f"asking shares: needs a session that did not fail{failures.summary(sessions)}")
        several = len({price for _, price in priced}) > 1
        return cls(
            kinds={kind: fmean(ones) for kind, ones in kinds.items()},
            overall=fmean(chain(*kinds.values())),
            priced={group: fmean(ones) for group, ones in priced.items()} if several else {},
        )

    def on(self, question: Question, *, price: int) -> float:
        """The share on questions of this kind at a price; at one that is not known, the share at all prices."""
        return self.priced.get((question.kind, price), self.kinds.get(question.kind, self.overall))


def first_position(stream: Stream, *, number: int, lanes: int, sessions: int) -> int:
    """Position at which a lane begins in its first stream.

    Args:
        stream: the lane's first stream.
        number: of the lane, from 0.
        lanes: their number.
        sessions: of each lane in one collection.
    """
    length = len(stream.questions)
    return 0 if sessions % length == 0 else number * length // lanes


def are_spread(environment: Environment, *, lanes: int, sessions: int) -> bool:
    """Whether a lane begins inside its first stream; the arguments are those of `first_position`."""
    return any(
        first_position(environment.stream(split="train", index=number), number=number, lanes=lanes, sessions=sessions)
        for number in range(lanes)
    )


async def head_start(
    environment: Environment,
    stream: Stream,
    rules: Rules,
    *,
    position: int,
    shares: AskingShares,
    seed: int,
) -> LaneState:
    """Grow the memory of a lane that begins inside a stream. The same arguments give the same memory.

    Args:
        environment: the stream's.
        stream: the lane's first stream.
        rules: of the lane; the gold expert replaces its expert.
        position: of the first session that the lane plays.
        shares: with which earlier sessions ask.
        seed: root seed of the run.
    """
    eager = reference("always_ask", environment, Habits())
    lane = Lane(stream, replace(rules, expert=GoldExpert()), observed=False)
    for question in stream.questions[:position]:
        draw = Random(derive(seed, "head start", stream.id, lane.position)).random()
        price = rules.prices.quote(stream.id, position=lane.position, kind=question.kind)
        if draw < shares.on(question, price=price):
            await lane.play(eager)
        else:
            lane.skip()
    return lane.state()
