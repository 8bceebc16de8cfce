"""Converts sessions to segments and back. Pure functions, no I/O."""

from collections.abc import Iterable, Iterator

import numpy as np

from agile_ray.types import NO_TURN, NO_VERSION, Ending, Segment, Session, Turn


def cut(session: Session) -> Iterator[Segment]:
    """Yield the session's segments in order; none if it failed or has no turns.

    A new segment starts at each turn whose prompt does not extend the tokens before it.
    """
    if session.ending is Ending.FAILED or not session.turns:
        return
    runs: list[list[tuple[int, Turn]]] = []
    seen = np.empty(0, dtype=np.int32)
    for number, turn in enumerate(session.turns):
        if runs and np.array_equal(turn.prompt_ids[: len(seen)], seen):
            runs[-1].append((number, turn))
        else:
            runs.append([(number, turn)])
        seen = np.concatenate([turn.prompt_ids, turn.completion_ids])
    for index, run in enumerate(runs):
        yield _join(session, index, run, last=index == len(runs) - 1)


def turns(segments: Iterable[Segment]) -> Iterator[Turn]:
    """Yield the turns that one session's segments were cut from, in order: the inverse of `cut`."""
    for segment in segments:
        for number in np.unique(segment.turn_ids[segment.action_mask]):
            indices = np.flatnonzero(segment.turn_ids == number)  # adjacent: one engine call wrote them
            written = slice(indices[0], indices[-1] + 1)
            yield Turn(
                prompt_ids=segment.token_ids[: indices[0]],
                completion_ids=segment.token_ids[written],
                logprobs=segment.behavior_logprobs[written],
                versions=segment.versions[written],
                rewards=segment.rewards[written],
                ask_probability=float(segment.ask_probabilities[indices[0]]),
            )


def _join(session: Session, index: int, run: list[tuple[int, Turn]], *, last: bool) -> Segment:
    _, final = run[-1]
    token_ids = np.concatenate([final.prompt_ids, final.completion_ids])
    action_mask = np.zeros(len(token_ids), dtype=np.bool_)
    behavior_logprobs = np.zeros(len(token_ids), dtype=np.float32)
    versions = np.full(len(token_ids), NO_VERSION, dtype=np.int32)
    turn_ids = np.full(len(token_ids), NO_TURN, dtype=np.int32)
    rewards = np.zeros(len(token_ids), dtype=np.float32)
    ask_probabilities = np.full(len(token_ids), np.nan, dtype=np.float32)
    for number, turn in run:
        written = slice(len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.completion_ids))
        action_mask[written] = True
        turn_ids[written] = number
        behavior_logprobs[written] = turn.logprobs
        versions[written] = turn.versions
        rewards[written] = turn.rewards
        ask_probabilities[written.start] = turn.ask_probability
    return Segment(
        stream=session.stream,
        position=session.position,
        index=index,
        token_ids=token_ids,
        action_mask=action_mask,
        turn_ids=turn_ids,
        behavior_logprobs=behavior_logprobs,
        versions=versions,
        rewards=rewards,
        ask_probabilities=ask_probabilities,
        last=last,
    )
