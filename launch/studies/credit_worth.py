"""Compares the credit that asks on the shop received in training with their worth.

Reads the sessions that finished runs were trained on. Where memory lacked the answer, an ask makes it known. Its worth
is the own reward that later sessions of the same policy gain from it until one of them asks again:

    A = sum over j < N of (1 - p)^j * (r - [p (1 - c) + (1 - p) g])

    N   later questions on the item
    p   probability of an ask where memory lacks the answer: the share among questions with the same g
    g   probability that a guess is right, which the shop knows
    r   mean reward of the sessions whose answer memory held
    c   price of one ask

p and r are means over all seeds and iterations that are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from statistics import fmean

from agile_ray.agent.environment import Question
from agile_ray.errors import ConfigError
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.scripted.optimum import without_tool
from envs.shop import Shop
from launch.report.console import plain_console
from launch.report.plain_table import plain_table
from launch.studies.shop_runs import CREDIT_MODE, finished, kind

GUESS_RANGES = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 1.0))
"""Ranges of g that share a line: open questions, then yes-or-no questions by how predictable their answers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedSession:
    """A session that was trained on, of a question that the tool does not answer."""

    guess_probability: float  # g
    later: int  # N
    known: bool  # memory held the answer
    asked: bool
    reward: float  # its own
    credit: float  # A_i as it was given


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditLine:
    """Means over sessions with similar g whose answer memory lacked."""

    guess_range: tuple[float, float]
    sessions: int
    asked_share: float
    asks: int
    credit: float | None  # per ask; None: no session asked
    worth: float | None  # per ask; None: no session asked, or memory held no answer


def report(folder: Path, *, last: int) -> None:
    """Print credit and worth by price, credit mode and range of g.

    Args:
        folder: of a sweep's runs on the shop.
        last: iterations of each run, counted from its end.

    Raises:
        ConfigError: no run is finished, or the runs can't be compared.
    """
    runs = finished(folder, CREDIT_MODE)
    if not runs:
        raise ConfigError(f"{folder}: holds no finished run; `agile-ray sweep credit` trains them")
    titles = ("price", "credit", "guess right", "sessions", "asked", "asks", "credited", "worth")
    table = plain_table(*titles, left=("credit",))
    for _, group in groupby(runs, key=lambda run: kind(run[1], CREDIT_MODE)):
        members = list(group)
        config = members[0][1]
        sessions = [one for run, own in members for one in credited(run, seed=own.seed, last=last)]
        for line in lines(sessions, price=config.env.price / 1000):
            table.add_row(
                f"{config.env.price / 1000:g}",
                config.credit.mode,
                f"{line.guess_range[0]:g} to {line.guess_range[1]:g}",
                str(line.sessions),
                f"{line.asked_share:.3f}",
                str(line.asks),
                *("–" if value is None else f"{value:+.2f}" for value in (line.credit, line.worth)),
            )
    plain_console(width=120).print(table)


def credited(run: RunFolder, *, seed: int, last: int) -> list[CreditedSession]:
    """The sessions of a run's last iterations.

    Args:
        run: its folder.
        seed: of the run.
        last: how many iterations.

    Raises:
        ConfigError: another version stored the sessions.
    """
    iterations = run.stored_iterations()[-last:]
    return [one for iteration in iterations for one in _iteration(run, iteration, seed)]


def _iteration(run: RunFolder, iteration: int, seed: int) -> list[CreditedSession]:
    credit: dict[tuple[str, int], float] = {}
    for line in store.table(run, iteration).select(["stream", "position", "credit"]).to_pylist():
        session_key = line["stream"], line["position"]
        credit[session_key] = credit.get(session_key, 0.0) + (line["credit"] or 0.0)
    found = []
    for session in store.outcomes(run, iteration):
        guessable = _guessable(session.stream, seed)
        if session.position in guessable and session.error is None:
            question, later = guessable[session.position]
            found.append(
                CreditedSession(
                    guess_probability=question.guess_probability,
                    later=later,
                    known=session.hindsight.known,
                    asked=session.asks > 0,
                    reward=session.own_reward,
                    credit=credit[session.stream, session.position],
                )
            )
    return found


@cache
def _guessable(stream: str, seed: int) -> dict[int, tuple[Question, int]]:
    """By position: the questions that the tool does not answer, and the number of later ones on the same item."""
    questions = Shop(seed=seed).stream(split="train", index=int(stream.rpartition("/")[2])).questions
    return {position: (question, later) for position, question, later in without_tool(questions)}


def lines(sessions: Sequence[CreditedSession], *, price: float) -> list[CreditLine]:
    """Credit and worth of asks by range of g; a range without sessions is left out.

    Args:
        price: of one ask, in units of the reward for a right answer.
    """
    known_rewards = [one.reward for one in sessions if one.known]
    known_reward = fmean(known_rewards) if known_rewards else None
    lacking = [one for one in sessions if not one.known]
    share = {
        chance: fmean(one.asked for one in lacking if one.guess_probability == chance)
        for chance in {one.guess_probability for one in lacking}
    }
    found = []
    for low, high in GUESS_RANGES:
        in_range = [one for one in lacking if low <= one.guess_probability < high]
        asks = [one for one in in_range if one.asked]
        if not in_range:
            continue
        worths = [
            worth(one, share=share[one.guess_probability], known_reward=known_reward, price=price)
            for one in asks
            if known_reward is not None
        ]
        found.append(
            CreditLine(
                guess_range=(low, high),
                sessions=len(in_range),
                asked_share=len(asks) / len(in_range),
                asks=len(asks),
                credit=fmean(one.credit for one in asks) if asks else None,
                worth=fmean(worths) if worths else None,
            )
        )
    return found


def worth(ask: CreditedSession, *, share: float, known_reward: float, price: float) -> float:
    """A of one ask, in units of the reward for a right answer; the formula is in the module's docstring.

    Args:
        share: p.
        known_reward: r.
        price: c.
    """
    without = share * (1 - price) + (1 - share) * ask.guess_probability
    return sum((1 - share) ** earlier for earlier in range(ask.later)) * (known_reward - without)
