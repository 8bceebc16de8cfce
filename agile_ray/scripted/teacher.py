"""The scripted teacher: when it asks, what it answers where neither memory nor the tool helps, and what it plays."""

import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from agile_ray.agent.environment import Environment, Question, Stream, taught_split
from agile_ray.agent.expert import GoldExpert
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Policy
from agile_ray.agent.rules import Rules
from agile_ray.config import Imitation
from agile_ray.scripted.played import FIRST_STREAM, STREAMS, Played, no_fault, play
from agile_ray.scripted.reader import Scripted, best_guess, drawn_offer, needs_advice, read_answer, slips_at_random
from agile_ray.scripted.references import REFERENCES, Habits
from agile_ray.seeds import derive
from agile_ray.types import Session


def teacher(config: Imitation, environment: Environment, *, seed: int) -> Policy:
    """Build the teacher. Its draws depend only on (seed, stream, position). It asks either expert equally often."""
    habits = Habits(seed=seed, asked_share=config.asked_share, asking=config.asking)
    return Scripted(
        REFERENCES["teacher"](habits),
        search_function=environment.search_function,
        guess=_gold if config.answers == "gold" else best_guess,
        slips=slips_at_random(config.wrong_queries, seed=seed),
        whom=drawn_offer(seed),
    )


def collector(environment: Environment) -> Policy:
    """Build the policy of warm passes: it asks wherever neither memory nor the tool helps.

    It buys no answers to searches: memory would fill with product ids, which no later question needs.
    """
    return Scripted(needs_advice, search_function=environment.search_function, guess=best_guess)


def unaided(session: Session, questions: Sequence[Question]) -> bool:
    """Whether a teacher's session answered without advice, memory or tool.

    Args:
        session: played by the teacher.
        questions: of its stream.
    """
    question = questions[session.position]
    return not (session.receipts or question.query or read_answer(session.reads, question, questions))


async def teach(
    config: Imitation,
    environment: Environment,
    rules: Rules,
    *,
    seed: int,
    progress: Callable[[int], None],
    fault: Callable[[Session], str] = no_fault,
) -> AsyncIterator[Played]:
    """Play the teacher's sessions, and before some episodes a pass that fills memory and is not learned.

    Args:
        config: the teacher, and the number of its sessions.
        environment: provides the streams.
        rules: of the lanes; the gold expert replaces their expert, since no recorded run has played these streams.
        seed: root seed of the run.
        progress: called with the number of sessions played so far.
        fault: why a session is refused; "" if it is not.
    """
    rules = replace(rules, expert=GoldExpert())
    policy, warm = teacher(config, environment, seed=seed), collector(environment)
    played = 0
    for index, stream, count in episodes(config, environment):
        lane = Lane(stream, rules)
        if random.Random(derive(seed, "imitation", "warm", index)).random() < config.warm_share:
            for _ in range(count):
                yield await play(lane, warm, stream=index, learned=False, fault=fault)
            lane.restore(replace(lane.state(), position=0))
        for _ in range(count):
            yield await play(lane, policy, stream=index, fault=fault)
        played += count
        progress(played)


def episodes(config: Imitation, environment: Environment) -> Iterator[tuple[int, Stream, int]]:
    """What the teacher plays: index of a stream, the stream, and how many of its questions, from the first on."""
    each = math.ceil(config.played / STREAMS)
    left = config.played
    for index in itertools.count(FIRST_STREAM):
        if not left:
            return
        stream = environment.stream(split=taught_split(environment), index=index)
        count = min(each, left, len(stream.questions))
        left -= count
        yield index, stream, count


def _gold(question: Question) -> str:
    """The right answer, except where the tool refused the gold query: nobody knows a table's rows by heart."""
    return question.guess if question.query else question.answer
