"""What keeps PPO steady, measured: a line for each setting of a sweep over several seeds.

    agile-ray sweep stability            trains; again, it goes on where it stopped
    python benchmarks/stability.py       reads runs/stability, prints a table, writes table.json there

Worst fall: by how much the total score of an iteration fell below the best one before it; the sampled policy, while it
trains, so a little is noise. An update's KL: between the policies before it and before its last step.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agile_ray.evaluation.intervals import estimate
from agile_ray.record import history
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.history import Event
from agile_ray.record.json_files import write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Runs that differ by their seed alone; a value for each."""

    setting: str
    total: tuple[float, ...]  # of the final policy, sampled, on the test sessions
    worst_fall: tuple[float, ...]  # reward per session
    largest_update_nats: tuple[float, ...]  # per action token
    stopped_share: tuple[float, ...]  # of the optimizer steps that were planned
    clip_share: tuple[float, ...]  # of action tokens
    effective_share: tuple[float, ...]  # the least of an iteration


def settings(folder: SweepFolder) -> list[Setting]:
    """The finished runs of the sweep, in its order."""
    rows = json.loads(folder.table.read_text())["rows"]
    return [
        _setting(name, [folder.run(row["run"]) for row in rows if row["group"] == name])
        for name in dict.fromkeys(row["group"] for row in rows)
    ]


def _setting(name: str, runs: Sequence[RunFolder]) -> Setting:
    lines = [history.read(run.history) for run in runs]
    metrics = [[line.metrics for line in run if line.event is Event.ITERATION] for run in lines]
    return Setting(
        setting=name,
        total=tuple(_final(run) for run in lines),
        worst_fall=tuple(worst_fall([one["total_score"] for one in run]) for run in metrics),
        largest_update_nats=tuple(max(one["update_kl_nats"] for one in run) for run in metrics),
        stopped_share=tuple(sum(one["stopped_share"] for one in run) / len(run) for run in metrics),
        clip_share=tuple(sum(one["clip_share"] for one in run) / len(run) for run in metrics),
        effective_share=tuple(min(one["effective_share"] for one in run) for run in metrics),
    )


def _final(lines: Sequence[history.Line]) -> float:
    return next(line.metrics["total_score"] for line in reversed(lines) if line.name == "ppo_sampled")


def worst_fall(totals: Sequence[float]) -> float:
    """Largest distance of a value below the best one before it; 0 if they only rise."""
    return max(best - total for best, total in zip(accumulate(totals, max), totals, strict=True))


def show(table: Sequence[Setting]) -> None:
    """Print a line for each setting: totals with Student's interval over seeds, then the worst of the seeds."""
    printed = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    printed.add_column("setting", no_wrap=True)
    for title in ("total, by seed", "95 % interval", "worst fall", "largest update", "skipped", "clipped", "effective"):
        printed.add_column(title, justify="right", no_wrap=True)
    for one in table:
        over_seeds = estimate(one.total)
        printed.add_row(
            one.setting,
            " ".join(f"{total:.3f}" for total in one.total),
            "" if over_seeds.ci95 is None else "{:.3f} to {:.3f}".format(*over_seeds.ci95),
            f"{max(one.worst_fall):.3f}",
            f"{max(one.largest_update_nats):.3f}",
            f"{max(one.stopped_share):.0%}",
            f"{max(one.clip_share):.1%}",
            f"{min(one.effective_share):.5f}",
        )
    Console(width=150).print(printed)


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs/stability"), help="folder of the sweep's runs")
    folder = SweepFolder(parser.parse_args().runs)
    if not folder.table.is_file():
        sys.exit(f"{folder}: holds no {folder.table.name}; `agile-ray sweep stability` writes it at its end")
    table = settings(folder)
    show(table)
    write_json(folder.study_table, [asdict(one) for one in table])


if __name__ == "__main__":
    main()
