"""What imitation learns from: sessions that a teacher plays through the agent's own executor."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.config import Imitation
from agile_ray.credit.gae import gae
from agile_ray.errors import StarvedError
from agile_ray.evaluation import failures
from agile_ray.scripted.references import Habits, reference
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, Ending, Session

FIRST_STREAM = 1_000_000
"""Index of the teacher's first training stream; PPO's lanes play those from 0 on."""
STREAMS = 32
"""Minimum number of episodes, so that a batch mixes memories of all sizes and, where streams are long, categories."""


def batches(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    teacher: Policy,
    *,
    price: int,
    seed: int,
    progress: Callable[[int], None],
) -> list[list[Demonstration]]:
    """Play the teacher's sessions and return them as batches, in the order in which they are learned.

    The same seed gives the same batches.

    Args:
        config: numbers of sessions, and sessions per batch.
        environment: provides the training streams.
        rules: of the lanes; the gold expert replaces their expert.
        teacher: plays the sessions.
        price: of one ask, thousandths.
        seed: root seed of the run.
        progress: called with the number of sessions played so far.

    Raises:
        StarvedError: more than a tenth of the sessions ran out of a budget or failed.
    """
    return asyncio.run(_batches(config, environment, rules, teacher, price=price, seed=seed, progress=progress))


async def _batches(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    teacher: Policy,
    *,
    price: int,
    seed: int,
    progress: Callable[[int], None],
) -> list[list[Demonstration]]:
    rules = replace(rules, expert=GoldExpert())  # no recorded run has played the teacher's streams
    each = math.ceil(config.sessions / STREAMS)
    demonstrations: list[Demonstration] = []
    stream = FIRST_STREAM
    played = 0
    lost: list[Session] = []
    while played < config.sessions:
        lane = Lane(environment.stream(split="train", index=stream), rules, price=price)
        count = min(each, config.sessions - played, len(lane.stream.questions))
        if random.Random(derive(seed, "imitation", "warm", stream)).random() < config.warm_share:
            await _warm(lane, count, environment)
        for _ in range(count):
            earlier = lane.memory.forget(lane.position)  # a session must not find what it will write itself
            session = await lane.play(teacher)
            for entry in earlier:
                lane.memory.write(entry)
            if session.ending is Ending.DONE:
                demonstrations += _demonstrations(session)
            else:
                lost.append(replace(session, turns=()))
            played += 1
        progress(played)
        stream += 1
    if len(lost) > played // 10:
        raise StarvedError(_complaint(lost, played, rules))
    random.Random(derive(seed, "imitation", "order")).shuffle(demonstrations)
    return [demonstrations[start : start + config.batch] for start in range(0, len(demonstrations), config.batch)]


def _complaint(lost: Sequence[Session], played: int, rules: Rules) -> str:
    cut_short = sum(session.ending is Ending.CUT for session in lost)
    if 2 * cut_short < len(lost):
        return f"imitation: {len(lost)} of {played} teacher sessions can't be learned{failures.summary(lost)}"
    return (
        f"imitation: {cut_short} of {played} teacher sessions ran out of agent.session_tokens "
        f"({rules.agent.session_tokens}), agent.turn_tokens ({rules.agent.turn_tokens}) or agent.turns "
        f"({rules.agent.turns}); raise them, or shorten memory.entry_tokens ({rules.memory.entry_tokens})"
    )


async def _warm(lane: Lane, sessions: int, environment: Environment) -> None:
    """Fill the lane's memory by asking wherever neither memory nor the tool helps, then return to the start."""
    eager = reference("teacher", environment, Habits(asked_share=1.0))
    start = lane.position
    for _ in range(sessions):
        await lane.play(eager)
    lane.restore(replace(lane.state(), position=start))


def _demonstrations(session: Session) -> list[Demonstration]:
    segments = list(cut(session))
    rewards_A = np.concatenate([segment.rewards[segment.action_mask] for segment in segments]).astype(np.float32)
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
