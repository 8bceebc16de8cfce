"""What asks on the shop were credited in training, beside what they were worth.

    python -m benchmarks.credit_worth                     finished runs in runs/credit
    python -m benchmarks.credit_worth FOLDER --last 8     another sweep's; the last eight iterations of each run

Nothing is trained and no engine starts: the sessions that were trained on are read from the runs' folders. Of those
whose answer memory lacked, one that asks makes the answer known. What that is worth to the sessions behind it, with the
policy as it was, is their difference in own reward, as long as nobody else has asked:

    A = sum over j < N of (1 - p)^j * (r - [p (1 - c) + (1 - p) g])

N later questions are on the item; without the answer each is asked for with chance p, else guessed, right with chance
g, which the shop knows; with it, it earns r. p is the share that asked among questions with the same g, r the mean of
the sessions whose answer memory held, both over all seeds and iterations looked at.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from agile_ray.agent.environment import Question
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from envs.shop import Shop
from launch.studies.shop_optimum import with_later
from launch.studies.shop_runs import Compare, finished

CHANCES = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 1.0))
"""Chances of a guess that stand in one line: open questions, then closed ones by how lopsided their answers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A session that was trained on, of a question that the tool does not answer."""

    guess_chance: float  # g
    later: int  # N
    known: bool  # memory held the answer
    asked: bool
    reward: float  # own
    credit: float  # A_i as it was given


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Sessions with like chances whose answer memory lacked; means."""

    chances: tuple[float, float]
    sessions: int
    asked_share: float
    asks: int
    credit: float | None  # of an ask; None: there was none
    worth: float | None


def played(run: RunFolder, *, seed: int, last: int) -> list[Played]:
    """What a run played in its last iterations.

    Raises:
        ConfigError: a segment file is another version's.
    """
    iterations = run.stored_iterations()[-last:]
    return [one for iteration in iterations for one in _iteration(run, iteration, seed)]


def _iteration(run: RunFolder, iteration: int, seed: int) -> list[Played]:
    credit: dict[tuple[str, int], float] = {}
    for row in store.table(run, iteration).select(["stream", "position", "credit"]).to_pylist():
        place = row["stream"], row["position"]
        credit[place] = credit.get(place, 0.0) + (row["credit"] or 0.0)
    found = []
    for session in store.outcomes(run, iteration):
        guessable = _guessable(session.stream, seed)
        if session.position in guessable and session.error is None:
            question, later = guessable[session.position]
            found.append(
                Played(
                    guess_chance=question.guess_chance,
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
    """By place, the questions that the tool does not answer, and how many behind each are on its item."""
    questions = Shop(seed=seed).stream(split="train", index=int(stream.rpartition("/")[2])).questions
    return {place: (question, later) for place, question, later in with_later(questions)}


def lines(sessions: Iterable[Played], *, price: float) -> list[Line]:
    """What asks were credited and worth, by chances; chances that never occurred are left out."""
    sessions = list(sessions)
    held = [one.reward for one in sessions if one.known]
    lacking = [one for one in sessions if not one.known]
    share = {
        chance: fmean(one.asked for one in lacking if one.guess_chance == chance)
        for chance in {one.guess_chance for one in lacking}
    }
    found = []
    for chances in CHANCES:
        alike = [one for one in lacking if chances[0] <= one.guess_chance < chances[1]]
        asks = [one for one in alike if one.asked]
        if alike:
            found.append(
                Line(
                    chances=chances,
                    sessions=len(alike),
                    asked_share=len(asks) / len(alike),
                    asks=len(asks),
                    credit=fmean(one.credit for one in asks) if asks else None,
                    worth=fmean(worth(one, share[one.guess_chance], fmean(held), price) for one in asks)
                    if asks and held
                    else None,
                )
            )
    return found


def worth(ask: Played, share: float, held: float, price: float) -> float:
    """A of one ask, in units of the reward for a right answer; see the module.

    Args:
        share: p.
        held: r.
        price: c.
    """
    without = share * (1 - price) + (1 - share) * ask.guess_chance
    return sum((1 - share) ** earlier for earlier in range(ask.later)) * (held - without)


def main() -> None:
    """Read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs/credit"), help="folder of the sweep's runs")
    parser.add_argument("--last", type=int, default=4, help="iterations of each run, its last ones (default: 4)")
    given = parser.parse_args()
    runs = finished(given.runs, Compare())
    if not runs:
        sys.exit(f"{given.runs}: holds no finished run; `agile-ray sweep credit` trains them")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("price", "credit", "guess right", "sessions", "asked", "asks", "credited", "worth"):
        table.add_column(title, justify="left" if title == "credit" else "right", no_wrap=True)
    for _, group in groupby(runs, key=lambda run: Compare().kind(run[1])):
        members = list(group)
        config = members[0][1]
        sessions = [one for path, run in members for one in played(path, seed=run.seed, last=given.last)]
        for line in lines(sessions, price=config.env.advice_cost):
            table.add_row(
                f"{config.env.advice_cost:g}",
                config.credit.mode,
                f"{line.chances[0]:g} to {line.chances[1]:g}",
                str(line.sessions),
                f"{line.asked_share:.3f}",
                str(line.asks),
                *("–" if value is None else f"{value:+.2f}" for value in (line.credit, line.worth)),
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
