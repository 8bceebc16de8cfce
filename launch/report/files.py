"""report.json and report.html: composed from a run's folder, written and read."""

from agile_ray import config_file
from agile_ray.errors import ConfigError
from agile_ray.record import history, ledger, provenance
from agile_ray.record.evaluations import kept, kept_choice
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import read_json
from agile_ray.record.whole import write_whole
from launch.report import page
from launch.report.summary import Report, build


def compose(run: RunFolder) -> Report:
    """Build the report from what the run has stored so far.

    Raises:
        ConfigError: the folder is not a run's, or another version wrote it.
        ContractError: the ledger differs from what the learner was given.
    """
    lines = history.read(run.history)
    return build(
        kept(run),
        config=config_file.load(run.config),
        lines=lines,
        starts=provenance.read(run),
        ledger=ledger.audit(run, lines),
        chosen=kept_choice(run),
    )


def load(run: RunFolder) -> Report:
    """Read report.json.

    Raises:
        ConfigError: it is missing, or another version wrote it.
    """
    if not run.is_finished:
        runs = SweepFolder(run.path).runs()
        found = f"the folders of runs, such as {runs[0]}; give one of those" if runs else "neither"
        raise ConfigError(f"{run}: a run's folder holds {run.config.name} or {run.report.name}, found {found}")
    return read_json(run.report, Report.model_validate_json, expected="a report")


def write(run: RunFolder, report: Report) -> None:
    """Write the page, then report.json, which marks the run as finished."""
    write_page(run, report)
    write_whole(run.report, report.model_dump_json(indent=2).encode() + b"\n")


def write_page(run: RunFolder, report: Report) -> None:
    """Write the page alone, for a run that has not finished."""
    write_whole(run.report_page, page.render(report).encode())
