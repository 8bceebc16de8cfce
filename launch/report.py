"""`agile-ray report`: tables and pictures of a run, from what lies in its folder.

run folder/
    config.yaml  run.json  history.jsonl    read
    segments/  abandoned.jsonl              read: every report checks the books again
    evaluation/<entry>.parquet              read: one for each policy of the final evaluation
    report.json                             written once `ppo` is evaluated: its presence means a finished run
    report.html                             written always
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from agile_ray import config, history, ledger, provenance, store
from agile_ray.errors import ConfigError
from agile_ray.record import HISTORY
from agile_ray.types import Session
from launch import page
from launch.summary import Report, build

JSON, HTML = "report.json", "report.html"
EVALUATION = "evaluation"


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, wherever it was copied to.")],
) -> None:
    """Print a run's results and rewrite its page.

    Example: agile-ray report runs/quickstart
    """
    found = compose(run) if (run / provenance.CONFIG_FILE).is_file() else load(run)
    if (run / JSON).is_file():
        write(run, found)
    else:
        _replace(run / HTML, page.render(found).encode())
    show(found, Console())
    print(f"{run / HTML}")


def keep(run_folder: Path, entry: str, sessions: Sequence[Session]) -> None:
    """Store one policy's final evaluation under its entry: `ppo`, `oracle`, ..."""
    store.write_sessions(run_folder / EVALUATION / f"{entry}.parquet", sessions)


def has(run_folder: Path, entry: str) -> bool:
    """Whether a policy's final evaluation is stored."""
    return (run_folder / EVALUATION / f"{entry}.parquet").exists()


def kept(run_folder: Path) -> dict[str, list[Session]]:
    """Every stored final evaluation, by entry."""
    return {path.stem: store.read_sessions(path) for path in sorted((run_folder / EVALUATION).glob("[!.]*.parquet"))}


def compose(run_folder: Path) -> Report:
    """Build the report from what the run has stored so far.

    Raises:
        ConfigError: the folder is no run's, or was written by another version.
        ContractError: the books don't agree with what the learner saw.
    """
    chosen = config.load(run_folder / provenance.CONFIG_FILE)
    lines = history.read(run_folder / HISTORY)
    return build(
        kept(run_folder),
        config=chosen,
        lines=lines,
        starts=provenance.read(run_folder),
        ledger=ledger.audit(run_folder, lines),
    )


def load(run_folder: Path) -> Report:
    """Read report.json.

    Raises:
        ConfigError: it is missing, or was written by another version.
    """
    path = run_folder / JSON
    if not path.is_file():
        runs = sorted(run_folder.glob(f"*/{provenance.CONFIG_FILE}"))
        found = f"the folders of runs, such as {runs[0].parent}; give one of those" if runs else "neither"
        raise ConfigError(f"{run_folder}: a run's folder holds {provenance.CONFIG_FILE} or {JSON}, found {found}")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: not a report of this version: {problem['loc']}: {problem['msg']}") from error


def write(run_folder: Path, report: Report) -> None:
    """Write the page, then report.json, each at once; report.json tells that the run has finished."""
    _replace(run_folder / HTML, page.render(report).encode())
    _replace(run_folder / JSON, report.model_dump_json(indent=2).encode() + b"\n")


def show(report: Report, console: Console) -> None:
    """Print the policies, how far PPO is ahead of each, the headline and the ledger; fits into 80 columns."""
    title = f"{report.run}: {report.environment}, seed {report.seed}, one ask costs {report.advice_cost:g}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for head in ("total", "95 % interval", "right", "asked", f"ppo {page.MINUS}", "95 % interval"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, entry in report.entries.items():
        difference = report.differences.get(name)
        table.add_row(
            name,
            f"{entry.total_score:.3f}",
            page.interval(entry.ci95),
            f"{entry.accuracy:.3f}",
            f"{entry.asked_share:.3f}",
            page.signed(difference.mean) if difference else "",
            page.interval(difference.ci95) if difference else "",
            style="bold" if name == "ppo" else None,
        )
    if report.entries:
        console.print(table)
    for sentence in page.headline(report):
        console.print(sentence, highlight=False)
    _show_ledger(report, console)


def _show_ledger(report: Report, console: Console) -> None:
    table = Table(title="ledger of the training", title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("account")
    table.add_column("asks", justify="right")
    table.add_column("charged", justify="right")
    for row in page.accounts(report.ledger):
        table.add_row(*row)
    console.print(table)
    console.print(page.agreement(report.ledger), highlight=False)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.write_bytes(content)
    os.replace(aside, path)
