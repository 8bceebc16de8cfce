"""Reference policies to compare a run with. All answer through the scripted reader; they differ in when they ask.

always_ask          every question
always_colleague    every question, of the second expert
never_ask           none
random              each question with the same probability
non_adaptive        the first K questions of a stream
ask_unless_search   every question that the tool can't answer, even if memory can
oracle              the optimum (scripted/optimum.py): knows all questions to come, the price and how often advice is
                    right, but not whether a guess or a piece of advice is right; of two experts it asks the one that
                    gains more
yes_gold_sql        none; predicts "yes" where the tool can't answer
teacher             as the teacher of imitation asks: at random, or by judgement where neither memory nor the tool helps
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from agile_ray.agent.environment import Environment, Question
from agile_ray.agent.functions import Function
from agile_ray.agent.lane import Lane
from agile_ray.agent.policy import Policy, SessionView
from agile_ray.agent.rules import Rules
from agile_ray.errors import ConfigError
from agile_ray.evaluation.plays import Play
from agile_ray.scripted.optimum import gain_of_asking
from agile_ray.scripted.reader import (
    Asker,
    Chooser,
    Scripted,
    as_met,
    at_random,
    best_guess,
    by_judgement,
    drawn_offer,
    first_offer,
    has_tool,
    needs_advice,
)
from agile_ray.types import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Parameters of the reference policies."""

    seed: int = 0
    asked_share: float = 0.25  # probability of an ask, of `random` and of the random `teacher`
    first: int = 0  # K of `non_adaptive`
    asking: Literal["random", "judgement"] = "random"  # of `teacher`


def _always(view: SessionView) -> bool:
    del view
    return True


def _never(view: SessionView) -> bool:
    del view
    return False


def _unless_search(view: SessionView) -> bool:
    return not has_tool(view)


_FORGETS = frozenset({Function.RETRIEVE_MEMORY, Function.UPDATE_MEMORY})
"""Without one of these, advice is used once."""


def _oracle(view: SessionView) -> bool:
    return needs_advice(view) and not as_met(view).query and _gains(view)[_best_offer(view)] > 0


def _best_offer(view: SessionView) -> Function:
    """Whose advice gains most at first sight; of equal ones the first."""
    gains = _gains(view)
    return max(gains, key=lambda function: gains[function])


def _gains(view: SessionView) -> dict[Function, float]:
    left = view.stream.questions[view.position : view.sessions]
    uses = 1 if _FORGETS & frozenset(view.barred) else sum(question.item == view.question.item for question in left)
    return {
        function: gain_of_asking(view.question, uses=uses, price=offer.price, reliability=offer.reliability)
        for function, offer in view.offers.items()
    }


def _colleague(view: SessionView) -> Function:
    return Function.ASK_COLLEAGUE if Function.ASK_COLLEAGUE in view.offers else first_offer(view)


def _random(habits: Habits) -> Asker:
    return at_random(habits.asked_share, seed=habits.seed)


def _teacher(habits: Habits) -> Asker:
    if habits.asking == "judgement":
        return by_judgement
    return _random(habits)


REFERENCES: dict[str, Callable[[Habits], Asker]] = {
    "always_ask": lambda _: _always,
    "always_colleague": lambda _: _always,
    "never_ask": lambda _: _never,
    "random": _random,
    "non_adaptive": lambda habits: lambda view: view.position < habits.first,
    "ask_unless_search": lambda _: _unless_search,
    "oracle": lambda _: _oracle,
    "yes_gold_sql": lambda _: _never,
    "teacher": _teacher,
}
"""When each policy asks."""


def reference(name: str, environment: Environment, habits: Habits) -> Policy:
    """Build a reference policy by its name.

    Raises:
        ConfigError: no such policy.
    """
    if name not in REFERENCES:
        raise ConfigError(f"policy: one of {', '.join(REFERENCES)}; found {name}")
    guess = _yes if name == "yes_gold_sql" else best_guess
    whom: dict[str, Chooser] = {
        "always_colleague": _colleague,
        "oracle": _best_offer,
        "random": drawn_offer(habits.seed),
        "teacher": drawn_offer(habits.seed),
    }
    return Scripted(
        REFERENCES[name](habits), search_function=environment.search_function, guess=guess, whom=whom.get(name)
    )


def _yes(question: Question) -> str:
    del question
    return "yes"


def play_sessions(
    policy: Policy, environment: Environment, *, split: str, plays: Iterable[Play], rules: Rules
) -> list[Session]:
    """Play the streams of an evaluation one after the other, without engine or Ray.

    The same call returns the same sessions.

    Args:
        policy: plays the sessions.
        environment: provides the streams.
        split: the streams' split.
        plays: which streams, and how many sessions of each.
        rules: of the lanes: the expert, embedder, tokenizer, budgets and prices of the compared run.
    """

    async def play() -> list[Session]:
        sessions: list[Session] = []
        for chosen in plays:
            stream = environment.stream(split=split, index=chosen.index)
            lane = Lane(stream, rules, sessions=chosen.sessions)
            sessions += [await lane.play(policy) for _ in range(chosen.sessions)]
        return sessions

    return asyncio.run(play())
