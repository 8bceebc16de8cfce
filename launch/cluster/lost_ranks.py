"""A training survives the loss of a learner rank: fresh ranks start, and its work begins again at the last checkpoint.

    a rank dies, hangs, or is cut off from the others       RankLostError: answered here
    a loss is not finite, a model can't be loaded, a bug    any other error ends the run: it would come again

The work is all that the same command does in a new process, once engines and learners run: it restores the newest whole
checkpoint, discards what came later, and plays on from there. Asks that are paid for are answered from the run's books.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from agile_ray.errors import LearnerError, RankLostError
from agile_ray.record.checkpoints import latest_checkpoint
from agile_ray.record.folder import CheckpointFolder, RunFolder

RESUMES = 3
"""Resumes from the same checkpoint that a run survives. Each new checkpoint gives it as many again."""

Result = TypeVar("Result")


def surviving_lost_ranks(
    work: Callable[[], Result],
    *,
    restart: Callable[[], None],
    run: RunFolder,
    sft: CheckpointFolder,
    stopping: Callable[[], bool],
    say: Callable[[str], None],
) -> Result:
    """Do the work of a run; whenever a learner rank is lost, start fresh ranks and do it again.

    Args:
        work: restores the run, and trains on.
        restart: replaces all ranks, and takes all else that outlives the work back to where a new process has it.
        run: the run's folder.
        sft: the last checkpoint of imitation, where a run without checkpoints begins.
        stopping: whether the run was asked to stop. Then it ends: whoever asked may have ended the ranks too.
        say: called with a line for each lost rank.

    Raises:
        LearnerError: ranks were lost too often; the message has the commonest reason.
    """
    begun: str | None = None  # where the work was begun again last
    reasons: list[str] = []  # why, each time
    while True:
        try:
            if reasons:
                restart()
            return work()
        except RankLostError as error:
            if stopping():
                raise
            latest = latest_checkpoint(run, sft)
            where = "the start" if latest is None else latest.folder.path.name
            reasons = [*(reasons if where == begun else ()), str(error)]
            if len(reasons) > RESUMES:
                raise LearnerError(_too_often(reasons, where)) from error
            begun = where
            say(f"lost a learner rank ({error}): fresh ones go on from {where}, {len(reasons)} of {RESUMES} times")


def _too_often(reasons: Sequence[str], where: str) -> str:
    kinds = [reason.partition("(")[0] for reason in reasons]  # what follows names processes, no two are the same
    kind, times = Counter(kinds).most_common(1)[0]
    return (
        f"learner: a run resumes {RESUMES} times from {where}, but ranks were lost {len(reasons)} times, {times} of "
        f"them by: {reasons[kinds.index(kind)]}; run again to resume"
    )
