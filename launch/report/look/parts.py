"""The parts of a session: stretches of tokens that one side wrote, with what is stored of them.

Dimensions: T = tokens of one segment, A = its action tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agile_ray.agent.functions import ASKS, Function
from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.record.store import StoredSegment
from agile_ray.types import NO_TURN, Float32, Mask
from launch.report.look.stored import Stored

WRITERS = {
    Function.GET_QUESTION: "question",
    Function.RETRIEVE_MEMORY: "memory",
    Function.SEARCH_PRODUCT: "tool",
    Function.SEARCH: "tool",
    **dict.fromkeys(ASKS, "expert"),
}
"""Who answers a function."""
POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One turn of the policy, or what it read between two turns."""

    who: str  # "policy", "question", "memory", "tool", "expert" or "executor"
    text: str
    segment: int
    tokens: tuple[int, int]  # the first of its tokens in the segment, and the one after its last
    logprob: float | None = None  # nats, of the whole turn; this and the following ones are None for what was read
    ask_probability: float | None = None  # at the turn's first token
    value: float | None = None  # the critic's estimate before the turn, of own rewards from there on
    write_probability: float | None = None  # before the turn, that the session writes to memory
    advantage: float | None = None  # whitened, mean over the turn's tokens
    reward: float | None = None  # own reward of the turn
    versions: tuple[int, int] | None = None  # of the policy, the lowest and the highest
    decides: bool = False  # the turn holds the token that decided whether the session writes: credit lands on it


def parts(stored: Stored, tokenizer: Tokenizer) -> list[Part]:
    """The parts of a session in order; [] if its tokens are not stored."""
    found: list[Part] = []
    before = 0  # action tokens of earlier segments
    for line in stored.segments:
        if line.segment is not None:
            found += _parts(line, tokenizer, before=before, decided=stored.session.hindsight.decided_after)
            before += line.segment.actions
    return found


def _parts(line: StoredSegment, tokenizer: Tokenizer, *, before: int, decided: int) -> Iterator[Part]:
    segment = line.segment
    assert segment is not None
    edges = np.flatnonzero(np.diff(segment.turn_ids)) + 1
    who, calls = "executor", list[Function]()  # that the policy has written since it last read something
    for indices in np.split(np.arange(len(segment.token_ids)), edges):
        text = tokenizer.decode(segment.token_ids[indices].tolist())
        ends = (int(indices[0]), int(indices[-1]) + 1)
        if segment.turn_ids[indices[0]] == NO_TURN:
            if text:
                yield Part(who=who, text=text, segment=segment.index, tokens=ends)
            calls.clear()
            continue
        actions_A = np.isin(np.flatnonzero(segment.action_mask), indices)
        number = before + int(segment.action_mask[: indices[0]].sum())
        asked = float(segment.ask_probabilities[indices[0]])
        versions = segment.versions[indices]
        yield Part(
            who=POLICY,
            text=text,
            segment=segment.index,
            tokens=ends,
            logprob=float(segment.behavior_logprobs[indices].sum()),
            ask_probability=None if np.isnan(asked) else asked,
            value=_first(line.scores.own_values if line.scores else None, actions_A),
            write_probability=_first(line.scores.write_probabilities if line.scores else None, actions_A),
            advantage=None if line.advantages is None else float(line.advantages[actions_A].mean()),
            reward=float(segment.rewards[indices].sum()),
            versions=(int(versions.min()), int(versions.max())),
            decides=number < decided <= number + len(indices),
        )
        written = [tokenizer.function_at(token) for token in segment.token_ids[indices].tolist()]
        calls += [function for function in written if function is not None]
        last = written[-1]
        if last is None and not (calls and calls[-1] in ASKS):
            who = "tool"  # an end token follows a query, or the words of an ask
        else:
            who = WRITERS.get(last or calls[-1], "executor")


def _first(values_A: Float32 | None, chosen_A: Mask) -> float | None:
    """Value at the first of the chosen action tokens."""
    return None if values_A is None else float(values_A[chosen_A][0])


def lacks(stored: Stored, *, trained: bool) -> list[str]:
    """What is not stored of a session, and why.

    Args:
        stored: the session.
        trained: it is one of an iteration.
    """
    segments = [line.segment for line in stored.segments if line.segment is not None]
    if not segments:
        return [
            "no tokens: a script played it, it failed before its first turn, or a version before schema 4 stored it"
        ]
    found = []
    if all(np.isnan(one.ask_probabilities).all() for one in segments):
        found.append("no probability of asking: versions before schema 4 do not store it")
    if not trained:
        found.append("no values, advantages or credit: an evaluation computes none")
    elif not any(line.trained for line in stored.segments):
        found.append("no values, advantages or credit: the session was not trained on")
    elif all(line.scores is None for line in stored.segments):
        found.append("no values and advantages: versions before schema 4 do not store them")
    return found
