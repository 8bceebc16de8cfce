"""The sessions of a run's evaluations, one Parquet file per policy, and which checkpoint they played.

All but one are final evaluations, on the same test questions. `STARTING` is played on validation, once: the memories of
lanes that begin inside a stream are grown by its asking shares, so a resumed run grows the same ones.
"""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import TypeAdapter

from agile_ray.evaluation.choice import Choice
from agile_ray.record import store
from agile_ray.record.folder import RunFolder
from agile_ray.record.json_files import read_json, write_json
from agile_ray.types import Session

_CHOICE = TypeAdapter(Choice)
STARTING = "sft_validation_sampled"
"""Entry of the policy after imitation, sampled on validation."""


def keep(run: RunFolder, entry: str, sessions: Sequence[Session]) -> None:
    """Store one policy's evaluation under its entry: `ppo`, `oracle`, ..."""
    store.write_sessions(run.evaluation_file(entry), sessions)


def has(run: RunFolder, entry: str) -> bool:
    """Whether a policy's evaluation is stored and readable."""
    return store.is_readable(run.evaluation_file(entry))


def read(run: RunFolder, entry: str) -> list[Session]:
    """One stored evaluation.

    Raises:
        ConfigError: it is not stored, or another version wrote it.
    """
    return store.read_sessions(run.evaluation_file(entry))


def kept(run: RunFolder) -> dict[str, list[Session]]:
    """Every stored final evaluation, by entry.

    Raises:
        ConfigError: another version wrote one of them.
    """
    return {entry: read(run, entry) for entry in run.evaluated_entries() if entry != STARTING}


def keep_choice(run: RunFolder, choice: Choice) -> None:
    """Store which checkpoint the final evaluation plays."""
    run.evaluations.mkdir(parents=True, exist_ok=True)
    write_json(run.choice, asdict(choice))


def kept_choice(run: RunFolder) -> Choice | None:
    """Which checkpoint the final evaluation played; None: the last one, because none was evaluated, or not yet.

    Raises:
        ConfigError: another version wrote it.
    """
    return read_json(run.choice, _CHOICE.validate_json, expected="a choice") if run.choice.is_file() else None
