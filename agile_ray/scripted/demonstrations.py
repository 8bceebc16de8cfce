"""What imitation learns from: sessions of a teacher, a script or a file, played through the agent's own executor."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agile_ray.agent.environment import Environment, taught_split
from agile_ray.agent.rules import Rules
from agile_ray.config import Imitation
from agile_ray.credit.gae import gae
from agile_ray.errors import ConfigError, StarvedError
from agile_ray.evaluation import failures
from agile_ray.scripted.demonstration_file import Refused
from agile_ray.scripted.demonstration_player import play_file
from agile_ray.scripted.played import Played
from agile_ray.scripted.search_rows import search_rows
from agile_ray.scripted.teacher import episodes, teach, unaided
from agile_ray.seeds import derive
from agile_ray.segments import cut
from agile_ray.types import Demonstration, Ending, Session

NAMED = 5
"""Refused lines of a file that an error names; after so many, the rest is not played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What imitation learns."""

    batches: list[list[Demonstration]]  # in the order in which they are learned
    left_out: dict[str, int]  # number of sessions that are not learned, by reason


def lessons(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
    skip_bad: bool = False,
) -> Lessons:
    """Play the sessions of the teacher. The same seed gives the same lessons.

    Args:
        config: the teacher and the number of its sessions, or the file of them; and sessions per batch.
        environment: provides the streams.
        rules: of the lanes; the gold expert replaces their expert.
        seed: root seed of the run.
        progress: called with the number of sessions played so far.
        skip_bad: leave out the lines of a file that can't be played, and count them.

    Raises:
        StarvedError: more than a tenth of the script's sessions ran out of a budget or failed.
        ConfigError: the file can't be read, or lines of it can't be played; names the first ones.
    """
    return asyncio.run(_lessons(config, environment, rules, seed=seed, skip_bad=skip_bad, progress=progress))


def may_repeat(config: Imitation, environment: Environment) -> bool:
    """Whether the script plays a question twice, so that only its sessions tell how many of them are left out."""
    if not _learned_once(config, environment):
        return False
    shown = [one.shown for _, stream, count in episodes(config, environment) for one in stream.questions[:count]]
    return len({*shown}) < len(shown)


def _learned_once(config: Imitation, environment: Environment) -> bool:
    """Whether a gold answer is learned once; not where streams never end, whose facts are drawn anew each time."""
    return config.answers == "gold" and environment.streams(taught_split(environment)) is not None


async def _lessons(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    skip_bad: bool,
    progress: Callable[[int], None],
) -> Lessons:
    split = taught_split(environment)
    once = _learned_once(config, environment)
    told: set[str] = set()  # questions whose gold answer is learned from an unaided session
    demonstrations: list[Demonstration] = []
    lost: list[Session] = []
    refused: list[Refused] = []
    repeated = 0
    async for played in _played(config, environment, rules, seed=seed, progress=progress):
        if isinstance(played, Refused):
            refused.append(played)
            if len(refused) == NAMED and not skip_bad:
                break
        elif played.learned:
            session, question = played.session, played.question
            tells = config.answers == "gold" and unaided(session, played.questions)
            if session.ending is not Ending.DONE:
                lost.append(replace(session, turns=()))
            elif tells and once and question.shown in told:
                repeated += 1
            else:
                # A gold answer is always right, so its reward says nothing about how well the question can be guessed.
                # The value to learn is what the likeliest answer earns. Sampled play earns less at first, the sum of
                # squared probabilities, which no question states; PPO moves it towards this value.
                worth = question.guess_probability if tells else 1.0
                demonstrations += _demonstrations(played.without_slips, worth=worth)
                told |= {question.shown} if tells else set()
    if len(lost) > config.played // 10:
        raise StarvedError(_complaint(lost, config.played, rules))
    if config.demonstrations is not None:
        _check(config.demonstrations, refused, skip_bad=skip_bad, learned=len(demonstrations))
    rows, missing = search_rows(config.search_rows, environment, rules, split=split, seed=seed)
    demonstrations += rows
    random.Random(derive(seed, "imitation", "order")).shuffle(demonstrations)
    return Lessons(
        batches=[demonstrations[start : start + config.batch] for start in range(0, len(demonstrations), config.batch)],
        left_out=_left_out(lost, repeated, refused) | missing,
    )


async def _played(
    config: Imitation, environment: Environment, rules: Rules, *, seed: int, progress: Callable[[int], None]
) -> AsyncIterator[Played | Refused]:
    """Play the sessions: those of the file, if the configuration names one, else those of the scripted teacher."""
    file = config.demonstrations
    if file is None:
        async for played in teach(config, environment, rules, seed=seed, progress=progress):
            yield played
        return
    number = 0
    async for found in play_file(file, environment, rules):
        yield found
        number += 1
        progress(number)


def _check(file: Path, refused: Sequence[Refused], *, skip_bad: bool, learned: int) -> None:
    """Refuse a file with wrong lines, unless they may be left out and others remain.

    Raises:
        ConfigError: names the first wrong lines.
    """
    lines = "; ".join(f"{file}:{one.line}: {one.reason}" for one in refused[:NAMED])
    if refused and not skip_bad:
        raise ConfigError(f"{lines}; mend or remove them and others like them, or set env.skip_bad=true")
    if refused and not learned:
        raise ConfigError(f"{lines}; no session is left to learn; mend these lines and others like them")
    if not learned:
        raise ConfigError(f"{file}: imitation.sessions: the file must hold at least one session to learn, found none")


def _complaint(lost: Sequence[Session], played: int, rules: Rules) -> str:
    cut_short = sum(session.ending is Ending.CUT for session in lost)
    if 2 * cut_short < len(lost):
        return f"imitation: {len(lost)} of {played} teacher sessions can't be learned{failures.summary(lost)}"
    return (
        f"imitation: {cut_short} of {played} teacher sessions ran out of agent.session_tokens "
        f"({rules.agent.session_tokens}), agent.turn_tokens ({rules.agent.turn_tokens}) or agent.turns "
        f"({rules.agent.turns}); raise them, or shorten memory.entry_tokens ({rules.memory.entry_tokens})"
    )


def _left_out(lost: Sequence[Session], repeated: int, refused: Sequence[Refused]) -> dict[str, int]:
    counts = {
        "ran out of a budget": sum(session.ending is Ending.CUT for session in lost),
        "repeat a question whose answer is learned already": repeated,
    }
    reasons = failures.joined((f"lines refused: {one.reason.partition(';')[0]}", 1) for one in refused)
    return {reason: count for reason, count in counts.items() if count} | failures.reasons(lost) | reasons


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
