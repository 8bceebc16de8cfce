"""The card of a run: what was trained, with what, and for how long."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from agile_ray.config import Credit, RunConfig
from agile_ray.record.history import Event, Line
from agile_ray.types import Session

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model folder says of itself."""

    kind: str  # such as "qwen3, 4 layers of width 256"; "unknown" without config.json
    parameters: int | None  # None: no weights in safetensors files


class Card(BaseModel):
    """What was trained, with what, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str  # name of the folder
    kind: str
    parameters: int | None
    experts: dict[str, int]  # asks that each answered in the final evaluations of the learned policies
    credit: str
    iterations: int  # finished
    planned: int
    duration_s: float  # wall time of all phases, without work that was discarded


def card(config: RunConfig, facts: ModelFacts, lines: Sequence[Line], results: Mapping[str, Sequence[Session]]) -> Card:
    """Collect the card of a run.

    Args:
        config: of the run.
        facts: of its model.
        lines: its history.
        results: final evaluations of the learned policies, by entry.
    """
    return Card(
        model=config.model.path.name,
        kind=facts.kind,
        parameters=facts.parameters,
        experts=_experts(one for sessions in results.values() for one in sessions),
        credit=credit(config.credit),
        iterations=sum(line.event is Event.ITERATION for line in lines),
        planned=config.loop.iterations,
        duration_s=sum(sum(line.seconds.values()) for line in lines),
    )


def credit(settings: Credit) -> str:
    """The credit mode with the settings that it uses, such as `linked, threshold 0.65`."""
    own = {
        "heuristic": f", beta {settings.beta:g}",
        "fitted": f", window {settings.window}",
        "linked": f", threshold {settings.threshold:g}",
    }
    return settings.mode + own.get(settings.mode, "")


def model_facts(folders: Iterable[Path]) -> ModelFacts:
    """Describe the model in the first of the folders that holds a config.json. Reads no weights, only their shapes."""
    folder = next((folder for folder in folders if (folder / "config.json").is_file()), None)
    if folder is None:
        return ModelFacts(kind=UNKNOWN, parameters=None)
    try:
        found = json.loads((folder / "config.json").read_bytes())
        kind = f"{found['model_type']}, {found['num_hidden_layers']} layers of width {found['hidden_size']}"
    except (ValueError, KeyError, TypeError):  # a model of another build
        kind = UNKNOWN
    return ModelFacts(kind=kind, parameters=_parameters(folder))


def _parameters(folder: Path) -> int | None:
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  not a mapping
                    size = 1
                    for length in weights.get_slice(name).get_shape():
                        size *= length
                    total += size
        except (SafetensorError, OSError):
            return None
    return total or None


def _experts(sessions: Iterable[Session]) -> dict[str, int]:
    return dict(Counter(receipt.source for session in sessions for receipt in session.receipts))
