"""The sessions of a run's final evaluations, one Parquet file per policy."""

from collections.abc import Sequence

from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.types import Session


def keep(run: RunFolder, entry: str, sessions: Sequence[Session], *, tokens: bool = True) -> None:
    """Store one policy's final evaluation under its entry: `ppo`, `oracle`, ...

    Args:
        run: its folder.
        entry: name of the policy.
        sessions: what it played.
        tokens: store them too. Those of a script are of its own tokenizer, which is not kept, so nothing decodes them.
    """
    store.write_sessions(run.evaluation_file(entry), sessions, tokens=tokens)


def has(run: RunFolder, entry: str) -> bool:
    """Whether a policy's final evaluation is stored and readable."""
    return store.is_readable(run.evaluation_file(entry))


def read(run: RunFolder, entry: str) -> list[Session]:
    """One stored final evaluation, without turns.

    Raises:
        ConfigError: it is not stored, or a newer version wrote it.
    """
    return store.read_sessions(run.evaluation_file(entry))


def read_whole(run: RunFolder, entry: str) -> list[Session]:
    """One stored final evaluation with the sessions' turns; a script's sessions have none.

    Raises:
        ConfigError: it is not stored, a newer version wrote it, or an older one without its tokens.
    """
    return store.read_whole_sessions(run.evaluation_file(entry))


def kept(run: RunFolder) -> dict[str, list[Session]]:
    """Every stored final evaluation, by entry, without turns.

    Raises:
        ConfigError: a newer version wrote one of them.
    """
    return {entry: read(run, entry) for entry in run.evaluated_entries()}
