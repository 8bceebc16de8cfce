"""What an evaluation plays: the same streams, and as much of them, for every policy that is compared."""

from dataclasses import dataclass

from agile_ray.agent.environment import Environment
from agile_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One stream of an evaluation, from its start with an empty memory."""

    index: int
    sessions: int


def plays(environment: Environment, *, split: str, sessions: int | None) -> list[Play]:
    """The first streams of a split, whole except for the last.

    Args:
        sessions: how many in all; None plays every stream to its end. Fewer where the split has no more.

    Raises:
        ConfigError: no such split, or it never ends and `sessions` is None.
    """
    known = environment.streams(split)
    if sessions is None and known is None:
        raise ConfigError(f"evaluate.sessions: the streams of split {split} never end; say how many sessions to play")
    chosen: list[Play] = []
    left = sessions
    while (known is None or len(chosen) < known) and (left is None or left > 0):
        length = len(environment.stream(split=split, index=len(chosen)).questions)
        chosen.append(Play(index=len(chosen), sessions=length if left is None else min(length, left)))
        left = None if left is None else left - chosen[-1].sessions
    return chosen
