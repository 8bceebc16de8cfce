"""Worlds small enough to add up on paper: all random events of a stream are enumerated, so expectations are exact.

    V(M, k)            what sessions from k on earn in expectation, if memory holds M before k
    states(world, i)   each memory M that i may leave behind when it asks, with its probability
    credit(...)        E[A_i | M], through the sessions, prefixes and links that a run has
    worth(...)         V(M, i+1) - V(M without what i wrote, i+1)

A session that finds an entry answers from it; one that does not asks with its probability `ask`, or guesses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agile_ray.credit import linked
from agile_ray.types import Counterfactual, MemoryUse, Receipt, Session, TokenScores
from tests.fakes.worlds import SESSION, changed

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A memory entry; `right` if the advice in it is."""

    writer: int  # position of the session that wrote it
    name: str
    right: bool = True


Memory = tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question, and what a session does with it."""

    reads: Mapping[
        str, float
    ]  # entries that memory returns: the probability that an answer from one is right, if the entry is
    writes: tuple[str, ...]  # entries that an ask leaves
    together: bool = False  # only all of `reads` at once answer it; otherwise any does
    idle: frozenset[str] = frozenset()  # entries that memory returns and that are of no use
    similarity: float = 1.0  # of the question to those of the idle entries' writers
    ask: float = 0.5  # p: probability to ask without an answer in memory
    again: float = 0.0  # q: probability to ask in spite of one
    guess: float = 0.5  # probability that a guess is right
    advice: float = 1.0  # probability that advice is right
    price: int = 300  # thousandths


World = tuple[Ask, ...]


def on(item: str, **changes: object) -> Ask:
    """A question on an item: its entry answers it for sure, an ask writes it."""
    return changed(Ask(reads={item: 1.0}, writes=(item,)), **changes)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One possible outcome of a session, with its probability."""

    probability: float
    correct: bool
    paid: int  # thousandths
    wrote: Memory

    @property
    def reward(self) -> float:
        return self.correct - self.paid / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One possible course of a stream from a session on: memory before each session, and its outcome."""

    probability: float = 1.0
    memories: tuple[Memory, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def holds(one: Ask, memory: Memory) -> bool:
    """Whether memory answers the question."""
    found = {entry.name for entry in memory} & set(one.reads)
    return found == set(one.reads) if one.together else bool(found)


def asks(one: Ask, memory: Memory) -> float:
    """The probability that the session asks, and so writes."""
    return one.again if holds(one, memory) else one.ask


def outcomes(one: Ask, memory: Memory, position: int) -> list[Outcome]:
    """Every possible outcome of the session at a position."""
    known = [one.reads[entry.name] * entry.right for entry in memory if entry.name in one.reads]
    probability = max(known) if holds(one, memory) else one.guess
    asking = asks(one, memory)
    right, wrong = (
        tuple(Entry(writer=position, name=name, right=it_is) for name in one.writes) for it_is in (True, False)
    )
    every = [
        Outcome(probability=asking * one.advice, correct=True, paid=one.price, wrote=right),
        Outcome(probability=asking * (1 - one.advice), correct=False, paid=one.price, wrote=wrong),
        Outcome(probability=(1 - asking) * probability, correct=True, paid=0, wrote=()),
        Outcome(probability=(1 - asking) * (1 - probability), correct=False, paid=0, wrote=()),
    ]
    return [outcome for outcome in every if outcome.probability > 0]


def own_value(one: Ask, memory: Memory) -> float:
    """Expected own reward of a session."""
    return sum(outcome.probability * outcome.reward for outcome in outcomes(one, memory, 0))


def value(world: World, memory: Memory, position: int) -> float:
    """V(M, k): expected own rewards of all sessions from a position on."""
    if position == len(world):
        return 0.0
    return sum(
        outcome.probability * (outcome.reward + value(world, memory + outcome.wrote, position + 1))
        for outcome in outcomes(world[position], memory, position)
    )


def without(memory: Memory, *writers: int) -> Memory:
    """Memory without the entries of some sessions."""
    return tuple(entry for entry in memory if entry.writer not in writers)


def worth(world: World, memory: Memory, *writers: int) -> float:
    """V with minus V without what all of these sessions wrote, after the last of them."""
    after = max(writers) + 1
    return value(world, memory, after) - value(world, without(memory, *writers), after)


def paths(world: World, memory: Memory, position: int) -> Iterator[Path]:
    """Every possible path from a position on."""
    if position == len(world):
        yield Path()
        return
    for outcome in outcomes(world[position], memory, position):
        for rest in paths(world, memory + outcome.wrote, position + 1):
            yield Path(
                probability=outcome.probability * rest.probability,
                memories=(memory, *rest.memories),
                outcomes=(outcome, *rest.outcomes),
            )


def states(world: World, writer: int) -> list[tuple[float, Memory]]:
    """Each memory that is possible after an ask of `writer`, with its probability; they add up to 1."""
    before: dict[Memory, float] = {}
    for path in paths(world[:writer], (), 0):
        end = path.memories[-1] + path.outcomes[-1].wrote if path.outcomes else ()
        before[end] = before.get(end, 0.0) + path.probability
    asked = changed(world[writer], ask=1.0, again=1.0)
    return [
        (probability * outcome.probability, memory + outcome.wrote)
        for memory, probability in before.items()
        for outcome in outcomes(asked, memory, writer)
    ]


@dataclass(slots=True)
class Learner:
    """Scores prefixes exactly. A prefix is a single id: the index of its question and memory in `kept`."""

    kept: list[tuple[Ask, Memory]] = field(default_factory=list)

    def prefix(self, one: Ask, memory: Memory) -> NDArray[np.int32]:
        self.kept.append((one, memory))
        return np.array([len(self.kept) - 1], np.int32)

    def score(self, prefix_id: int) -> TokenScores:
        one, memory = self.kept[prefix_id]
        exact = np.array([own_value(one, memory)]), np.array([asks(one, memory)])  # in float64, to compare at 1e-9
        zero = np.zeros(1, np.float32)
        return TokenScores(logprobs=zero, reference_logprobs=zero, own_values=exact[0], write_probabilities=exact[1])


def session_at(world: World, position: int, memory: Memory, wrote: Memory) -> Session:
    """What is known of a session but its rewards and prefixes. Questions with the same writes are on the same item."""
    same = tuple(
        p for p, one in enumerate(world) if p == position or (one.writes and one.writes == world[position].writes)
    )
    return changed(
        SESSION,
        position=position,
        stream_length=len(world),
        writes=tuple(MemoryUse(kind="qa", writer=position, similarity=1.0) for _ in wrote),
        known=any(entry.writer in same for entry in memory),
        same_item=same,
    )


def played(world: World, path: Path, start: int, learner: Learner) -> list[Session]:
    """The sessions of a path that starts at `start`, after sessions that read nothing."""
    held = path.memories[0] if path.memories else ()
    sessions = []
    for position in range(start):
        before = tuple(entry for entry in held if entry.writer < position)
        wrote = tuple(entry for entry in held if entry.writer == position)
        sessions.append(session_at(world, position, before, wrote))
    for position, memory, outcome in zip(range(start, len(world)), path.memories, path.outcomes, strict=True):
        receipt = Receipt(key="", price=outcome.paid, source="", latency_s=0.0, advice="", answer="")
        session = changed(
            session_at(world, position, memory, outcome.wrote),
            correct=outcome.correct,
            receipts=(receipt,),
            counterfactuals=tuple(imagined(world[position], memory, learner)),
        )
        sessions.append(session)
    return sessions


def imagined(one: Ask, memory: Memory, learner: Learner) -> Iterator[Counterfactual]:
    """The counterfactuals of a session, as the observer of a real one builds them."""
    useful = {entry.writer for entry in memory if entry.name in one.reads}
    writers = sorted(useful | {entry.writer for entry in memory if entry.name in one.idle})
    for group in [(writer,) for writer in writers] + ([tuple(writers)] if len(writers) > 1 else []):
        similarity = 1.0 if useful.issuperset(group) else one.similarity
        prefix = learner.prefix(one, without(memory, *group))
        yield Counterfactual(writers=group, similarity=similarity, prefix_ids=prefix)


def imagine(sessions: Sequence[Session], learner: Learner) -> list[linked.Imagined]:
    """The counterfactuals of collected sessions, scored."""
    prefixes = linked.prefixes(sessions, threshold=THRESHOLD)
    scores = [learner.score(int(prefix.token_ids[0])) for prefix in prefixes]
    return linked.imagine(sessions, scores, threshold=THRESHOLD)


Estimate = Callable[[Sequence[float], linked.Links], NDArray[np.float64]]
"""Own rewards and links to the A_i of every session."""


def by_links(rewards: Sequence[float], links: linked.Links) -> NDArray[np.float64]:
    """The estimate that is tested: linked credit."""
    return linked.linked(np.array(rewards), links)


def expected(
    world: World, memory: Memory, start: int, *, collected: int | None = None, estimate: Estimate = by_links
) -> NDArray[np.float64]:
    """The estimate of every session's credit, averaged over all that may happen from `start` on.

    Args:
        memory: what it holds before session `start`.
        collected: how many sessions of the stream are seen; all unless given.
    """
    total = 0.0
    for path in paths(world, memory, start):
        learner = Learner()
        sessions = played(world, path, start, learner)[:collected]
        links = linked.link(sessions, imagine(sessions, learner))
        total = total + path.probability * estimate([session.own_reward for session in sessions], links)
    return np.asarray(total)


def credit(
    world: World, memory: Memory, writer: int, *, collected: int | None = None, estimate: Estimate = by_links
) -> float:
    """E[A_i | what memory holds after i]."""
    return float(expected(world, memory, writer + 1, collected=collected, estimate=estimate)[writer])
