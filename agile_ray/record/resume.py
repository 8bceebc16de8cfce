"""Discards what a run stored after the checkpoint that it resumes from, and books its receipts as abandoned."""

from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.receipts import abandon, read_journal
from agile_ray.record.whole import remove_unfinished
from agile_ray.types import Receipt


def discard_after(run: RunFolder, iteration: int) -> int:
    """Delete the segments stored after an iteration, the journals, and files that a killed process left unfinished.

    Receipts are booked in abandoned.jsonl before their file is deleted.

    Returns:
        Segments deleted.

    Raises:
        ConfigError: a file was written by another version.
    """
    _discard_journals(run)  # first, because it compares with the last stored iteration
    discarded = 0
    for number in run.stored_iterations():
        if number > iteration:
            path = run.segment_file(number)
            discarded += store.count_segments(run, number)
            abandon(run, path, iteration=number, receipts=_bought(run, number))
            path.unlink()
    for folder in (run.path, run.segments, run.evaluations):
        remove_unfinished(folder)
    return discarded


def _discard_journals(run: RunFolder) -> None:
    """Book and delete the journals of a killed process.

    They belong to a collection that was cut short, or to one that had just been stored.
    """
    last = max(run.stored_iterations(), default=0)
    booked = set(_bought(run, last)) if last else set()
    for path in run.journals():
        left = [receipt for receipt in read_journal(path) if receipt not in booked]
        abandon(run, path, iteration=last + 1, receipts=left)
        path.unlink()


def _bought(run: RunFolder, iteration: int) -> list[Receipt]:
    played = store.outcomes(run, iteration)
    return [receipt for session in played for receipt in (*session.receipts, *session.abandoned)]
