"""Reports whether a replay repeats its run: a table, a sentence, and `replay.json` in the replay's folder."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from agile_ray.errors import ContractError
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import write_json
from agile_ray.replay.comparison import LOSSES, TOLERANCE, Comparison, compare, losses
from launch.report.console import plain_console


def name_run(run: RunFolder, folder: RunFolder) -> None:
    """Write into a replay's folder which run it repeats."""
    write_json(folder.replay, {"run": str(run)})


def conclude(run: RunFolder, folder: RunFolder, overrides: Sequence[str]) -> None:
    """Compare every iteration of a replay with the run's, print and store the result.

    Args:
        run: the run's folder.
        folder: the replay's folder.
        overrides: of the replay's configuration; if there are any, the replay is an experiment and may differ.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
        ContractError: there are no overrides, and an iteration differs.
    """
    before, after = losses(history.read(run.history)), losses(history.read(folder.history))
    found = [
        compare(
            iteration,
            run=run,
            replay=folder,
            run_losses=before.get(iteration, {}),
            replay_losses=after.get(iteration, {}),
        )
        for iteration in folder.stored_iterations()
    ]
    record = {"run": str(run), "overrides": list(overrides), "iterations": [asdict(one) for one in found]}
    write_json(folder.replay, record)
    show(found, plain_console())
    differing = [one.iteration for one in found if not one.same]
    if not differing:
        measured = sum(bool(one.losses) for one in found)  # a killed run may have segments without a history line
        print(
            f"{len(found)} iterations repeat {run}: stored sessions and credit are equal bit for bit; "
            f"losses of {measured} iterations differ by less than a share of {TOLERANCE:g}"
        )
    elif overrides:
        print(f"{len(differing)} of {len(found)} iterations differ from {run} with {' '.join(overrides)}")
    else:
        raise ContractError(
            f"replay: without overrides it must repeat the run, but {len(differing)} of {len(found)} iterations differ "
            f"from {run}, the first is {differing[0]}; another machine or number of ranks adds floats in another order"
        )


def show(found: Sequence[Comparison], console: Console) -> None:
    """Print where replay and run differ, one line per iteration, within 80 columns."""
    title = "replay against run: segments that differ, relative difference of losses"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for head in ("iteration", "segments", "stored", "credit", "by at most", *LOSSES):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            str(one.iteration),
            str(one.segments),
            str(max(one.differing.values(), default=0)),
            str(one.credit_differing),
            f"{one.credit_distance:.2g}",
            *(f"{one.losses[name].distance:.2g}" if name in one.losses else "" for name in LOSSES),
        )
    console.print(table)
