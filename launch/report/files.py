"""report.json and report.html: composed from a run's folder, written and read."""

import os
from pathlib import Path

from pydantic import ValidationError

from agile_ray import config_file
from agile_ray.errors import ConfigError
from agile_ray.record import history, ledger, provenance
from agile_ray.record.evaluations import kept
from agile_ray.record.recorder import HISTORY
from launch.report import page
from launch.report.summary import Report, build

JSON, HTML = "report.json", "report.html"


JSON, HTML = "report.json", "report.html"


def compose(run_folder: Path) -> Report:
    """Build the report from what the run has stored so far.

    Raises:
        ConfigError: the folder is no run's, or was written by another version.
        ContractError: the books don't agree with what the learner saw.
    """
    chosen = config_file.load(run_folder / provenance.CONFIG_FILE)
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


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.write_bytes(content)
    os.replace(aside, path)
