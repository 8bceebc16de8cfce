"""The tokens of one part of a session, each with its text and what is stored of it.

Dimensions: T = tokens of one segment, A = its action tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agile_ray.agent.tokenizer import Tokenizer
from agile_ray.record.store import StoredSegment
from agile_ray.types import Float32
from launch.report.look.parts import POLICY, Part

PARTIAL = "\N{REPLACEMENT CHARACTER}"
"""What bytes that end inside a character decode to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token. Of what the policy read, only the text is known; what is not stored is None."""

    text: str  # "" if the next token completes a character
    logprob: float | None = None  # nats, under the version that sampled it
    learner_logprob: float | None = (
        None  # nats, of the learner before the update; this and what follows: if it is stored
    )
    reference_logprob: float | None = None  # nats, of the policy after imitation
    value: float | None = None  # the critic's estimate before the token, of own rewards from there on
    write_probability: float | None = None  # before the token, that the session writes to memory
    advantage: float | None = None  # whitened over the update
    reward: float | None = None  # own reward at the token
    version: int | None = None  # of the policy


def tokens(line: StoredSegment, part: Part, tokenizer: Tokenizer) -> list[Token]:
    """The tokens of a part.

    Args:
        line: the segment that holds it.
        part: of the session.
        tokenizer: of the run.
    """
    segment = line.segment
    assert segment is not None
    start, end = part.tokens
    texts = list(pieces(segment.token_ids[start:end].tolist(), tokenizer))
    if part.who != POLICY:
        return [Token(text=text) for text in texts]
    first = int(segment.action_mask[:start].sum())  # action tokens before the part
    scores = line.scores

    def at(values_A: Float32 | None, index: int) -> float | None:
        return None if values_A is None else known(values_A[first + index])

    return [
        Token(
            text=text,
            logprob=known(segment.behavior_logprobs[start + index]),
            learner_logprob=at(scores and scores.logprobs, index),
            reference_logprob=at(scores and scores.reference_logprobs, index),
            value=at(scores and scores.own_values, index),
            write_probability=at(scores and scores.write_probabilities, index),
            advantage=at(line.advantages, index),
            reward=known(segment.rewards[start + index]),
            version=int(segment.versions[start + index]),
        )
        for index, text in enumerate(texts)
    ]


def known(value: float | np.floating) -> float | None:
    """A number for JSON, which has neither NaN nor infinity: None."""
    return float(value) if np.isfinite(value) else None


def pieces(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text that each token adds; together they are the text of all.

    A token alone may decode to other text than after its predecessors, and may end inside a character, whose text then
    comes with the token that completes it.
    """
    start, said = 0, 0  # the text of the tokens from `start` to before `said` is known
    for index in range(len(ids)):
        before = tokenizer.decode(ids[start:said])
        text = tokenizer.decode(ids[start : index + 1])
        last = index == len(ids) - 1
        if text.endswith(PARTIAL) and not last:
            yield ""
            continue
        yield text[len(before) :]
        start, said = said, index + 1
