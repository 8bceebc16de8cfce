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


def keep(run: RunFolder, entry: str, sessions: Sequence[Session], *, tokens: bool = True) -> None:
    """Store one policy's evaluation under its entry: `ppo`, `oracle`, ...

    Args:
        run: its folder.
        entry: name of the policy.
        sessions: what it played.
        tokens: store them too. Those of a script are of its own tokenizer, which is not kept, so nothing decodes them.
    """
    store.write_sessions(run.evaluation_file(entry), sessions, tokens=tokens)


def has(run: RunFolder, entry: str) -> bool:
    """Whether a policy's evaluation is stored and readable."""
    return store.is_readable(run.evaluation_file(entry))


def read(run: RunFolder, entry: str) -> list[Session]:
    """One stored evaluation, without turns.

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
