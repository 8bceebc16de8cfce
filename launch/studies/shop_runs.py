"""Finished runs on the shop, scored without the luck of guesses.

Where memory lacks the answer, a submitted guess does not depend on whether it is right. A guess is therefore counted at
its probability g of being right, which keeps every expected value and removes noise. A wrong search, an answer in
memory that was not used, and words other than the best guess count as judged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean

from agile_ray.agent.environment import Question
from agile_ray.agent.hindsight import guess_probability
from agile_ray.config import RunConfig
from agile_ray.effects import pair_conflicts
from agile_ray.errors import ConfigError
from agile_ray.evaluation.intervals import estimate
from agile_ray.evaluation.score import expected_reward, paired_difference
from agile_ray.record import evaluations
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.scripted.optimum import without_tool
from agile_ray.types import Ending, Session
from launch.report.compared_key import ComparedKey
from launch.report.console import plain_console
from launch.report.paired_runs import ENTRIES
from launch.report.plain_table import plain_table
from launch.run import shipped_configs
from launch.studies.shop_optimum import RULES, TEST_STREAMS, WIDTH, AskingRule, Future, Sight, show, streams

CREDIT_MODE = ComparedKey(key="credit.mode", to="heuristic")


def report(prices: Sequence[float], *, seeds: int, runs: Path, compare: ComparedKey) -> None:
    """Print the best rules at some prices, then the finished runs of a folder.

    Args:
        prices: of one ask, in units of the reward for a right answer.
        seeds: how many, from 0.
        runs: folder of a sweep's runs.

    Raises:
        ConfigError: the runs can't be compared.
    """
    futures = {seed: Future.counted(seed) for seed in range(seeds)}
    show(prices, futures)
    for entry in ENTRIES:
        found = trained(runs, entry, compare)
        print(f"\n{runs}: {len(found)} finished runs, {entry}")
        if found:
            count = max(len({session.stream for session in run.sessions}) for run in found)
            needed = {run.config.seed for run in found}
            shop = ShopKnowledge({seed: futures.get(seed) or Future.counted(seed) for seed in needed}, count=count)
            show_trained(found, shop, compare)


def kind(config: RunConfig, compare: ComparedKey) -> tuple[float, bool, str]:
    """What runs that differ by their seed alone share. Sorts by falling price, then the baseline first."""
    value = compare.value(config)
    return -config.env.price, value != compare.to, value


def finished(folder: Path, compare: ComparedKey) -> list[tuple[RunFolder, RunConfig]]:
    """The finished runs of a sweep on the shop, in the order of `kind`, then by seed.

    Raises:
        ConfigError: a run is not on the shop, the compared key does not exist, or two runs differ in more than price,
            seed, the key and where they ran, or by their names alone.
    """
    runs = [(run, shipped_configs.read(str(run.config))) for run in SweepFolder(folder).finished_runs()]
    for path, config in runs:
        if config.env.name != "shop":
            raise ConfigError(f"{path}: a run on {config.env.name}; only the shop knows how often a guess is right")
        compare.value(config)  # refuses an unknown key
        if others := pair_conflicts(runs[0][1], config, compared=compare.key):
            raise ConfigError(
                f"{path}: compared runs differ by {compare.key}, price and seed alone; beside {runs[0][0]}, "
                f"{'; '.join(others)}; give a folder without one of the two, or --compare that key"
            )
    runs.sort(key=lambda run: (*kind(run[1], compare), run[1].seed))
    for (path, config), (again, other) in pairwise(runs):
        if (kind(config, compare), config.seed) == (kind(other, compare), other.seed):
            raise ConfigError(
                f"{path} and {again} differ by their names alone; give a folder that holds one of the two"
            )
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """The final evaluation of a finished run."""

    config: RunConfig
    sessions: Sequence[Session]


def trained(folder: Path, entry: str, compare: ComparedKey) -> list[TrainedRun]:
    """The finished runs of a sweep, in the order of `finished`.

    Args:
        entry: `ppo` or `ppo_sampled`.

    Raises:
        ConfigError: the runs can't be compared.
    """
    return [
        TrainedRun(config=config, sessions=evaluations.read(path, entry)) for path, config in finished(folder, compare)
    ]


class ShopKnowledge:
    """What the shop knows about the questions in the test streams of some seeds."""

    def __init__(self, futures: Mapping[int, Future], *, count: int = TEST_STREAMS) -> None:
        self._questions: dict[tuple[str, int], Question] = {}  # by stream and position
        self._sights: dict[tuple[str, int], Sight] = {}
        for seed, future in futures.items():
            for stream in streams("test", count, seed=seed):
                for position, question in enumerate(stream.questions):
                    self._questions[stream.id, position] = question
                for position, question, later in without_tool(stream.questions):
                    self._sights[stream.id, position] = future.sight(question, position, later)

    def worth(self, session: Session) -> float:
        """A session's own reward in thousandths, with a guess counted at its probability of being right."""
        question = self._questions[session.stream, session.position]
        unaided = None if session.hindsight.known or session.asks else session.answer
        return expected_reward(session, guess_probability(question, unaided))

    def total(self, sessions: Iterable[Session]) -> float:
        """Mean worth of the sessions that did not fail, in units of the reward for a right answer."""
        return mean(self.worth(session) for session in sessions if session.ending is not Ending.FAILED) / 1000

    def missed(self, sessions: Iterable[Session], asks: AskingRule, price: float) -> dict[bool, float | None]:
        """How often sessions decide against a rule where memory lacks the answer.

        Args:
            price: of one ask, in thousandths.

        Returns:
            True: share not asked, of the sessions where the rule asks. False: share asked, of those where it guesses.
            None: no such session.
        """
        agrees: dict[bool, list[bool]] = {True: [], False: []}
        for session in sessions:
            sight = self._sights.get((session.stream, session.position))
            if sight is not None and not session.hindsight.known and session.ending is not Ending.FAILED:
                decision = asks(sight, price)
                agrees[decision].append(decision == (session.asks > 0))
        return {decision: 1 - mean(found) if found else None for decision, found in agrees.items()}


def show_trained(runs: Sequence[TrainedRun], shop: ShopKnowledge, compare: ComparedKey) -> None:
    """Print the trained policies, each kind of run compared with the baseline on the same seeds."""
    name = compare.key.rpartition(".")[2]
    titles = ("total by seed", f"− {compare.to}", "over seeds", "to ask, guessed", "to guess, asked")
    table = plain_table("price", name, *titles, left=(name,))
    baselines = {
        (run.config.env.price / 1000, run.config.seed): run.sessions
        for run in runs
        if compare.value(run.config) == compare.to
    }
    for _, group in groupby(runs, key=lambda run: kind(run.config, compare)):
        members = list(group)
        price, value = members[0].config.env.price / 1000, compare.value(members[0].config)
        pairs = [
            (run.sessions, baselines[price, run.config.seed])
            for run in members
            if value != compare.to and (price, run.config.seed) in baselines
        ]
        rule = RULES.get(members[0].config.credit.mode, RULES["fitted, linked"])
        missed = shop.missed((session for run in members for session in run.sessions), rule, 1000 * price)
        table.add_row(
            f"{price:g}",
            value,
            " ".join(f"{shop.total(run.sessions):.3f}" for run in members),
            *(_difference(pairs, shop) if pairs else ("", "")),
            *map(_share, (missed[True], missed[False])),
        )
    plain_console(width=WIDTH).print(table)
    if not baselines:
        there = ", ".join(sorted({compare.value(run.config) for run in runs}))
        print(f"nothing is compared: no run has {compare.key}={compare.to}; there are: {there}")


def _difference(pairs: Sequence[tuple[Sequence[Session], Sequence[Session]]], shop: ShopKnowledge) -> tuple[str, str]:
    """Paired difference over all streams together, and over seeds."""
    mine, its = ([session for side in sides for session in side] for sides in zip(*pairs, strict=True))
    pooled = paired_difference(mine, its, worth=shop.worth)
    seeds = estimate([paired_difference(*pair, worth=shop.worth).mean for pair in pairs])
    return _cell(pooled.mean, pooled.ci95), _cell(seeds.mean, seeds.ci95)


def _cell(value: float, ci95: tuple[float, float] | None) -> str:
    return f"{value:+.4f}" + ("" if ci95 is None else f" ({ci95[0]:+.4f} to {ci95[1]:+.4f})")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
