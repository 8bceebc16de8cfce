"""The shop without luck, for each way to give credit: what there is to win, and what trained policies won.

    python benchmarks/credit.py                       the prices and seeds of `agile-ray sweep credit`
    python benchmarks/credit.py 0.7 0.8 --seeds 5     other prices; seeds 0 to 4
    python benchmarks/credit.py --runs FOLDER         finished runs of that sweep (default: runs/credit)
    python benchmarks/credit.py 0.1 0.3 --runs runs/priors --compare imitation.asking=judgement

Nothing is trained and no engine starts. A guess is right with chance g, which the shop knows, and is counted at that.

First, policies that are best by what each mode trains on, played out. A session asks or guesses. Advice is right and
is remembered. A policy sees the kind of question, g, the place in the stream, and whether memory holds the answer. N
later questions are on the same item; what to expect of N, at the first sight of an item, is counted in streams of the
training categories. Where memory lacks the answer, advice at price c is asked for if

    none             1 - g > c                      it pays in this session
    heuristic        1 - g + beta * P(N > 0) > c    with the bonus (AGILE, eq. 7; nothing similar is stored)
    fitted, linked   (1 - g) * (1 + E[N]) > c       with what the answer is worth to the sessions behind it
    oracle           (1 - g) * (1 + N) > c          it knows N

Nothing that a policy sees tells more of N: memory keeps no trace of an item that was guessed. So what lies between two
of the totals is all that one way to give credit can be ahead of another on these questions.

Then, the finished runs, on the same questions. Memory lacks the answer, so the guess that was submitted does not depend
on it: g in place of right or wrong leaves every mean as it is, and takes the luck out of it. A wrong search, an answer
in memory that was not used, or words other than the best guess count as they came out. Beside the totals: of the
questions that the mode's best policy asks for, the share that was guessed, and the other way round. Runs of another
sweep are set beside one another likewise: --compare says by which key they differ, and which value is the base.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean

from rich.console import Console

from agile_ray.agent.environment import Question
from agile_ray.config import RunConfig
from agile_ray.effects import pair_conflicts
from agile_ray.evaluation.intervals import estimate
from agile_ray.evaluation.score import paired_difference, reward
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.types import Ending, Session
from launch.report.paired_runs import ENTRIES
from launch.run import shipped_configs
from launch.studies.shop_optimum import (
    POLICIES,
    TEST_STREAMS,
    WIDTH,
    Future,
    Place,
    Policy,
    Sight,
    _table,
    show_room,
    streams,
    with_later,
)


@dataclass(frozen=True, slots=True)
class Compare:
    """What tells the runs of a sweep apart, beside price and seed."""

    key: str = "credit.mode"
    base: str = "heuristic"

    @classmethod
    def parse(cls, text: str) -> "Compare":
        """KEY=BASE.

        Raises:
            ArgumentTypeError: it is not written so.
        """
        key, _, base = text.partition("=")
        if not (key and base):
            raise argparse.ArgumentTypeError(f"found {text!r}, must be KEY=BASE, such as imitation.asking=judgement")
        return cls(key, base)

    def value(self, config: RunConfig) -> str:
        """What a run has for the key.

        Raises:
            SystemExit: there is no such key.
        """
        try:
            return str(reduce(getattr, self.key.split("."), config))
        except AttributeError:
            sys.exit(f"--compare: found {self.key}={self.base}, and {self.key} is no key; `agile-ray keys` lists them")

    def kind(self, config: RunConfig) -> tuple[float, bool, str]:
        """What runs have in common that differ by their seed alone; sorts by price, dear first, then the base first."""
        value = self.value(config)
        return -config.env.advice_cost, value != self.base, value


def finished(folder: Path, compare: Compare) -> list[tuple[RunFolder, RunConfig]]:
    """The finished runs of a sweep on the shop, in the order of `Compare.kind`, then by seed.

    Raises:
        SystemExit: a run is not on the shop, there is no such key, or two runs differ in more than price, seed, the key
            and where they ran.
    """
    runs = [(run, shipped_configs.read(str(run.config))) for run in SweepFolder(folder).finished_runs()]
    for path, config in runs:
        if config.env.name != "shop":
            sys.exit(f"{path}: a run on {config.env.name}; chances are known of the shop's questions only")
        compare.value(config)  # a key that there is not is told first
        if others := pair_conflicts(runs[0][1], config, compared=compare.key):
            sys.exit(
                f"{path}: runs that are compared differ by {compare.key}, price and seed alone; set beside "
                f"{runs[0][0]}, {'; '.join(others)}; give a folder without the one or the other, or compare by that "
                "key: benchmarks/credit.py --compare KEY=BASE"
            )
    runs.sort(key=lambda run: (*compare.kind(run[1]), run[1].seed))
    for (path, config), (again, other) in pairwise(runs):
        if (compare.kind(config), config.seed) == (compare.kind(other), other.seed):
            sys.exit(f"{path} and {again} differ by their names alone; give a folder that holds one of the two")
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the final policy of a finished run played."""

    config: RunConfig
    sessions: Sequence[Session]


def trained(folder: Path, entry: str, compare: Compare) -> list[Trained]:
    """The finished runs of a sweep, in the order of `finished`."""
    return [
        Trained(config=config, sessions=evaluations.read(path, entry)) for path, config in finished(folder, compare)
    ]


class Known:
    """What the shop knows of the questions in the test streams of some seeds."""

    def __init__(self, futures: Mapping[int, Future], *, count: int = TEST_STREAMS) -> None:
        self._questions: dict[Place, Question] = {}
        self._sights: dict[Place, Sight] = {}
        for seed, future in futures.items():
            for stream in streams("test", count, seed=seed):
                for place, question in enumerate(stream.questions):
                    self._questions[stream.id, place] = question
                for place, question, later in with_later(stream.questions):
                    self._sights[stream.id, place] = future.sight(question, place, later)

    def worth(self, session: Session) -> float:
        """Own reward of a session, thousandths, where a guess counts at its chance."""
        question = self._questions[session.stream, session.position]
        submitted = " ".join((session.answer or "").lower().split())
        guessed = not (session.hindsight.known or session.asks or question.query) and submitted == question.guess
        return 1000 * question.guess_chance if guessed else reward(session)

    def total(self, sessions: Iterable[Session]) -> float:
        """Mean worth of the sessions that did not fail, in units of the reward for a right answer."""
        return mean(self.worth(session) for session in sessions if session.ending is not Ending.FAILED) / 1000

    def missed(self, sessions: Iterable[Session], policy: Policy, price: float) -> dict[bool, float | None]:
        """Where memory lacked the answer: of those that `policy` asks for (True), the share that was not asked for; of
        those that it guesses (False), the share that was. None: there is none."""
        right: dict[bool, list[bool]] = {True: [], False: []}
        for session in sessions:
            sight = self._sights.get((session.stream, session.position))
            if sight is not None and not session.hindsight.known and session.ending is not Ending.FAILED:
                asks = policy(sight, price)
                right[asks].append(asks == (session.asks > 0))
        return {asks: 1 - mean(found) if found else None for asks, found in right.items()}


def show_trained(runs: Sequence[Trained], known: Known, compare: Compare) -> None:
    """Print the trained policies, each kind against the base on the same seeds."""
    titles = ("total by seed", f"− {compare.base}", "over seeds", "to ask, guessed", "to guess, asked")
    table = _table("price", compare.key.rpartition(".")[2], *titles)
    bases = {
        (run.config.env.advice_cost, run.config.seed): run.sessions
        for run in runs
        if compare.value(run.config) == compare.base
    }
    for _, group in groupby(runs, key=lambda run: compare.kind(run.config)):
        alike = list(group)
        price, value = alike[0].config.env.advice_cost, compare.value(alike[0].config)
        pairs = [
            (run.sessions, bases[price, run.config.seed])
            for run in alike
            if value != compare.base and (price, run.config.seed) in bases
        ]
        policy = POLICIES.get(alike[0].config.credit.mode, POLICIES["fitted, linked"])
        missed = known.missed((session for run in alike for session in run.sessions), policy, price)
        table.add_row(
            f"{price:g}",
            value,
            " ".join(f"{known.total(run.sessions):.3f}" for run in alike),
            *(_against(pairs, known) if pairs else ("", "")),
            *map(_share, (missed[True], missed[False])),
        )
    Console(width=WIDTH).print(table)
    if not bases:
        there = ", ".join(sorted({compare.value(run.config) for run in runs}))
        print(f"nothing is compared: no run has {compare.key}={compare.base}; there are: {there}")


def _against(pairs: Sequence[tuple[Sequence[Session], Sequence[Session]]], known: Known) -> tuple[str, str]:
    """Paired difference: of all streams together, and over seeds."""
    mine, its = ([session for side in sides for session in side] for sides in zip(*pairs, strict=True))
    pooled = paired_difference(mine, its, worth=known.worth)
    seeds = estimate([paired_difference(*pair, worth=known.worth).mean for pair in pairs])
    return _figure(pooled.mean, pooled.ci95), _figure(seeds.mean, seeds.ci95)


def _figure(value: float, ci95: tuple[float, float] | None) -> str:
    return f"{value:+.4f}" + ("" if ci95 is None else f" ({ci95[0]:+.4f} to {ci95[1]:+.4f})")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Play, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", nargs="*", type=float, default=[0.3, 0.5, 0.9])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/credit"), help="folder of the sweep's runs")
    parser.add_argument("--compare", type=Compare.parse, default=Compare(), metavar="KEY=BASE",
                        help="by what runs differ (default: credit.mode=heuristic)")  # fmt: skip
    given = parser.parse_args()
    futures = {seed: Future.counted(seed) for seed in range(given.seeds)}
    show_room(given.prices, futures)
    for entry in ENTRIES:
        runs = trained(given.runs, entry, given.compare)
        print(f"\n{given.runs}: {len(runs)} finished runs, {entry}")
        if runs:
            count = max(len({session.stream for session in run.sessions}) for run in runs)
            seeds = {run.config.seed for run in runs}
            known = Known({seed: futures.get(seed) or Future.counted(seed) for seed in seeds}, count=count)
            show_trained(runs, known, given.compare)


if __name__ == "__main__":
    main()
