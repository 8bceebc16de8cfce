"""What imitation learns from: sessions that a teacher plays through the agent's own executor."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agile_ray.agent.environment import Environment, Question, taught_split
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.config import Imitation
from agile_ray.credit.gae import gae
from agile_ray.errors import StarvedError
from agile_ray.evaluation import failures
from agile_ray.scripted.search_rows import search_rows
from agile_ray.scripted.teacher import collector, teacher, unaided
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, Ending, Session

FIRST_STREAM = 1_000_000
"""Index of the teacher's first stream; PPO's lanes play those from 0 on."""
STREAMS = 32
"""Minimum number of episodes, so that a batch mixes memories of all sizes and, where streams are long, categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What imitation learns from the teacher's sessions."""

    batches: list[list[Demonstration]]  # in the order in which they are learned
    left_out: dict[str, int]  # number of sessions that are not learned, by reason


def lessons(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> Lessons:
    """Play the teacher's sessions. The same seed gives the same lessons.

    Args:
        config: the teacher, the number of its sessions, and sessions per batch.
        environment: provides the streams.
        rules: of the lanes; the gold expert replaces their expert.
        seed: root seed of the run.
        progress: called with the number of sessions played so far.

    Raises:
        StarvedError: more than a tenth of the sessions ran out of a budget or failed.
    """
    return asyncio.run(_lessons(config, environment, rules, seed=seed, progress=progress))


async def _lessons(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> Lessons:
    gold, split = config.answers == "gold", taught_split(environment)
    finite = environment.streams(split) is not None  # else facts are drawn anew: a repeat is another sample
    told: set[str] = set()  # questions whose gold answer is learned from an unaided session
    demonstrations: list[Demonstration] = []
    lost: list[Session] = []
    repeated = 0
    async for session, questions in _sessions(config, environment, rules, seed=seed, progress=progress):
        question = questions[session.position]
        tells = gold and unaided(session, questions)
        if session.ending is not Ending.DONE:
            lost.append(replace(session, turns=()))
        elif tells and finite and question.shown in told:
            repeated += 1
        else:
            # A gold answer is always right, so its reward says nothing about how well the question can be guessed. The
            # value to learn is what the likeliest answer earns. Sampled play earns less at first, the sum of squared
            # probabilities, which no question states; PPO moves it towards this value.
            learned = _without_slip(session, question, rules)
            demonstrations += _demonstrations(learned, worth=question.guess_probability if tells else 1.0)
            told |= {question.shown} if tells else set()
    if len(lost) > config.sessions // 10:
        raise StarvedError(_complaint(lost, config.sessions, rules))
    rows, missing = search_rows(config.search_rows, environment, rules, split=split, seed=seed)
    demonstrations += rows
    random.Random(derive(seed, "imitation", "order")).shuffle(demonstrations)
    return Lessons(
        batches=[demonstrations[start : start + config.batch] for start in range(0, len(demonstrations), config.batch)],
        left_out=_left_out(lost, repeated) | missing,
    )


async def _sessions(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> AsyncIterator[tuple[Session, Sequence[Question]]]:
    """Play the teacher's sessions, and yield each with the questions of its stream."""
    rules = replace(rules, expert=GoldExpert())  # no recorded run has played the teacher's streams
    policy, warm = teacher(config, environment, seed=seed), collector(environment)
    each = math.ceil(config.sessions / STREAMS)
    stream = FIRST_STREAM
    played = 0
    while played < config.sessions:
        lane = Lane(environment.stream(split=taught_split(environment), index=stream), rules)
        questions = lane.stream.questions
        count = min(each, config.sessions - played, len(questions))
        if random.Random(derive(seed, "imitation", "warm", stream)).random() < config.warm_share:
            await _warm(lane, count, warm)
        for _ in range(count):
            earlier = lane.memory.forget(lane.position)  # a session must not find what it will write itself
            session = await lane.play(policy)
            for entry in earlier:
                lane.memory.write(entry)
            yield session, questions
        played += count
        progress(played)
        stream += 1


def _complaint(lost: Sequence[Session], played: int, rules: Rules) -> str:
    cut_short = sum(session.ending is Ending.CUT for session in lost)
    if 2 * cut_short < len(lost):
        return f"imitation: {len(lost)} of {played} teacher sessions can't be learned{failures.summary(lost)}"
    return (
        f"imitation: {cut_short} of {played} teacher sessions ran out of agent.session_tokens "
        f"({rules.agent.session_tokens}), agent.turn_tokens ({rules.agent.turn_tokens}) or agent.turns "
        f"({rules.agent.turns}); raise them, or shorten memory.entry_tokens ({rules.memory.entry_tokens})"
    )


def _left_out(lost: Sequence[Session], repeated: int) -> dict[str, int]:
    counts = {
        "ran out of a budget": sum(session.ending is Ending.CUT for session in lost),
        "repeat a question whose answer is learned already": repeated,
    }
    return {reason: count for reason, count in counts.items() if count} | failures.reasons(lost)


async def _warm(lane: Lane, sessions: int, policy: Policy) -> None:
    """Fill the lane's memory with what a policy buys, then return to the start."""
    start = lane.position
    for _ in range(sessions):
        await lane.play(policy)
    lane.restore(replace(lane.state(), position=start))


def _without_slip(session: Session, question: Question, rules: Rules) -> Session:
    """The session as if the executor, not the policy, had written the wrong query: it is read, but not trained on."""
    if not question.wrong_query:
        return session
    tokenizer = rules.tokenizer
    words = tokenizer.encode(f" {question.wrong_query}")
    slip = np.array([tokenizer.function_id(rules.search_function), *words, tokenizer.eos_id])
    return replace(session, turns=tuple(one for one in session.turns if not np.array_equal(one.completion_ids, slip)))


def _demonstrations(session: Session, *, worth: float) -> list[Demonstration]:
    """Cut a session and add its returns.

    Args:
        worth: what a right answer counts in the returns, instead of 1.
    """
    segments = list(cut(session))
    rewards_A = np.concatenate([segment.rewards[segment.action_mask] for segment in segments]).astype(np.float32)
    rewards_A[rewards_A > 0] *= worth
    turn_ids_A = np.concatenate([segment.turn_ids[segment.action_mask] for segment in segments])
    # Without a critic and with lambda 1, advantages are the undiscounted returns.
    returns_A = gae(
        rewards_A,
        np.zeros_like(rewards_A),
        session_ids_A=np.zeros_like(turn_ids_A),
        turn_ids_A=turn_ids_A,
        gae_lambda=1.0,
    )
    ends = np.cumsum([segment.actions for segment in segments])[:-1]
    return [
        Demonstration(segment=segment, returns=returns, wrote=bool(session.writes))
        for segment, returns in zip(segments, np.split(returns_A, ends), strict=True)
    ]
