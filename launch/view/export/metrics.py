"""Writes the metrics of a run for MLflow and for Weights & Biases, as a training does that is told to `--track` them.

What a resumed run discarded is left out. Every export makes new runs.
"""

from collections.abc import Iterator
from pathlib import Path

from agile_ray import config_file
from agile_ray.errors import AgileError, ConfigError
from agile_ray.record import history
from agile_ray.record.folder import RunFolder
from agile_ray.record.tracking.copier import Copier
from agile_ray.record.tracking.curves import Outcome, described_knobs, said
from agile_ray.record.tracking.programs import PROGRAMS
from agile_ray.record.tracking.written import Written


def write(run: RunFolder, form: str, folder: Path | None) -> Iterator[str]:
    """Write what a run has recorded so far, and name each of the runs that hold it.

    The times of MLflow are made up, a millisecond apart: the history has none.

    Args:
        run: its folder.
        form: of `PROGRAMS`.
        folder: where to, which exists; None: to the server that the program's own settings name.

    Raises:
        ConfigError: the run has recorded nothing, or the program's package is missing; nothing was written.
        AgileError: the program refuses.
    """
    lines = history.read(run.history)
    if not lines:
        raise ConfigError(f"{run.history}: must hold the metrics of a run, found none; train it first")
    config = config_file.load(run.config)
    program = PROGRAMS[form](folder)
    end_ms = int(1000 * run.history.stat().st_mtime)
    times, rest = iter(range(end_ms - len(lines) - 1, end_ms)), iter(lines)
    copier = Copier(
        program,
        name=config.run.name,
        knobs=described_knobs(config),
        written=Written(None, where=program.where),
        now_ms=lambda: next(times, end_ms),
    )
    try:
        copier.copy(lambda: next(rest, None))
        copier.end(Outcome.FINISHED, time_ms=end_ms)
    except Exception as error:  # noqa: BLE001  a client raises what the libraries raise that it uses
        raise AgileError(f"--to {form}: {program.where} must take the metrics, found {said(error)}") from error
    if copier.remarks:
        raise AgileError(f"--to {form}: {'; '.join(copier.remarks)}")
    for name, place in copier.places():
        yield f"{name}: {place}"
