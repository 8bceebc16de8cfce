"""The three-price toy, judged: what each way to give credit should ask for, and what was learned with it.

    agile-ray sweep three_prices            trains; again, it goes on where it stopped
    python benchmarks/three_prices.py       reads runs/three_prices/sweep.json, prints a table, writes table.json there

First sight: memory does not hold the item's answer; repeat: it does. A mode's optimum is that of what it trains on.
At first sight a session that asks earns 1 - c + A, one that guesses 1/2: best is to ask always where the first is more,
never where it is less. Where all that is new is asked, A is 0 for `none`, beta for `heuristic` (a similar question
follows, nothing is stored), and c for the others: what is known is not bought. A KL penalty or an entropy bonus would
put the optimum between the two, and runs that have one are refused.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import yaml
from rich.console import Console
from rich.table import Table

from agile_ray.evaluation.intervals import estimate
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import write_json

MODES = ("none", "heuristic", "fitted", "linked")
GUESS = 0.5


class Cell(TypedDict):
    """One mode at one price, over all seeds; shares of sessions that asked."""

    price: float
    mode: str
    optimum: float
    first_sight: list[float | None]  # None: a seed had no such session
    first_sight_greedy: list[float | None]
    repeats: list[float | None]
    repeats_greedy: list[float | None]
    total: list[float]
    total_greedy: list[float]


def optimum(mode: str, price: float, *, beta: float) -> float:
    """Probability of asking at first sight that is best for what the mode trains on."""
    credit = {"none": 0.0, "heuristic": beta}.get(mode, price)
    return float(1 - price + credit > GUESS)


def cells(folder: SweepFolder) -> list[Cell]:
    """The finished runs of the sweep, by price and mode."""
    rows = json.loads(folder.table.read_text())["rows"]
    configs = {row["run"]: yaml.safe_load(folder.run(row["run"]).config.read_text()) for row in rows}
    found: dict[tuple[float, str], Cell] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        config = configs[row["run"]]
        price, mode = config["env"]["advice_cost"], config["credit"]["mode"]
        if config["ppo"]["kl_coefficient"] or config["ppo"]["entropy_coefficient"]:
            sys.exit(
                f"{folder.run(row['run'])}: the optimum is known without KL penalty and entropy bonus; this run has one"
            )
        best = optimum(mode, price, beta=config["credit"]["beta"])
        cell = found.setdefault(
            (price, mode),
            Cell(
                price=price,
                mode=mode,
                optimum=best,
                first_sight=[],
                first_sight_greedy=[],
                repeats=[],
                repeats_greedy=[],
                total=[],
                total_greedy=[],
            ),
        )
        cell["first_sight"].append(row["sampled_asked_new"])
        cell["first_sight_greedy"].append(row["asked_new"])
        cell["repeats"].append(row["sampled_asked_known"])  # who never asks knows nothing, so nothing is a repeat
        cell["repeats_greedy"].append(row["asked_known"])
        cell["total"].append(_sampled_total(folder.run(row["run"])))
        cell["total_greedy"].append(row["total_score"])
    return [found[key] for key in sorted(found, key=lambda key: (key[0], MODES.index(key[1])))]


def _sampled_total(run: RunFolder) -> float:
    return json.loads(run.report.read_text())["ppo_sampled"]["total_score"]


def show(table: Sequence[Cell]) -> None:
    """Print a line for each price and mode: each seed's shares, sampled, and the means over seeds with intervals."""
    printed = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    titles = ("mean (95 % interval)", "greedy")
    for title in ("price", "credit", "optimum", "first sight", *titles, "repeats", *titles, "total", "greedy"):
        printed.add_column(title, justify="left" if title == "credit" else "right", no_wrap=True)
    for cell in table:
        printed.add_row(
            f"{cell['price']:g}",
            cell["mode"],
            f"{cell['optimum']:.2f}",
            *_share(cell["first_sight"], cell["first_sight_greedy"]),
            *_share(cell["repeats"], cell["repeats_greedy"]),
            _each(cell["total"]),
            _each(cell["total_greedy"]),
        )
    Console(width=190).print(printed)


def _share(sampled: Sequence[float | None], greedy: Sequence[float | None]) -> tuple[str, str, str]:
    return _each(sampled), interval(sampled), _each(greedy)


def _each(values: Sequence[float | None]) -> str:
    return " ".join("  -  " if value is None else f"{value:.3f}" for value in values)


def interval(shares: Sequence[float | None]) -> str:
    """Mean over the seeds that have one, with Student's interval as far as it lies in [0, 1]."""
    found = [share for share in shares if share is not None]
    if not found:
        return "no session"
    mean = estimate(found)
    if mean.ci95 is None:
        return f"{mean.mean:.3f}"
    return f"{mean.mean:.3f} ({max(mean.ci95[0], 0):.3f} to {min(mean.ci95[1], 1):.3f})"


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="?", type=Path, default=Path("runs/three_prices"), help="folder of the sweep's runs"
    )
    folder = SweepFolder(parser.parse_args().runs)
    if not folder.table.is_file():
        sys.exit(f"{folder}: holds no {folder.table.name}; `agile-ray sweep three_prices` writes it at its end")
    table = cells(folder)
    show(table)
    write_json(folder.study_table, table)


if __name__ == "__main__":
    main()
