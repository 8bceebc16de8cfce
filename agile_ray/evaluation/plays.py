"""What an evaluation plays: the same sessions of the same streams for every policy that is compared."""

from dataclasses import dataclass

from agile_ray.agent.environment import Environment
from agile_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One stream of an evaluation, from its start with an empty memory."""

    index: int
    sessions: int


def plays(environment: Environment, *, split: str, sessions: int | None) -> list[Play]:
    """Choose the first streams of a split, whole except for the last.

    Args:
        environment: provides the streams.
        split: the streams' split.
        sessions: total number; None plays every stream to its end. Fewer are played if the split has no more.

    Raises:
        ConfigError: there is no such split, or its streams never end and `sessions` is None.
    """
    available = environment.streams(split)
    if sessions is None and available is None:
        raise ConfigError(f"evaluate.sessions: the streams of split {split} never end; say how many sessions to play")
    chosen: list[Play] = []
    left = sessions
    while (available is None or len(chosen) < available) and (left is None or left > 0):
        length = len(environment.stream(split=split, index=len(chosen)).questions)
        chosen.append(Play(index=len(chosen), sessions=length if left is None else min(length, left)))
        left = None if left is None else left - chosen[-1].sessions
    return chosen
