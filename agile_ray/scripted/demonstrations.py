"""What imitation learns from: sessions that the environment's teacher plays through the agent's own executor."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agile_ray.agent.environment import Environment
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.lane import Lane, Rules
from agile_ray.agent.policy import Policy
from agile_ray.config import Imitation
from agile_ray.credit.gae import gae
from agile_ray.errors import StarvedError
from agile_ray.scripted.references import Habits, reference
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, Ending, Session

FIRST_STREAM = 1_000_000
"""Training streams from this index on belong to the teacher; PPO's lanes play those from 0 on."""
STREAMS = 32
"""At least this many episodes, so that a batch mixes memories of all sizes and, where streams are long, categories."""


def batches(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    teacher: Policy,
    *,
    seed: int,
    discount: float,
    progress: Callable[[int], None],
) -> list[list[Demonstration]]:
    """The same batches for the same seed, in the order in which they are learned.

    Args:
        discount: of later rewards, per action token.
        progress: told the number of sessions played so far.

    Raises:
        StarvedError: a teacher's session did not end as it should; the environment or the budgets are wrong.
    """
    return asyncio.run(_batches(config, environment, rules, teacher, seed=seed, discount=discount, progress=progress))


async def _batches(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    teacher: Policy,
    *,
    seed: int,
    discount: float,
    progress: Callable[[int], None],
) -> list[list[Demonstration]]:
    rules = replace(rules, expert=GoldExpert())  # no recorded run has met the teacher's streams
    each = math.ceil(config.sessions / STREAMS)
    demonstrations: list[Demonstration] = []
    stream = FIRST_STREAM
    played = cut_short = 0
    while played < config.sessions:
        lane = Lane(environment.stream(split="train", index=stream), rules)
        count = min(each, config.sessions - played, len(lane.stream.questions))
        if random.Random(derive(seed, "imitation", "warm", stream)).random() < config.warm_share:
            await _warm(lane, count, environment)
        for _ in range(count):
            earlier = lane.memory.forget(lane.position)  # no session finds, or is told of, what it will write itself
            session = await lane.play(teacher)
            for entry in earlier:
                lane.memory.write(entry)
            if session.ending is Ending.DONE:
                demonstrations += _demonstrations(session, discount=discount)
            else:
                cut_short += 1
            played += 1
        progress(played)
        stream += 1
    if cut_short > played // 10:
        raise StarvedError(
            f"imitation: {cut_short} of {played} teacher sessions ran out of agent.session_tokens "
            f"({rules.agent.session_tokens}), agent.turn_tokens ({rules.agent.turn_tokens}) or agent.turns "
            f"({rules.agent.turns}); raise them, or shorten memory.entry_tokens ({rules.memory.entry_tokens})"
        )
    random.Random(derive(seed, "imitation", "order")).shuffle(demonstrations)
    return [demonstrations[start : start + config.batch] for start in range(0, len(demonstrations), config.batch)]


async def _warm(lane: Lane, sessions: int, environment: Environment) -> None:
    """Fill the memory as one does who asks wherever neither memory nor the tool helps, and go back to the start."""
    eager = reference("teacher", environment, Habits(asked_share=1.0))
    start = lane.position
    for _ in range(sessions):
        await lane.play(eager)
    lane.restore(replace(lane.state(), position=start))


def _demonstrations(session: Session, *, discount: float) -> list[Demonstration]:
    segments = list(cut(session))
    rewards_A = np.concatenate([segment.rewards[segment.action_mask] for segment in segments]).astype(np.float32)
    turn_ids_A = np.concatenate([segment.turn_ids[segment.action_mask] for segment in segments])
    # With no critic and lambda 1, advantages are the returns.
    returns_A = gae(
        rewards_A,
        np.zeros_like(rewards_A),
        session_ids_A=np.zeros_like(turn_ids_A),
        turn_ids_A=turn_ids_A,
        discount=discount,
        decay=1.0,
    )
    ends = np.cumsum([segment.actions for segment in segments])[:-1]
    return [
        Demonstration(segment=segment, returns=returns, wrote=bool(session.writes))
        for segment, returns in zip(segments, np.split(returns_A, ends), strict=True)
    ]
