"""Discards what a run stored after the checkpoint that it resumes from, but keeps receipts: the asks come again."""

from contextlib import suppress

from agile_ray.errors import ConfigError
from agile_ray.record import history, provenance, store
from agile_ray.record.checkpoints import latest_checkpoint
from agile_ray.record.folder import CheckpointFolder, RunFolder
from agile_ray.record.parquet.tables import DamagedFileError, is_readable
from agile_ray.record.receipts import clear_journals, keep_discarded, read_abandoned, read_journals
from agile_ray.record.whole import remove_unfinished
from agile_ray.types import Receipt


def discard_after(run: RunFolder, iteration: int) -> int:
    """Delete the segments stored after an iteration, and files that a killed process left unfinished.

    Their receipts are kept in a journal before a file is deleted, except those in a damaged file.

    Returns:
        Segments deleted, without those in damaged files.

    Raises:
        ConfigError: a file was written by another version.
    """
    discarded = 0
    for number in run.stored_iterations():
        if number > iteration:
            path = run.segment_file(number)
            with suppress(DamagedFileError):
                keep_discarded(run, number, _bought(run, number))
                discarded += store.count_segments(run, number)
            path.unlink()
    clear_journals(run, iteration)  # of a process that was killed between storing an iteration and doing this
    for folder in (run.path, run.segments, run.evaluations):
        remove_unfinished(folder)
    return discarded


def damaged_after(run: RunFolder, iteration: int) -> tuple[str, ...]:
    """Names of the segment files stored after an iteration that can't be read, so that their receipts are lost.

    Raises:
        ConfigError: a file was written by another version.
    """
    found: list[str] = []
    for number in run.stored_iterations():
        if number > iteration:
            try:
                _bought(run, number)
            except DamagedFileError:
                found.append(run.segment_file(number).name)
    return tuple(found)


def check_record(run: RunFolder, sft: CheckpointFolder) -> None:
    """Refuse to resume a run that has no whole checkpoint, that lacks what it stored before it, or with damaged books.

    Args:
        run: its folder, which need not exist.
        sft: the last checkpoint of imitation.

    Raises:
        ConfigError: as in `latest_checkpoint`; or a segment file is cut off that the run's books need at its end; or
            its history, starts or receipts can't be read.
    """
    latest = latest_checkpoint(run, sft)
    last = latest.state.iteration if latest is not None else 0
    for number in run.stored_iterations():
        path = run.segment_file(number)
        if number <= last and not is_readable(path):
            raise ConfigError(
                f"{path}: must be a whole Parquet file, for the run's report needs it, found {path.stat().st_size} "
                f"bytes that can't be read; put back a copy, or delete the checkpoints of iteration {number} and later "
                f"in {run.checkpoints} to train it again"
            )
    history.read(run.history)  # read again once engines run: an error here comes minutes earlier
    provenance.read(run)
    read_abandoned(run)
    read_journals(run.journals())


def _bought(run: RunFolder, iteration: int) -> list[Receipt]:
    played = store.outcomes(run, iteration)
    return [receipt for session in played for receipt in (*session.receipts, *session.abandoned)]
