"""The toy with three prices: how often each credit mode should ask, and how often it learned to ask.

New: memory lacks the item's answer. Known: memory holds it. A mode's optimum is that of the reward that it trains on.
Where the answer is new, a session that asks earns 1 - c + A and one that guesses earns 1/2, so the optimum is to ask
always if the first is larger, else never. Where every new question is asked, A is 0 for `none`, beta for `heuristic` (a
similar question follows, nothing is stored), and c for the others (a known answer is not bought again). A KL penalty or
an entropy bonus would move the optimum between the two, so runs with either are refused.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from agile_ray.config import RunConfig
from agile_ray.config_file import load
from agile_ray.errors import ConfigError
from agile_ray.evaluation.intervals import estimate
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import write_json
from launch.report import files, sweep_table
from launch.report.console import plain_console
from launch.report.plain_table import plain_table
from launch.report.sweep_table import RunSummary

MODES = ("none", "heuristic", "fitted", "linked")
GUESS = 0.5
"""Probability that a guess is right."""

Shares = tuple[float | None, ...]
"""Shares of sessions that asked, by seed; None: the seed had no such session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One mode at one price, over all seeds."""

    price: float
    mode: str
    optimum: float
    first_sight: Shares  # where the answer is new
    first_sight_greedy: Shares
    repeats: Shares  # where it is known
    repeats_greedy: Shares
    total: tuple[float, ...]
    total_greedy: tuple[float, ...]


def report(folder: SweepFolder) -> None:
    """Print a line for each price and mode, and write table.json into the folder.

    Args:
        folder: of the sweep's runs.

    Raises:
        ConfigError: the sweep is not finished, or a run has a KL penalty or an entropy bonus.
    """
    found = cells(folder)
    show(found)
    write_json(folder.study_table, [asdict(cell) for cell in found])


def optimum(mode: str, price: float, *, beta: float) -> float:
    """The best probability of asking where the answer is new, for the reward that a mode trains on."""
    credit = {"none": 0.0, "heuristic": beta}.get(mode, price)
    return float(1 - price + credit > GUESS)


def cells(folder: SweepFolder) -> list[Cell]:
    """The finished runs of the sweep, by price and mode.

    Raises:
        ConfigError: the sweep is not finished, or a run has a KL penalty or an entropy bonus.
    """
    runs = sorted(sweep_table.read(folder), key=lambda run: run.seed)
    configs = {run.run: _config(folder.run(run.run)) for run in runs}
    groups: dict[tuple[float, str], list[RunSummary]] = {}
    for run in runs:
        groups.setdefault((configs[run.run].env.price / 1000, configs[run.run].credit.mode), []).append(run)
    return [
        _cell(folder, price, mode, groups[price, mode], beta=configs[groups[price, mode][0].run].credit.beta)
        for price, mode in sorted(groups, key=lambda key: (key[0], MODES.index(key[1])))
    ]


def _config(run: RunFolder) -> RunConfig:
    config = load(run.config)
    if config.ppo.kl_coefficient or config.ppo.entropy_coefficient:
        raise ConfigError(
            f"{run}: the optimum is known for runs without KL penalty and entropy bonus; found "
            f"ppo.kl_coefficient={config.ppo.kl_coefficient:g}, "
            f"ppo.entropy_coefficient={config.ppo.entropy_coefficient:g}"
        )
    return config


def _cell(folder: SweepFolder, price: float, mode: str, runs: Sequence[RunSummary], *, beta: float) -> Cell:
    return Cell(
        price=price,
        mode=mode,
        optimum=optimum(mode, price, beta=beta),
        first_sight=tuple(run.sampled_asked_new for run in runs),
        first_sight_greedy=tuple(run.asked_new for run in runs),
        repeats=tuple(run.sampled_asked_known for run in runs),  # None where a policy never asks: nothing is known
        repeats_greedy=tuple(run.asked_known for run in runs),
        total=tuple(_sampled_total(folder.run(run.run)) for run in runs),
        total_greedy=tuple(run.total_score for run in runs),
    )


def _sampled_total(run: RunFolder) -> float:
    score = files.load(run).ppo_sampled
    assert score is not None  # the sweep lists finished runs only
    return score.total_score


def show(found: Sequence[Cell]) -> None:
    """Print the sampled shares by seed, their means over seeds with intervals, and the greedy shares by seed."""
    asked = ("mean (95 % interval)", "greedy")
    titles = ("price", "credit", "optimum", "first sight", *asked, "repeats", *asked, "total", "greedy")
    table = plain_table(*titles, left=("credit",))
    for cell in found:
        table.add_row(
            f"{cell.price:g}",
            cell.mode,
            f"{cell.optimum:.2f}",
            *_shares(cell.first_sight, cell.first_sight_greedy),
            *_shares(cell.repeats, cell.repeats_greedy),
            _each(cell.total),
            _each(cell.total_greedy),
        )
    plain_console(width=190).print(table)


def _shares(sampled: Shares, greedy: Shares) -> tuple[str, str, str]:
    return _each(sampled), interval(sampled), _each(greedy)


def _each(values: Shares) -> str:
    return " ".join("  -  " if value is None else f"{value:.3f}" for value in values)


def interval(shares: Shares) -> str:
    """Mean over the seeds that have a share, with Student's interval clipped to [0, 1]."""
    found = [share for share in shares if share is not None]
    if not found:
        return "no session"
    mean = estimate(found)
    if mean.ci95 is None:
        return f"{mean.mean:.3f}"
    return f"{mean.mean:.3f} ({max(mean.ci95[0], 0):.3f} to {min(mean.ci95[1], 1):.3f})"
