"""report.json and report.html: composed from the folder of a run or a sweep, written and read."""

from agile_ray import config_file
from agile_ray.errors import ConfigError
from agile_ray.record import history, ledger, provenance
from agile_ray.record.evaluations import kept_choice
from agile_ray.record.folder import RunFolder, SweepFolder
from agile_ray.record.json_files import read_json
from agile_ray.record.whole import write_whole
from launch.report import sweep_table
from launch.report.findings.card import model_facts
from launch.report.findings.warnings import warnings
from launch.report.frontier.measure import Frontier, frontiers
from launch.report.frontier.results import read_results, sessions_with_asks
from launch.report.page import run_page, sweep_page
from launch.report.summary import Report, build


def compose(run: RunFolder) -> Report:
    """Build the report from what the run has stored so far.

    Raises:
        ConfigError: the folder is not a run's, or another version wrote it.
        ContractError: the ledger differs from what the learner was given.
    """
    lines = history.read(run.history)
    config = config_file.load(run.config)
    return build(
        sessions_with_asks(run),
        config=config,
        lines=lines,
        starts=provenance.read(run),
        ledger=ledger.audit(run, lines),
        chosen=kept_choice(run),
        facts=model_facts([run.sft.path, config.model.path]),
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
    write_whole(run.report_page, run_page.render(report).encode())


def write_sweep_page(sweep: SweepFolder) -> list[Frontier]:
    """Write the page of a sweep's finished runs.

    Returns:
        their frontiers.

    Raises:
        ConfigError: no run has finished, or another version wrote one.
    """
    runs = sweep.finished_runs()
    found = frontiers(read_results(runs))
    reports = [_warned(run, load(run)) for run in runs]
    groups = sweep_table.groups(sweep_table.read(sweep)) if sweep.table.is_file() else []
    content = sweep_page.render(sweep.path.resolve().name, frontiers=found, reports=reports, groups=groups)
    write_whole(sweep.report_page, content.encode())
    return found


def _warned(run: RunFolder, report: Report) -> Report:
    """A report with its warnings, which those of earlier versions lack."""
    return report.model_copy(update={"warnings": warnings(history.read(run.history), report.entries)})
