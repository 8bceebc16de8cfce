"""Tells how far a replay repeats its run: a table, a sentence, and `replay.json` in the replay's folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agile_ray.errors import ContractError
from agile_ray.record import history
from agile_ray.record.folder import stored, write_text
from agile_ray.record.recorder import HISTORY, SEGMENTS
from agile_ray.replay.comparison import LOSSES, TOLERANCE, Comparison, compare, losses

RECORD = "replay.json"


def conclude(run: Path, folder: Path, overrides: Sequence[str]) -> None:
    """Compare every iteration of a replay with the run's, show it and note it.

    Args:
        run: the run's folder.
        folder: the replay's.
        overrides: of the replay's configuration; with any, it is an experiment that may differ.

    Raises:
        ConfigError: a file is missing, or its schema is another version's.
        ContractError: there are no overrides, and something differs.
    """
    before, after = losses(history.read(run / HISTORY)), losses(history.read(folder / HISTORY))
    found = [
        compare(
            iteration,
            run=run / SEGMENTS,
            replay=folder / SEGMENTS,
            run_losses=before.get(iteration, {}),
            replay_losses=after.get(iteration, {}),
        )
        for iteration, _ in stored(folder / SEGMENTS)
    ]
    record = {"run": str(run), "overrides": list(overrides), "iterations": [asdict(one) for one in found]}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    show(found, Console())
    differing = [one.iteration for one in found if not one.same]
    if not differing:
        measured = sum(bool(one.losses) for one in found)  # a run may be killed between its segments and its history
        print(
            f"{len(found)} iterations repeat {run}: stored and credited bit for bit; "
            f"losses of {measured} differ by less than {TOLERANCE:g} of themselves"
        )
    elif overrides:
        print(f"{len(differing)} of {len(found)} iterations differ from {run}, under {' '.join(overrides)}")
    else:
        raise ContractError(
            f"replay: without overrides it repeats the run, but {len(differing)} of {len(found)} iterations differ "
            f"from {run}, the first is {differing[0]}; another machine or another number of ranks sums in another order"
        )


def show(found: Sequence[Comparison], console: Console) -> None:
    """Print where replay and run differ, an iteration to a line; fits into 80 columns."""
    title = "replay against run: rows that differ, and by what share losses do"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for head in ("iteration", "rows", "stored", "credit", "by at most", *LOSSES):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            str(one.iteration),
            str(one.rows),
            str(max(one.differing.values(), default=0)),
            str(one.credit_differing),
            f"{one.credit_distance:.2g}",
            *(f"{one.losses[name].distance:.2g}" if name in one.losses else "" for name in LOSSES),
        )
    console.print(table)
