"""What keeps PPO steady: one line per setting of a sweep, over its seeds.

worst fall       largest drop of an iteration's total score below the best one before it. The sampled policy is
                 measured while it trains, so a small drop is noise.
largest update   KL divergence between the policies before an update and before its last optimizer step
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

from agile_ray.evaluation.intervals import estimate
from agile_ray.record import history
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.history import Event
from agile_ray.record.json_files import write_json
from launch.report import sweep_table
from launch.report.console import plain_console
from launch.report.plain_table import plain_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Runs that differ by their seed alone; one value per run."""

    setting: str
    total: tuple[float, ...]  # of the final policy, sampled, on the test sessions
    worst_fall: tuple[float, ...]  # reward per session
    largest_update_nats: tuple[float, ...]  # per action token
    stopped_share: tuple[float, ...]  # of the planned optimizer steps
    clip_share: tuple[float, ...]  # of the action tokens
    effective_share: tuple[float, ...]  # smallest of an iteration


def report(folder: SweepFolder) -> None:
    """Print a line for each setting, and write table.json into the folder.

    Args:
        folder: of the sweep's runs.

    Raises:
        ConfigError: the sweep is not finished.
    """
    found = settings(folder)
    show(found)
    write_json(folder.study_table, [asdict(one) for one in found])


def settings(folder: SweepFolder) -> list[Setting]:
    """The finished runs of the sweep, in its order.

    Raises:
        ConfigError: the sweep is not finished.
    """
    runs = sweep_table.read(folder)
    return [
        _setting(name, [folder.run(run.run) for run in runs if run.group == name])
        for name in dict.fromkeys(run.group for run in runs)
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
    """Largest drop of a value below the best one before it; 0 if values never fall."""
    return max(best - total for best, total in zip(accumulate(totals, max), totals, strict=True))


def show(found: Sequence[Setting]) -> None:
    """Print totals with Student's interval over seeds, then the worst value over seeds."""
    measures = ("total, by seed", "95 % interval", "worst fall", "largest update", "skipped", "clipped", "effective")
    table = plain_table("setting", *measures, left=("setting",))
    for one in found:
        over_seeds = estimate(one.total)
        table.add_row(
            one.setting,
            " ".join(f"{total:.3f}" for total in one.total),
            "" if over_seeds.ci95 is None else "{:.3f} to {:.3f}".format(*over_seeds.ci95),
            f"{max(one.worst_fall):.3f}",
            f"{max(one.largest_update_nats):.3f}",
            f"{max(one.stopped_share):.0%}",
            f"{max(one.clip_share):.1%}",
            f"{min(one.effective_share):.5f}",
        )
    plain_console(width=150).print(table)
