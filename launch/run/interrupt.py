"""What Ctrl-C says of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agile_ray.record.folder import RunFolder
from launch.border import interrupted


@contextmanager
def resumable(run: RunFolder, *, stopping: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """At Ctrl-C in the block, say what is saved and how to resume.

    Args:
        stopping: whether SIGTERM came: then the interruption is not Ctrl-C, and passes.
    """
    try:
        yield
    except KeyboardInterrupt:
        if stopping():
            raise
        raise interrupted(f"{run}: {_saved(run)}") from None


def _saved(run: RunFolder) -> str:
    if run.is_finished:
        return "the run was finished before, and its report is kept"
    names = [folder.path.name for folder in run.complete_checkpoints()]
    if run.sft.is_complete:
        names.append(run.sft.path.name)
    if not names:
        return "nothing is saved yet; the same command starts from the beginning"
    latest = max(names, key=lambda name: (name.startswith("iteration-"), name == run.sft.path.name, name))
    return f"saved up to {latest}, what came later is lost; run the same command again to resume"
