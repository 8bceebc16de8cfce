"""The sessions of a run's final evaluations, one Parquet file for each policy."""

from collections.abc import Sequence
from pathlib import Path

from agile_ray.record import store
from agile_ray.types import Session

EVALUATION = "evaluation"


def keep(run_folder: Path, entry: str, sessions: Sequence[Session]) -> None:
    """Store one policy's final evaluation under its entry: `ppo`, `oracle`, ..."""
    store.write_sessions(run_folder / EVALUATION / f"{entry}.parquet", sessions)


def has(run_folder: Path, entry: str) -> bool:
    """Whether a policy's final evaluation is stored."""
    return (run_folder / EVALUATION / f"{entry}.parquet").exists()


def kept(run_folder: Path) -> dict[str, list[Session]]:
    """Every stored final evaluation, by entry."""
    return {path.stem: store.read_sessions(path) for path in sorted((run_folder / EVALUATION).glob("[!.]*.parquet"))}
